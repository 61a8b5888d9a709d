# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Mean and standard deviation of the values of normal images, of which some may be atypical (ours)."""

import torch

ONE_IN = 20  # of so many values one, the highest, may lie anywhere above the others


def mean_and_std(values: torch.Tensor, number: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Winsorised mean and standard deviation: the highest values count as the next one does.

    One atypical image among the normal ones would otherwise make a score's standard deviation several times as large,
    and the score would count for less than all others. Of fewer than ``ONE_IN`` all count as they are.

    Args:
        values: Shape ``(..., n)``.
        number: How many normal images there are, if a value has been left out; by default n.

    Returns:
        Both of shape ``(...)``.
    """
    ordered = values.sort(dim=-1).values
    highest = ordered.shape[-1] - (number or ordered.shape[-1]) // ONE_IN - 1
    ordered = torch.minimum(ordered, ordered[..., highest : highest + 1])
    return ordered.mean(dim=-1), ordered.std(dim=-1)

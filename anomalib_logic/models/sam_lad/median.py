# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Median of many values, in operations that have a deterministic form on every device."""

import torch


def lower_median(values: torch.Tensor) -> torch.Tensor:
    """Median over the first dimension, the lower of the two middle values of an even number.

    ``torch.median`` over a dimension is refused on CUDA where deterministic algorithms are asked for.

    Args:
        values: Shape ``(Z, ...)``.

    Returns:
        Shape ``(...)``.
    """
    return values.sort(dim=0).values[(len(values) - 1) // 2]

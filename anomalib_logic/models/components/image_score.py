# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Image scores from anomaly maps."""

from typing import Literal

import torch

ImageScore = Literal["std", "max", "top"]


def summarize(maps: torch.Tensor, image_score: ImageScore, top_share: float) -> torch.Tensor:
    """Image score of maps.

    Args:
        maps: Shape ``(N, ...)``.
        image_score: Standard deviation (``"std"``), maximum (``"max"``) or mean of the highest values (``"top"``).
        top_share: Share of the positions that ``"top"`` averages.

    Returns:
        Scores, shape ``(N,)``.
    """
    flat = maps.flatten(1)
    if image_score == "std":
        return flat.std(dim=1)
    if image_score == "max":
        return flat.amax(dim=1)
    return flat.topk(max(1, round(top_share * flat.shape[1])), dim=1).values.mean(dim=1)

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""From error maps of several scales to one anomaly map and an image score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional as F

from .blur import SeparableBlur
from .image_score import ImageScore, summarize
from .options import OptionGroup
from .precision import full_precision

Distance = Literal["mse", "cosine"]
TOP_SHARE = 0.02  # share of the map's positions that the image score "top" averages


@dataclass(frozen=True)
class Scoring(OptionGroup):
    """Anomaly map and image score from errors.

    Args:
        distance: ``"mse"`` (squared error) or ``"cosine"`` (one minus cosine similarity) of each position.
        sigma: Standard deviation of the anomaly map's Gaussian filter in pixels; 0 leaves it out.
        image_score: ``"std"`` or ``"max"`` of the anomaly map, or the mean of its ``"top"`` 2%.
    """

    LEAST: ClassVar[Mapping[str, float]] = {"sigma": 0}

    distance: Distance = "mse"
    sigma: float = 4.0
    image_score: ImageScore = "max"


def position_distance(first: torch.Tensor, second: torch.Tensor, distance: Distance) -> torch.Tensor:
    """Distance of two feature maps at each position.

    Args:
        first, second: Maps, shape ``(N, C, H, W)``.
        distance: ``"mse"``: squared difference, summed over channels. ``"cosine"``: one minus cosine similarity.

    Returns:
        Distances, shape ``(N, 1, H, W)``.
    """
    if distance == "mse":
        return (first - second).square().sum(dim=1, keepdim=True)
    return 1 - F.cosine_similarity(first, second, dim=1).unsqueeze(1)


class MapFusion(nn.Module):
    """Weighted sum of maps at the size of the image, smoothed, and its image score, without mixed precision.

    Args:
        image_size: Height and width of the map in pixels.
        sigma: Standard deviation of the Gaussian filter in pixels; 0 leaves it out.
        image_score: ``"std"`` or ``"max"`` of the map, or the mean of its ``"top"`` 2%.
    """

    def __init__(self, image_size: tuple[int, int], sigma: float, image_score: ImageScore) -> None:
        super().__init__()
        self.image_size = image_size
        self.image_score = image_score
        self.blur = SeparableBlur(sigma)

    def forward(self, maps: Sequence[torch.Tensor], weights: Sequence[float]) -> tuple[torch.Tensor, torch.Tensor]:
        """Fuse.

        Args:
            maps: At least one map, shapes ``(N, 1, H_i, W_i)``.
            weights: Their weights.

        Returns:
            Anomaly map, shape ``(N, 1, H, W)``, and image score, shape ``(N,)``.
        """
        fused = torch.zeros((), dtype=maps[0].dtype, device=maps[0].device)
        with full_precision(fused.device):
            for one, weight in zip(maps, weights, strict=True):
                fused = fused + weight * F.interpolate(one, self.image_size, mode="bilinear", align_corners=False)
            anomaly_map = self.blur(fused)
            return anomaly_map, summarize(anomaly_map, self.image_score, TOP_SHARE)

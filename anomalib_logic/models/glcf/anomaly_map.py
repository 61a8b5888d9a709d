# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Anomaly map and image score of GLCF (paper section III-E2, equations 5 to 7)."""

from collections.abc import Sequence
from typing import Literal

import torch
from anomalib.models.components import GaussianBlur2d
from torch import nn
from torch.nn import functional as F

from anomalib_logic.models.components.arguments import check_choice
from anomalib_logic.models.components.image_score import ImageScore, summarize
from anomalib_logic.models.components.normal_statistics import MapNormalization
from anomalib_logic.models.components.precision import full_precision

Distance = Literal["mse", "cosine"]
Branch = Literal["both", "local", "global"]
Criterion = Literal["estimation", "correspondence"]
TOP_SHARE = 0.02  # share of the map's positions that the image score "top" averages


def position_distance(first: torch.Tensor, second: torch.Tensor, distance: Distance) -> torch.Tensor:
    """Distance of two feature maps at each position (equation 5).

    Args:
        first, second: Maps, shape ``(N, C, H, W)``.
        distance: ``"mse"``: squared difference, summed over channels. ``"cosine"``: one minus cosine similarity.

    Returns:
        Distances, shape ``(N, 1, H, W)``.
    """
    if distance == "mse":
        return (first - second).square().sum(dim=1, keepdim=True)
    return 1 - F.cosine_similarity(first, second, dim=1).unsqueeze(1)


class AnomalyMapGenerator(nn.Module):
    """Errors of both branches at all scales, normalised and fused to one map.

    Args:
        image_size: Height and width of the map in pixels.
        branch: ``"both"``, ``"local"`` or ``"global"``.
        criterion: What the global branch compares with the correspondence network's maps G_i: their estimates
            (``"estimation"``) or the backbone's maps (``"correspondence"``, ablation of the paper's fig. 11a).
        distance: ``"mse"`` or ``"cosine"``, a position.
        scale_weights: Weights of the scales, strides 4, 8 and 16 (equation 7); 0 leaves a scale out.
        branch_weights: Weights of the local and the global branch (equation 6).
        sigma: Standard deviation of the Gaussian filter in pixels; 0 leaves it out.
        image_score: ``"std"`` (the paper) or ``"max"`` of the map, or the mean of its ``"top"`` 2% (ours).

    Raises:
        ValueError: If a choice is unknown, or weights are negative, of another number or all zero.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        branch: Branch = "both",
        criterion: Criterion = "estimation",
        distance: Distance = "mse",
        scale_weights: Sequence[float] = (1.0, 2.0, 3.0),
        branch_weights: Sequence[float] = (5.0, 1.0),
        sigma: float = 4.0,
        image_score: ImageScore = "std",
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.branch = check_choice("branch", branch, Branch)
        self.criterion = check_choice("criterion", criterion, Criterion)
        self.distance = check_choice("distance", distance, Distance)
        self.image_score = check_choice("image_score", image_score, ImageScore)
        self.scale_weights = _check_weights("scale_weights", scale_weights, 3)
        branch_weights = _check_weights("branch_weights", branch_weights, 2)
        self.branch_weights = {"both": branch_weights, "local": (1.0, 0.0), "global": (0.0, 1.0)}[branch]
        self.normalization = MapNormalization(2 * len(self.scale_weights))
        self.blur = GaussianBlur2d(sigma=sigma, channels=1) if sigma > 0 else nn.Identity()

    def errors(
        self,
        features: Sequence[torch.Tensor],
        correspondence: Sequence[torch.Tensor],
        local_estimate: Sequence[torch.Tensor],
        global_estimate: Sequence[torch.Tensor],
    ) -> list[torch.Tensor]:
        """Compute the error maps, local ones first (equation 5).

        Args:
            features, correspondence, local_estimate, global_estimate: Maps F_i, G_i, E_l,i and E_g,i, shapes
                ``(N, C_i, H_i, W_i)``.

        Returns:
            Six maps, shapes ``(N, 1, H_i, W_i)``: local at strides 4, 8, 16, then global.
        """
        reference = global_estimate if self.criterion == "estimation" else features
        pairs = [*zip(features, local_estimate, strict=True), *zip(correspondence, reference, strict=True)]
        return [position_distance(first, second, self.distance) for first, second in pairs]

    def forward(self, errors: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalise, fuse and smooth (equations 6 and 7).

        Args:
            errors: The result of :meth:`errors`.

        Returns:
            Anomaly map, shape ``(N, 1, H, W)``, and image score, shape ``(N,)``.
        """
        with full_precision(errors[0].device):
            return self._fuse(errors)

    def _fuse(self, errors: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        scaled = self.normalization(errors)
        scales = len(self.scale_weights)
        local_weight, global_weight = self.branch_weights
        fused = torch.zeros((), dtype=scaled[0].dtype, device=scaled[0].device)
        for i, weight in enumerate(self.scale_weights):
            scale = local_weight * scaled[i] + global_weight * scaled[scales + i]
            fused = fused + weight * F.interpolate(scale, self.image_size, mode="bilinear", align_corners=False)
        anomaly_map = self.blur(fused)
        return anomaly_map, summarize(anomaly_map, self.image_score, TOP_SHARE)


def _check_weights(name: str, weights: Sequence[float], number: int) -> tuple[float, ...]:
    values = tuple(float(weight) for weight in weights)
    if len(values) != number or min(values) < 0 or max(values) == 0:
        msg = f"{name} must be {number} numbers, none negative and not all zero, got {list(weights)}"
        raise ValueError(msg)
    return values

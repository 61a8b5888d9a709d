# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Anomaly map and image score of GLCF (paper section III-E2, equations 5 to 7)."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch

from anomalib_logic.models.components.error_maps import MapFusion, position_distance
from anomalib_logic.models.components.normal_statistics import MapNormalization
from anomalib_logic.models.components.options import take_groups

from .options import GlcfScoring

Maps = Sequence[torch.Tensor | None] | None


class AnomalyMapGenerator(MapFusion):
    """Errors of both branches at all scales, normalised and fused to one map.

    Args:
        image_size: Height and width of the map in pixels.
        scoring: What is computed, see :class:`.options.GlcfScoring`.
        **options: Single fields of it.

    Attributes:
        scales: Whether the errors at strides 4, 8 and 16 are computed.
        branches: Whether the local and the global errors are computed.

    Raises:
        ValueError: If a choice is unknown, or weights are negative, of another number or all zero.
    """

    def __init__(self, image_size: tuple[int, int], scoring: GlcfScoring | None = None, **options: Any) -> None:
        (scoring,) = take_groups("AnomalyMapGenerator", options, (GlcfScoring, scoring))
        super().__init__(image_size, scoring.sigma, scoring.image_score)
        self.criterion = scoring.criterion
        self.distance = scoring.distance
        self.scale_weights = tuple(float(weight) for weight in scoring.scale_weights)
        single = {"local": (1.0, 0.0), "global": (0.0, 1.0)}
        self.branch_weights = single.get(scoring.branch, tuple(float(weight) for weight in scoring.branch_weights))
        self.scales = tuple(weight > 0 for weight in self.scale_weights)
        self.branches = tuple(weight > 0 for weight in self.branch_weights)
        self.used = [
            index
            for index, (branch, scale) in enumerate(product(self.branches, self.scales))
            if branch and scale  # as the errors are ordered: local at all scales, then global
        ]
        self.normalization = MapNormalization(2 * len(self.scales), self.used)

    def errors(
        self, features: Sequence[torch.Tensor], correspondence: Maps, local_estimate: Maps, global_estimate: Maps
    ) -> list[torch.Tensor]:
        """Compute the error maps that count (equation 5).

        Args:
            features, correspondence, local_estimate, global_estimate: Maps F_i, G_i, E_l,i and E_g,i, shapes
                ``(N, C_i, H_i, W_i)``; those that do not count may be ``None``.

        Returns:
            Maps, shapes ``(N, 1, H_i, W_i)``: local at strides 4, 8, 16, then global.
        """
        reference = global_estimate if self.criterion == "estimation" else features
        branches = ((features, local_estimate), (correspondence, reference))
        pairs = []
        for index in self.used:
            branch, scale = divmod(index, len(self.scales))
            pairs.append([maps[scale] for maps in branches[branch]])  # type: ignore[index]
        return [
            position_distance(first.float(), second.float(), self.distance)  # type: ignore[union-attr]
            for first, second in pairs
        ]

    def forward(  # type: ignore[override]
        self, errors: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalise, fuse and smooth (equations 6 and 7).

        Args:
            errors: The result of :meth:`errors`.

        Returns:
            Anomaly map, shape ``(N, 1, H, W)``, and image score, shape ``(N,)``.
        """
        return super().forward(*self._terms(errors, self.branch_weights))

    def branch_maps(self, errors: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """The local and the global part of the anomaly map, which is their sum.

        Args:
            errors: The result of :meth:`errors`.

        Returns:
            ``"local_map"`` and ``"global_map"``, shapes ``(N, 1, H, W)``; a branch without weight is left out.
        """
        weights = {"local_map": (self.branch_weights[0], 0.0), "global_map": (0.0, self.branch_weights[1])}
        return {
            name: super(AnomalyMapGenerator, self).forward(*self._terms(errors, pair))[0]
            for name, pair in weights.items()
            if any(pair)
        }

    def _terms(
        self, errors: Sequence[torch.Tensor], branch_weights: Sequence[float]
    ) -> tuple[list[torch.Tensor], list[float]]:
        """Normalised errors of each scale, summed over the branches with a weight, and the scales' weights."""
        scaled = dict(zip(self.used, self.normalization(errors), strict=True))
        maps, weights = [], []
        for scale, weight in enumerate(self.scale_weights):
            branches = range(scale, 2 * len(self.scales), len(self.scales))
            terms = [w * scaled[i] for w, i in zip(branch_weights, branches, strict=True) if w and i in scaled]
            if terms:
                maps.append(sum(terms[1:], terms[0]))
                weights.append(weight)
        return maps, weights

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Each position measured once: with its object, or with the rest of the image (equations 10 to 16)."""

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

import torch

from ..bank import Template
from ..comparison import Comparison
from ..encoder import Found, Maps
from ..measurement import mahalanobis, nearest_distance
from ..options import Alignment
from .objects import Objects
from .scene import Scene
from .score import Measured, Score


class Positions(Score):
    """Distances of objects to their partners where there are objects, and of the image elsewhere (equation 15).

    Args:
        side: Height and width of the maps.
        align, eps: See :class:`.options.SamLadScoring`.
        lite: Measure objects without partner only (equation 16).
    """

    finding = "the look of an object or of its surroundings"
    IMAGES: ClassVar[Mapping[str, torch.dtype]] = Scene.IMAGES
    OBJECTS: ClassVar[Mapping[str, torch.dtype]] = Objects.OBJECTS

    def __init__(self, side: int, align: Alignment, eps: float, lite: bool) -> None:
        super().__init__(side)
        measure = nearest_distance if align == "nearest" else partial(mahalanobis, eps=eps)
        self.in_place = align == "none"
        self.objects = Objects(side, lite, measure)
        self.scene = Scene(side, self.in_place, measure)

    def keep(self, maps: Maps, found: Found) -> Template:
        """What both need."""
        return {**self.objects.keep(maps, found), **self.scene.keep(maps, found)}

    def of_objects(self, compared: Comparison) -> torch.Tensor:
        """Mean distance of each object, as a multiple of ``unit``."""
        return self.objects.means(compared) / self.unit

    def measure(self, compared: Comparison) -> Measured:
        """Distances of objects, and of the scene elsewhere."""
        inside = self.objects.inside(compared).any(dim=1)
        if self.objects.lite and not self.in_place:
            return self.objects.measure(compared)
        scene = self.scene.measure(compared).map
        if self.objects.lite:
            return Measured(scene * inside)
        if self.in_place:
            return Measured(scene)
        comparable = compared.bank.get("valid", compared.references).flatten(1).any(dim=1)[:, None, None]
        return Measured(torch.where(inside & comparable, self.objects.measure(compared).map, scene))

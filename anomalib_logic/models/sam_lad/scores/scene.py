# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The whole image compared with the references (equation 10)."""

from collections.abc import Mapping
from typing import ClassVar

import torch

from ..bank import Template
from ..comparison import Comparison
from ..encoder import Found, Maps
from ..measurement import nearest_distance
from .objects import COVERED, Measure
from .score import Measured, Score


class Scene(Score):
    """Distances of fine features to the nearest anywhere in the references, or to those of the same position.

    Args:
        side: Height and width of the maps.
        masked: Features of references are 0 outside the objects' partners, where an object is (equation 12).
        measure: Distance of features to those of references, as :func:`.measurement.nearest_distance`.
    """

    IMAGES: ClassVar[Mapping[str, torch.dtype]] = {"scene": torch.half}

    def __init__(self, side: int, masked: bool = False, measure: Measure = nearest_distance) -> None:
        super().__init__(side)
        self.masked = masked
        self.distance = measure

    def keep(self, maps: Maps, found: Found) -> Template:
        """Features of the whole image."""
        del found
        return {"scene": maps.scene}

    def measure(self, compared: Comparison) -> Measured:
        """Distances of all positions."""
        query, bank, references = compared.query, compared.bank, compared.references
        scenes = bank.get("scene", references)
        if self.masked:
            inside = (query["masks"] > COVERED).unsqueeze(1)
            covered = (inside * bank.objects("masks", references, compared.matches.partner)).amax(dim=2).unsqueeze(2)
            scenes = torch.where(inside.any(dim=2, keepdim=True), scenes * covered, scenes)
        weights = scenes.new_ones(scenes.shape[:2])
        distances = self.distance(query["scene"].flatten(2), scenes.flatten(3), weights)
        return Measured(distances.view(-1, *self.size))

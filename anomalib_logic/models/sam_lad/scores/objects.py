# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Objects compared with their partners (paper section 3.6)."""

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch

from ..bank import Template
from ..comparison import Comparison
from ..encoder import Found, Maps
from ..frames import paste
from ..measurement import nearest_distance
from .score import Measured, Score

Measure = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
COVERED = 0.3  # share of a position that an object must cover to take it over


class Objects(Score):
    """Distances of each object's features to those of its partners, or to the closest object where it has none.

    Args:
        side: Height and width of the maps.
        lite: Measure objects without partner only (equation 16).
        measure: Distance of features to those of references, as :func:`.measurement.nearest_distance`.
    """

    finding = "the look of an object"
    OBJECTS: ClassVar[Mapping[str, torch.dtype]] = {"crops": torch.half, "crop_masks": torch.half}

    def __init__(self, side: int, lite: bool = False, measure: Measure = nearest_distance) -> None:
        super().__init__(side)
        self.lite = lite
        self.distance = measure

    def keep(self, maps: Maps, found: Found) -> Template:
        """Features and mask of each object in its own frame."""
        del maps
        return {"crops": found.crops, "crop_masks": found.crop_masks}

    def distances(self, compared: Comparison) -> torch.Tensor:
        """Distances in the objects' frames, shape ``(N, K, g, g)``; 0 where no reference has any object."""
        query, bank, matches = compared.query, compared.bank, compared.matches
        valid = bank.get("valid", compared.references)
        crops = bank.objects("crops", compared.references, matches.partner).transpose(1, 2).flatten(4)
        matched = matches.matched.transpose(1, 2).float()
        present = valid.float().gather(2, matches.partner).transpose(1, 2)
        weights = torch.where(matched.amax(dim=-1, keepdim=True) > 0, matched, present)
        distances = self.distance(query["crops"].flatten(3), crops, weights).view(*query["crop_masks"].shape)
        return distances * valid.flatten(1).any(dim=1)[:, None, None, None]

    def of_objects(self, compared: Comparison) -> torch.Tensor:
        """Mean distance of each object, as a multiple of ``unit``."""
        return self.means(compared) / self.unit

    def means(self, compared: Comparison) -> torch.Tensor:
        """Mean distance of each object, shape ``(N, K)``."""
        weights = (compared.query["crop_masks"] > 0.5).float()
        return (self.distances(compared) * weights).sum(dim=(2, 3)) / weights.sum(dim=(2, 3)).clamp_min(1)

    def inside(self, compared: Comparison) -> torch.Tensor:
        """Positions that belong to the objects that are measured, booleans of shape ``(N, K, s, s)``."""
        inside = compared.query["masks"] > COVERED
        return inside & compared.surplus[..., None, None] if self.lite else inside

    def measure(self, compared: Comparison) -> Measured:
        """Distances where the objects are."""
        pasted = paste(self.distances(compared), compared.query["boxes"], self.size)
        return Measured((pasted * self.inside(compared)).amax(dim=1))

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Windows of the image compared with the same place of normal images (ours)."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch.nn import functional as F

from ..bank import Template
from ..comparison import Comparison
from ..encoder import Found, Maps
from .score import Measured, Score


class Place(Score):
    """Distances of coarse features, averaged over windows, to the same place of the nearest normal images.

    Outside the image there is no distance: windows that reach beyond the border, with fewer positions, count less.

    Args:
        side: Height and width of the maps.
        grid: Height and width of the coarse features.
        window: Height and width of the windows.
        nearest: Compare with so many normal images, those that are most alike as wholes; with ``None`` each window has
            its own, of all that are compared place by place.
        floor: Share of the average distance, added to that of each place: how much of a difference counts anywhere.
    """

    IMAGES: ClassVar[Mapping[str, torch.dtype]] = {"coarse": torch.half}

    def __init__(self, side: int, grid: tuple[int, int], window: int, nearest: int | None, floor: float) -> None:
        super().__init__(side, grid)
        self.finding = "what is at a place" if nearest is not None else "what is in a larger area"
        self.window = window
        self.nearest = nearest
        self.floor = floor

    def keep(self, maps: Maps, found: Found) -> Template:
        """Coarse features."""
        del found
        return {"coarse": maps.coarse}

    def measure(self, compared: Comparison) -> Measured:
        """Distance of each window."""
        squared = compared.places
        assert squared is not None  # this score asks for them
        if self.nearest is not None:
            nearest = squared.mean(dim=(2, 3)).topk(min(self.nearest, squared.shape[1]), largest=False).indices
            squared = squared.gather(1, nearest[..., None, None].expand(-1, -1, *squared.shape[2:]))
        means = F.avg_pool2d(squared, self.window, stride=1, padding=self.window // 2)
        return Measured(means.amin(dim=1).sqrt())

    def typical(self, maps: torch.Tensor) -> torch.Tensor:
        """Mean at each place, smoothed, and the floor."""
        places = smooth(maps.mean(dim=0))
        return places + self.floor * places.mean()


def smooth(maps: torch.Tensor) -> torch.Tensor:
    """Mean over windows of 5 x 5, shape ``(..., h, w)``."""
    return F.avg_pool2d(maps.unsqueeze(-3), 5, stride=1, padding=2, count_include_pad=False).squeeze(-3)

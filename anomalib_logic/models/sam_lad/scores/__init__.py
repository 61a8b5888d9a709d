# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The scores: each one a way in which an image can be unusual."""

from collections.abc import Sequence

from torch import nn

from ..options import SamLadBank, SamLadScoring
from .anywhere import Anywhere
from .composition import Composition, Layout
from .count import Count
from .objects import Objects
from .place import Place
from .positions import Positions
from .score import Score

__all__ = ["Score", "build_scores"]


def build_scores(
    options: SamLadScoring, bank: SamLadBank, grid: tuple[int, int], channels: Sequence[int]
) -> nn.ModuleDict:
    """All scores that count, by name.

    Args:
        options, bank: See :mod:`.options`.
        grid: Height and width of the coarse features.
        channels: Channels of the features of each scale.

    Returns:
        A dictionary of :class:`.score.Score`.
    """
    scores: dict[str, Score] = {}
    side = bank.scene_size
    if options.align != "combined":
        scores["positions"] = Positions(side, options.align, options.eps, options.lite)
    else:
        scores["objects"] = Objects(side, options.lite)
        if not options.lite:
            scores["details"] = Anywhere(side, fine=True, patches=4000)
            scores["anywhere"] = Anywhere(side, fine=False, patches=1000)
            scores["place"] = Place(side, grid, sum(channels[1:] or channels))
    scores["count"] = Count(side)
    if options.composition:
        scores["composition"] = Composition(side, sum(channels))
        scores["layout"] = Layout(side)
    for score in scores.values():
        score.image_score = options.image_score
    return nn.ModuleDict(scores)

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What is kept of many images, in bounded memory.

Images of one kind that show the same defect types are to every metric as one image: their defect-free pixels count
together, and of their regions only the mean overlap matters. A group is merged a round of images at a time, and what
was merged is merged again only with as many rounds as it holds, so that after ``n`` rounds no image was merged more
than ``1 + log2(n)`` times.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .functional import merge_regions, merge_scores
from .protocol import ImageScores, Region


class MergedImages(NamedTuple):
    """Images of one kind that show the same defect types.

    Attributes:
        rounds: How many rounds of images it holds.
        images: What is kept of them, as one image with one region a defect type.
    """

    rounds: int
    images: ImageScores


def merge_round(images: Iterable[ImageScores], earlier: Iterable[MergedImages]) -> list[MergedImages]:
    """Merge a round of images with one another and with what earlier rounds have left.

    Args:
        images: Images of any kinds, on the CPU.
        earlier: What the rounds before returned.

    Returns:
        All images of this round and those before.
    """
    together: dict[tuple[str, frozenset[int]], list[ImageScores]] = {}
    for image in images:
        together.setdefault(_group(image), []).append(image)
    rounds = dict.fromkeys(together, 1)
    others = []
    for merged in sorted(earlier, key=lambda merged: merged.rounds):
        group = _group(merged.images)
        if merged.rounds <= rounds.get(group, 0):
            rounds[group] += merged.rounds
            together[group].append(merged.images)
        else:
            others.append(merged)
    return others + [MergedImages(rounds[group], _merge(parts)) for group, parts in together.items()]


def _group(image: ImageScores) -> tuple[str, frozenset[int]]:
    return image.kind, frozenset(region.pixel_value for region in image.regions)


def _merge(images: Sequence[ImageScores]) -> ImageScores:
    """Merge images of one group."""
    of_each_type: dict[int, list[Region]] = {}
    for region in (region for image in images for region in image.regions):
        of_each_type.setdefault(region.pixel_value, []).append(region)
    merged = []
    for pixel_value, regions in of_each_type.items():
        numbers = [region.number for region in regions]
        saturation_areas = [region.saturation for region in regions]
        scores = merge_regions([region.scores for region in regions], saturation_areas, numbers)
        merged.append(Region(pixel_value, float(sum(numbers)), scores, sum(numbers)))
    return ImageScores(images[0].kind, merge_scores([image.defect_free for image in images]), merged)

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What was found in an image, in pixels of its file: regions of the anomaly map, and SAM-LAD's objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import cv2
import numpy as np
import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anomalib_logic.metrics.map_geometry import MapGeometry, Size

Box = tuple[int, int, int, int]
Kind = Literal["normal", "missing", "surplus", "changed"]

COVERED = 0.5  # share of an object above the pixel threshold that makes it changed


class Region(NamedTuple):
    """Connected pixels of the anomaly map above the pixel threshold.

    Attributes:
        box: Left, top, right and bottom in pixels; right and bottom are the first pixels outside.
        share: Share of the image's pixels.
        score: Highest score.
        peak: Row and column of that score.
    """

    box: Box
    share: float
    score: float
    peak: tuple[int, int]


class FoundObject(NamedTuple):
    """An object of an image, or one that it lacks.

    Attributes:
        kind: ``"missing"``: most of the similar normal images have it, and this image lacks it. ``"surplus"``: none of
            them has it. ``"changed"``: it has a partner, and the anomaly map says that it looks different.
            ``"normal"``: nothing of these.
        box: As :attr:`Region.box`; of a missing object where the most similar normal image has it. ``None`` if the
            object is smaller than the grid of the masks can show.
        share: Share of the image's pixels.
        score: Highest score of the anomaly map in the object; ``None`` if it has no pixels.
        mask: The object's pixels, booleans of shape ``(H, W)``.
    """

    kind: Kind
    box: Box | None
    share: float
    score: float | None
    mask: torch.Tensor


class ReasonOfImage(Protocol):
    """:class:`anomalib_logic.models.sam_lad.explanation.Reason`."""

    score: str
    deviation: float
    finding: str


class ExplainedImage(Protocol):
    """The part that is used here of :class:`anomalib_logic.models.sam_lad.explanation.Explanation`."""

    reasons: tuple[ReasonOfImage, ...]
    masks: torch.Tensor
    surplus: torch.Tensor
    reference_masks: torch.Tensor
    missing: torch.Tensor


def find_regions(anomaly_map: torch.Tensor, above: torch.Tensor) -> list[Region]:
    """Find the regions of a map; pixels that touch at a corner are connected.

    Args:
        anomaly_map: Shape ``(H, W)``.
        above: Which pixels are above the threshold, booleans of shape ``(H, W)``.

    Returns:
        Regions, those of the highest score first.
    """
    scores = anomaly_map.numpy()
    number, labels, statistics, _ = cv2.connectedComponentsWithStats(above.numpy().astype(np.uint8))
    regions = []
    for label in range(1, number):
        left, top, width, height, area = (int(value) for value in statistics[label])
        window = np.s_[top : top + height, left : left + width]
        inside = np.where(labels[window] == label, scores[window], -np.inf)
        row, column = np.unravel_index(inside.argmax(), inside.shape)
        peak = (top + int(row), left + int(column))
        box = (left, top, left + width, top + height)
        regions.append(Region(box, area / scores.size, float(scores[peak]), peak))
    return sorted(regions, key=lambda region: -region.score)


def find_objects(
    explained: ExplainedImage,
    geometry: MapGeometry,
    anomaly_map: torch.Tensor,
    above: torch.Tensor,
    regions: Sequence[Region],
) -> Iterator[FoundObject]:
    """Yield the objects that an image lacks, then those that it has.

    An object that is not surplus is changed if a region's highest score lies in it, or if half of it is above the pixel
    threshold.

    Args:
        explained: What SAM-LAD says of the image.
        geometry: Where the model's input lies on the image.
        anomaly_map: Map at the size of the image, shape ``(H, W)``.
        above: Which pixels are above the pixel threshold, booleans of shape ``(H, W)``.
        regions: The regions that they form.
    """
    size = (anomaly_map.shape[0], anomaly_map.shape[1])
    for mask in explained.reference_masks[explained.missing]:
        yield _object("missing", _restore(mask, geometry, size), anomaly_map)
    for mask, surplus in zip(explained.masks, explained.surplus, strict=True):
        restored = _restore(mask, geometry, size)
        changed = _changed(restored, above, regions)
        yield _object("surplus" if surplus else "changed" if changed else "normal", restored, anomaly_map)


def _restore(mask: torch.Tensor, geometry: MapGeometry, size: Size) -> torch.Tensor:
    # Where the image is smaller than the mask, no object may vanish between its pixels
    smaller = (min(mask.shape[0], size[0]), min(mask.shape[1], size[1]))
    restored = geometry.restore(F.adaptive_max_pool2d(mask[None].float(), smaller)[0], size)
    return (restored >= min(0.5, float(restored.max()))) & (restored > 0)


def _object(kind: Kind, mask: torch.Tensor, anomaly_map: torch.Tensor) -> FoundObject:
    rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
    if not len(rows):
        return FoundObject(kind, None, 0.0, None, mask)
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return FoundObject(kind, box, mask.float().mean().item(), anomaly_map[mask].max().item(), mask)


def _changed(mask: torch.Tensor, above: torch.Tensor, regions: Sequence[Region]) -> bool:
    pixels = int(mask.sum())
    covered = pixels > 0 and int((mask & above).sum()) >= COVERED * pixels
    return covered or any(bool(mask[region.peak]) for region in regions)

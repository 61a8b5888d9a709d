# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Saturated per-region overlap (sPRO) and the area under its curve.

Bergmann et al., "Beyond Dents and Scratches: Logical Constraints in Unsupervised Anomaly Detection and Localization",
IJCV 2022.

A curve over every distinct score needs no binarised map: sorting the scores once gives the false positive rate and the
sPRO at all thresholds. What must be kept of an image is how many of its scores exceed which value, and of that no more
than the curve can show: :func:`count_scores`.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import interpolate

RANK_RESOLUTION = 2048
MERGE_RESOLUTION = 4 * RANK_RESOLUTION  # finer, for errors of merges add up
_LARGEST_COUNT = 2**53  # float64 has every integer up to it


class ScoreCounts(NamedTuple):
    """How often each score occurs among some pixels.

    Attributes:
        values: Distinct scores in ascending order, float32, shape ``(S,)``.
        counts: Number of pixels with that score, int32, or float64 once parts were merged, shape ``(S,)``.
    """

    values: torch.Tensor
    counts: torch.Tensor


class SproCurve(NamedTuple):
    """Mean sPRO over false positive rate, one point for each distinct score and a last one below all of them.

    Attributes:
        thresholds: Distinct scores in descending order, then minus infinity, float32, shape ``(T,)``. Pixels are
            taken for anomalous where score > threshold.
        fpr: False positive rate, from 0 to 1, float64, shape ``(T,)``.
        spro: Mean saturated per-region overlap, from 0 to 1, float64, shape ``(T,)``.
    """

    thresholds: torch.Tensor
    fpr: torch.Tensor
    spro: torch.Tensor


def resize_anomaly_map(anomaly_map: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Resize a map bilinearly to its image's size, without antialiasing and without touching its range.

    Args:
        anomaly_map: Map, real dtype, shape ``(h, w)``.
        size: Height and width of the image in pixels.

    Returns:
        Map, float32, shape ``(H, W)``.

    Raises:
        ValueError: If the map is not 2-D or has a score that is not finite.
    """
    if anomaly_map.ndim != 2 or not anomaly_map.numel():
        msg = f"anomaly map must be 2-D (height, width) and not empty, got shape {tuple(anomaly_map.shape)}"
        raise ValueError(msg)
    anomaly_map = anomaly_map.detach().float()
    if not all(torch.isfinite(extreme) for extreme in anomaly_map.aminmax()):  # both are NaN if any score is
        msg = "anomaly map must have finite scores only, got NaN or infinity"
        raise ValueError(msg)
    if anomaly_map.shape == tuple(size):
        return anomaly_map
    return interpolate(anomaly_map[None, None], tuple(size), mode="bilinear", align_corners=False)[0, 0]


def saturation_area(area: int, threshold: float, relative: bool) -> float:
    """Overlap in pixels from which on a defect counts as found.

    Args:
        area: Area of the defect in pixels at the image's original resolution.
        threshold: Share of the area if ``relative``, else pixels.
        relative: Whether the threshold is a share.

    Returns:
        ``int(threshold * area)``, in double precision as in MVTec's script but at least one pixel, if relative; else
        the smaller one of threshold and area.

    Raises:
        ValueError: If the area or the threshold is not positive, or a relative threshold exceeds 1.
    """
    if area < 1 or not 0 < threshold <= (1 if relative else float("inf")):
        wanted = "a share in (0, 1]" if relative else "a positive number of pixels"
        msg = f"area must be positive and threshold {wanted}, got area {area} and threshold {threshold}"
        raise ValueError(msg)
    return float(max(int(threshold * area), 1)) if relative else float(min(threshold, area))


def count_scores(scores: torch.Tensor) -> ScoreCounts:
    """Count scores, keeping of many values only those that a curve can tell apart.

    The 2048 highest scores are kept, and below them one score in each step by a 2048th of the rank (some 16,000 of two
    million); a score in between is raised to the next higher one that is kept. So the number of scores above a
    threshold is never underestimated, overestimated by less than 0.05%, and exact up to 2048 scores and at each value
    that is kept. Higher false positive rates lower a curve and higher overlaps raise it, so that the area under it is
    within 0.0005 at every limit.

    Args:
        scores: Finite scores, float32, any shape.

    Returns:
        Values and their counts, which add up to the number of scores.
    """
    ascending = _sort(scores.detach().float().flatten())
    ranks = _kept_ranks(len(ascending)).to(scores.device)
    values = torch.unique_consecutive(ascending[len(ascending) - 1 - ranks])
    not_above = torch.searchsorted(ascending, values, right=True)
    return ScoreCounts(values, not_above.diff(prepend=not_above.new_zeros(1)).int())


def merge_scores(parts: Sequence[ScoreCounts]) -> ScoreCounts:
    """Merge counted scores of several parts into one of bounded size, in the way of :func:`count_scores`.

    Above 8192 scores one in each step by an 8192th of the rank is kept (some 90,000 of 400 million). So each merge adds
    less than an 8192th to the number of scores above a threshold, and takes nothing from it.

    Args:
        parts: Counted scores, merged before or not, on the CPU; at least one.

    Returns:
        Values and their counts, float64, which add up to the number of all scores.
    """
    values, at_least = _descending(parts, [part.counts.double() for part in parts])
    if not len(values):
        return ScoreCounts(values, at_least)
    ranks = _kept_ranks(int(at_least[-1]), MERGE_RESOLUTION).flip(0).double()
    return _raise_to(values, at_least, torch.searchsorted(at_least, ranks, right=True))


def merge_regions(
    regions: Sequence[ScoreCounts], saturation_areas: Sequence[float], numbers: Sequence[int]
) -> ScoreCounts:
    """Merge regions into one of bounded size whose overlap is the sum of theirs.

    Of the sum, which falls from the number of regions to 0 as the threshold rises, 8192 equal steps are kept. So each
    merge adds less than an 8192th to the mean sPRO, and takes nothing from it.

    Args:
        regions: Scores in each region, on the CPU; at least one.
        saturation_areas: Saturation area of each region.
        numbers: How many regions each of them stands for.

    Returns:
        Values and gains of the summed overlap, float64; as a region, their saturation area is the number of regions.
    """
    numbered = zip(regions, saturation_areas, numbers, strict=True)
    gains = [number * _overlap_gains(region, saturation) for region, saturation, number in numbered]
    values, overlap = _descending(regions, gains)
    steps = torch.arange(MERGE_RESOLUTION, dtype=torch.float64) * (float(overlap[-1]) / MERGE_RESOLUTION)
    return _raise_to(values, overlap, torch.searchsorted(overlap, steps, right=True))


def _descending(parts: Sequence[ScoreCounts], weights: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Distinct values of all parts in descending order, and the weight of what is at least as high."""
    values = torch.cat([part.values for part in parts])
    order = _descending_order(values)
    values = values[order]
    last = torch.ones(len(values), dtype=torch.bool)
    torch.ne(values[1:], values[:-1], out=last[:-1])
    return values[last], torch.cat(list(weights))[order].cumsum(0)[last]


def _raise_to(values: torch.Tensor, at_least: torch.Tensor, kept: torch.Tensor) -> ScoreCounts:
    """Keep some of descending values, the highest among them; the weight of others goes to the next higher one kept."""
    kept = torch.unique_consecutive(kept)
    ends = torch.cat([kept[1:] - 1, kept.new_tensor([len(values) - 1])])
    weights = at_least[ends].diff(prepend=at_least.new_zeros(1))
    return ScoreCounts(values[kept].flip(0), weights.flip(0))


def _kept_ranks(total: int, resolution: int = RANK_RESOLUTION) -> torch.Tensor:
    """Ranks from the top, in descending order, of the scores that are kept."""
    ranks = _all_kept_ranks(resolution)
    ranks = ranks[: np.searchsorted(ranks, total - 1)]
    return torch.from_numpy(np.append(ranks, total - 1)[::-1].copy()) if total else torch.empty(0, dtype=torch.int64)


@lru_cache(maxsize=2)
def _all_kept_ranks(resolution: int) -> np.ndarray:
    """Every rank up to the resolution, then ranks that grow by a fixed ratio, as far as counts go."""
    ratio = 1 + 1 / resolution
    steps = np.log(_LARGEST_COUNT / resolution) / np.log(ratio)
    far = np.floor(resolution * ratio ** np.arange(int(steps))).astype(np.int64)
    return np.unique(np.concatenate([np.arange(resolution), far - 1]))


def _sort(scores: torch.Tensor) -> torch.Tensor:
    """Sort in ascending order; on CPUs NumPy's vectorised sort takes a twentieth of PyTorch's time."""
    return torch.from_numpy(np.sort(scores.numpy())) if scores.device.type == "cpu" else scores.sort().values


def _descending_order(scores: torch.Tensor) -> torch.Tensor:
    if scores.device.type == "cpu":
        return torch.from_numpy(np.argsort(-scores.numpy()))
    return scores.argsort(descending=True)


def spro_curve(
    defect_free: Sequence[ScoreCounts],
    regions: Sequence[ScoreCounts],
    saturation_areas: Sequence[float],
    numbers: Sequence[int] | None = None,
) -> SproCurve:
    """Mean sPRO over false positive rate at every distinct score.

    Args:
        defect_free: Scores of the pixels that are free of defects in every channel, in any number of parts.
        regions: Scores in each defect channel of all images; each channel counts once in the mean.
        saturation_areas: Saturation area of each channel in pixels, see :func:`saturation_area`.
        numbers: How many channels each of the regions stands for, see :func:`merge_regions`. ``None``: one.

    Returns:
        The curve.

    Raises:
        ValueError: If there is no defect-free pixel or no region.
    """
    total = sum(int(part.counts.sum()) for part in defect_free)
    if not total or not regions:
        msg = f"a curve needs defect-free pixels and regions, got {total} pixels and {len(regions)} regions"
        raise ValueError(msg)
    scores = torch.cat([part.values for part in (*defect_free, *regions)])
    gains = [_overlap_gains(*region) for region in zip(regions, saturation_areas, strict=True)]
    numbers = [1] * len(gains) if numbers is None else numbers
    gains = [gain * number for gain, number in zip(gains, numbers, strict=True)]
    order = _descending_order(scores)
    scores = scores[order]
    last = torch.ones(len(scores), dtype=torch.bool, device=scores.device)
    torch.ne(scores[1:], scores[:-1], out=last[:-1])
    thresholds = torch.cat([scores[last], scores.new_full((1,), -torch.inf)])

    def accumulate(steps: Sequence[torch.Tensor], start: int) -> torch.Tensor:
        """Sum up steps, which belong to the scores from ``start`` on, over descending distinct scores."""
        rate = torch.zeros(len(order), dtype=torch.float64, device=order.device)
        for step in steps:
            rate[start : start + len(step)] = step
            start += len(step)
        rate = rate[order].cumsum_(0)[last]
        return torch.cat([rate.new_zeros(1), rate])

    fpr = accumulate([part.counts for part in defect_free], 0).div_(total)
    spro = accumulate(gains, len(order) - sum(map(len, gains))).div_(sum(numbers)).clamp_(max=1)
    return SproCurve(thresholds, fpr, spro)


def _overlap_gains(region: ScoreCounts, saturation: float) -> torch.Tensor:
    """How much the sPRO of a region gains at each of its values when the threshold falls below it."""
    overlap = (region.counts.flip(0).cumsum(0).double() / saturation).clamp(max=1)
    return overlap.diff(prepend=overlap.new_zeros(1)).flip(0)


def au_spro(fpr: torch.Tensor, spro: torch.Tensor, limit: float = 0.05) -> torch.Tensor:
    """Area under the curve from a false positive rate of 0 to a limit, divided by the limit.

    Args:
        fpr: False positive rates in ascending order from 0, shape ``(T,)``.
        spro: Mean sPRO at these rates, shape ``(T,)``.
        limit: Highest false positive rate, in (0, 1]. The curve is linear between its points, so also at the limit.

    Returns:
        Float64 scalar in [0, 1].

    Raises:
        ValueError: If the limit is not in (0, 1] or the curve ends below it.
    """
    check_limit(limit)
    if fpr[-1] < limit - 1e-9:
        msg = f"the curve must reach the limit {limit}, but its last false positive rate is {float(fpr[-1])}"
        raise ValueError(msg)
    fpr, spro = fpr.double(), spro.double()
    inside = int(torch.searchsorted(fpr, fpr.new_tensor(limit), right=True))
    x, y = fpr[:inside], spro[:inside]
    if inside < len(fpr):
        share = (limit - x[-1]) / (fpr[inside] - x[-1])
        x = torch.cat([x, x.new_tensor([limit])])
        y = torch.cat([y, torch.lerp(y[-1], spro[inside], share)[None]])
    return (torch.trapezoid(y, x) / limit).clamp(0, 1)


def check_limit(limit: float) -> float:
    """Return an integration limit if it is in (0, 1], else raise ``ValueError``."""
    if not 0 < limit <= 1:
        msg = f"limit must be a false positive rate in (0, 1], got {limit}"
        raise ValueError(msg)
    return limit

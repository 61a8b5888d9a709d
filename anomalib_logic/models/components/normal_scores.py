# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Scores of normal images and of their pixels, and the thresholds that few of either exceed."""

import math
from typing import Any, NamedTuple

import torch
from scipy.stats import t as student
from torchmetrics import Metric

from anomalib_logic.metrics.functional import count_scores
from anomalib_logic.metrics.loco_metric import on_reliable_device

SAME = 1e-4  # of the scores' scale: batches, devices and runtimes differ by less
MARGIN = 1e-3  # of the scores' scale: a threshold from normal scores is at most that far above one of them


class Scores(NamedTuple):
    """Scores of images and of pixels.

    Attributes:
        scores: Image scores, shape ``(n,)``.
        values: Scores of pixels, shape ``(S,)``.
        counts: Number of pixels with each of them, shape ``(S,)``.
    """

    scores: torch.Tensor
    values: torch.Tensor
    counts: torch.Tensor


class NormalScores(Metric):
    """Scores of images, and of their pixels as counts; torchmetrics combines the states over processes.

    Args:
        **kwargs: Arguments of ``torchmetrics.Metric``.
    """

    full_state_update = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in Scores._fields:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, pred_score: torch.Tensor | None, anomaly_map: torch.Tensor | None) -> None:
        """Add normal images.

        Args:
            pred_score: Raw image scores, shape ``(N,)`` or ``(N, 1)``.
            anomaly_map: Raw maps, shape ``(N, H, W)`` or ``(N, 1, H, W)``.
        """
        if pred_score is not None:
            self.scores.append(on_reliable_device(pred_score).float().flatten())
        for one_map in () if anomaly_map is None else on_reliable_device(anomaly_map):
            counted = count_scores(one_map)
            self.values.append(counted.values)
            self.counts.append(counted.counts)

    def compute(self) -> "Scores":
        """Return what was collected, on the CPU; empty where that is nothing."""
        return Scores(*(self._joined(name) for name in Scores._fields))

    def _joined(self, name: str) -> torch.Tensor:
        state = getattr(self, name)
        parts = [state] if isinstance(state, torch.Tensor) else state
        return torch.cat([part.cpu() for part in parts]) if parts else torch.empty(0)


def image_threshold(scores: torch.Tensor, rate: float, fitted: torch.Tensor | None = None) -> torch.Tensor:
    """Score that a new normal image exceeds with a given probability.

    With enough scores it lies just above the order statistic that a share ``rate`` of them exceeds, see
    :func:`above_score`: as many atypical images do not decide. A new image exceeds it with a probability of at most
    ``rate + 1 / (n + 1)``, whatever the distribution is. With fewer than ``1 / rate`` none may exceed it; with fewer
    than ``1 / rate - 1`` the highest score is too low for that (split conformal prediction): then the upper limit of
    the prediction interval for the next one of normally distributed values, and not less than the highest score.

    Args:
        scores: Scores of normal images that the model was not fitted on, shape ``(n,)``.
        rate: The probability, in (0, 1).
        fitted: Scores of normal images that it was fitted on, for their deviation, shape ``(m,)``; and for their mean
            where ``n`` is 0. Not both may be empty.
    """
    scores = scores.flatten().double().sort().values
    fitted = scores[:0] if fitted is None else fitted.flatten().double()
    exceeding = math.floor(len(scores) * rate + 1e-9)
    if exceeding or (len(scores) + 1) * rate >= 1 - 1e-9:
        return above_score(scores, len(scores) - 1 - exceeding)
    centre = scores if len(scores) else fitted
    freedom = max(len(scores) - 1, 0) + max(len(fitted) - 1, 0)
    deviations = [part.std() for part in (scores, fitted) if len(part) > 1]
    everything = torch.cat([scores, fitted]).sort().values
    highest = above_score(everything, len(everything) - 1)
    if not deviations:
        return highest
    reach = student.ppf(1 - rate, freedom) * math.sqrt(1 + 1 / len(centre))
    return torch.maximum(highest, centre.mean() + reach * torch.stack(deviations).max())


def pixel_threshold(values: torch.Tensor, counts: torch.Tensor, rate: float) -> torch.Tensor:
    """Score that a given share of the pixels of normal images exceeds.

    Args:
        values: Scores, shape ``(S,)``, in any order.
        counts: Number of pixels with each score, shape ``(S,)``.
        rate: The share, in (0, 1).
    """
    order = values.argsort()
    below = counts[order].double().cumsum(0) / counts.sum()
    return above_score(values[order].double(), int(torch.searchsorted(below, 1 - rate).clamp_max(len(order) - 1)))


def above_score(scores: torch.Tensor, place: int) -> torch.Tensor:
    """Return a threshold just above a score: in the middle to the next higher one, or nearer where that is far away.

    A threshold that is equal to a score leaves that image's label to rounding. Scores that differ by no more than
    rounding count as one.

    Args:
        scores: Scores in ascending order, double precision, shape ``(n,)``.
        place: Index of the score.
    """
    scale = scores_scale(scores[: place + 1])
    after = int(torch.searchsorted(scores, scores[place] + SAME * scale, right=True))
    lower, margin = scores[after - 1], MARGIN * scale
    return lower + (torch.minimum((scores[after] - lower) / 2, margin) if after < len(scores) else margin)


def scores_scale(scores: torch.Tensor) -> torch.Tensor:
    """Return what differences of scores are measured by: their range or their largest size, or 1 if all are 0."""
    low, high = scores.aminmax()
    scale = torch.stack([low.abs(), high.abs(), high - low]).max()
    return torch.where(scale > 0, scale, torch.ones_like(scale))

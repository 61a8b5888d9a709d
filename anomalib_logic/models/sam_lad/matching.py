# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Object matching: optimal transport with a dustbin, and its calibration (paper section 3.5.2)."""

from typing import NamedTuple

import torch
from torch import nn

from .median import lower_median

DUSTBIN, TEMPERATURE = 0.5, 0.05  # until they are calibrated: a pair whose descriptors have a cosine above .5 can match
NEVER = -1e4  # logarithm of a probability of nothing; finite, so that no difference of two is undefined


class Matches(NamedTuple):
    """Which object of the query belongs to which object of each reference.

    Attributes:
        partner: Index of each query object's most probable reference object, shape ``(N, R, K)``.
        matched: Whether the two are each other's most probable and probable enough, shape ``(N, R, K)``.
        taken: Whether each reference object has a matched query object, shape ``(N, R, L)``.
    """

    partner: torch.Tensor
    matched: torch.Tensor
    taken: torch.Tensor


def sinkhorn(
    scores: torch.Tensor,
    rows: torch.Tensor,
    columns: torch.Tensor,
    dustbin: torch.Tensor | float,
    iterations: int = 50,
) -> torch.Tensor:
    """Partial assignment by optimal transport in log space, as in SuperGlue (https://arxiv.org/abs/1911.11763).

    A row and a column of score ``dustbin`` take what stays unassigned. Marginals are 1 for objects, 0 for empty slots,
    and the number of objects of the other side for the dustbins.

    Args:
        scores: Scores divided by the temperature, shape ``(..., K, L)``.
        rows: Which rows are objects, booleans of shape ``(..., K)``.
        columns: Which columns are objects, booleans of shape ``(..., L)``.
        dustbin: Score of leaving an object unassigned, divided by the temperature.
        iterations: Normalisations of rows and columns.

    Returns:
        Assignment with the dustbins last, shape ``(..., K + 1, L + 1)``; empty slots have 0.
    """
    bins = torch.zeros_like(scores[..., :1]) + dustbin
    scores = torch.cat([scores, bins], dim=-1)
    scores = torch.cat([scores, torch.zeros_like(scores[..., :1, :]) + dustbin], dim=-2)
    row_marginal = _log_marginal(rows, columns)
    column_marginal = _log_marginal(columns, rows)
    potential = torch.zeros_like(column_marginal)
    for _ in range(iterations):
        row_potential = row_marginal - torch.logsumexp(scores + potential.unsqueeze(-2), dim=-1)
        potential = column_marginal - torch.logsumexp(scores + row_potential.unsqueeze(-1), dim=-2)
    return torch.exp(scores + row_potential.unsqueeze(-1) + potential.unsqueeze(-2))


def _log_marginal(own: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Logarithm of the marginals of one side, the dustbin's last."""
    objects = (1 - own.float()) * NEVER
    dustbin = torch.log(other.float().sum(dim=-1, keepdim=True).clamp_min(1e-6))
    return torch.cat([objects, dustbin], dim=-1)


class ObjectMatching(nn.Module):
    """Match the objects of a query with those of its references.

    The score of a pair is the inner product of normalised descriptors, minus how much less likely the difference of
    their places and sizes is for one object in two normal images than for any two objects (ours; ``geometry``).
    Objects that always lie in the same place are so told apart by their place, objects that lie anywhere are not.

    Args:
        geometry: Weight of place and size; 0 is the paper's reading.
        threshold: Least probability of a match.
        iterations: Of the Sinkhorn normalisation.

    Attributes:
        dustbin: Score of staying unmatched, z. Calibrated on normal images. SuperGlue's 1.0 is for unnormalised scores:
            no cosine is above it.
        temperature: What scores are divided by.
        precision: 1 / s² - 1 / t², at least 0, shape ``(4,)``: s is the standard deviation of the centre (y, x) and
            size (logarithm of height and width) of one object between two normal images, t that of any two objects,
            both estimated by the median of differences.
    """

    def __init__(self, geometry: float = 0.3, threshold: float = 0.2, iterations: int = 50) -> None:
        super().__init__()
        self.geometry = geometry
        self.threshold = threshold
        self.iterations = iterations
        self.register_buffer("dustbin", torch.tensor(DUSTBIN))
        self.register_buffer("temperature", torch.tensor(TEMPERATURE))
        self.register_buffer("precision", torch.zeros(4))

    def scores(
        self,
        query: torch.Tensor,
        query_boxes: torch.Tensor,
        reference: torch.Tensor,
        reference_boxes: torch.Tensor,
    ) -> torch.Tensor:
        """Score of every pair of objects.

        Args:
            query: Normalised descriptors, shape ``(N, K, D)``.
            query_boxes: Boxes ``(top, left, bottom, right)`` in [0, 1], shape ``(N, K, 4)``.
            reference: Descriptors of R references each, shape ``(N, R, L, D)``.
            reference_boxes: Their boxes, shape ``(N, R, L, 4)``.

        Returns:
            Scores, shape ``(N, R, K, L)``.
        """
        similarity = query.unsqueeze(1) @ reference.transpose(-1, -2)
        own = describe_boxes(query_boxes)[:, None, :, None]
        other = describe_boxes(reference_boxes).unsqueeze(2)
        # Beyond three standard deviations a larger difference says no more.
        distance = ((own - other).square() * self.precision).clamp_max(9.0).mean(dim=-1)
        return similarity - self.geometry * distance

    def forward(self, scores: torch.Tensor, query_valid: torch.Tensor, reference_valid: torch.Tensor) -> Matches:
        """Match objects.

        Args:
            scores: Result of :meth:`scores`, shape ``(N, R, K, L)``.
            query_valid: Which slots of the queries hold an object, shape ``(N, K)``.
            reference_valid: Which slots of the references do, shape ``(N, R, L)``.
        """
        rows = query_valid.unsqueeze(1).expand(-1, scores.shape[1], -1)
        plan = sinkhorn(
            scores / self.temperature, rows, reference_valid, self.dustbin / self.temperature, self.iterations
        )[..., :-1, :-1]
        pairs = rows.unsqueeze(-1) & reference_valid.unsqueeze(-2)
        best_of_row = plan.amax(dim=-1, keepdim=True)
        mutual = (plan >= best_of_row) & (plan >= plan.amax(dim=-2, keepdim=True)) & pairs & (plan > self.threshold)
        # The closest object by score also where all probability is in the dustbin.
        partner = torch.where(pairs, scores, torch.full_like(scores, NEVER)).argmax(dim=-1)
        partner = torch.where(mutual.any(dim=-1), mutual.int().argmax(dim=-1), partner)
        return Matches(
            partner=partner,
            matched=mutual.any(dim=-1),
            taken=mutual.any(dim=-2),
        )

    def missing(
        self, matches: Matches, descriptors: torch.Tensor, boxes: torch.Tensor, valid: torch.Tensor, share: float = 0.6
    ) -> torch.Tensor:
        """Find reference objects that no query object takes up, in most of the references (ours).

        A reference object counts as missing if it is not taken and if at least a share of the references have an
        untaken object that would match with it.

        Args:
            matches: Result of :meth:`forward`.
            descriptors: Of the references' objects, shape ``(N, R, L, D)``.
            boxes: Shape ``(N, R, L, 4)``.
            valid: Shape ``(N, R, L)``.
            share: Share of the references.

        Returns:
            Booleans, shape ``(N, R, L)``.
        """
        untaken = valid & ~matches.taken
        flat, places = descriptors.flatten(1, 2), boxes.flatten(1, 2)
        scores = self.scores(flat, places, flat.unsqueeze(1), places.unsqueeze(1)).squeeze(1)
        same_kind = (scores >= self.dustbin).unflatten(2, valid.shape[1:]).unflatten(1, valid.shape[1:])
        support = (same_kind & untaken[:, None, None]).any(dim=-1).float().mean(dim=-1)
        return untaken & (support >= share)

    @torch.no_grad()
    def reset(self) -> None:
        """Forget an earlier calibration."""
        self.dustbin.fill_(DUSTBIN)
        self.temperature.fill_(TEMPERATURE)
        self.precision.zero_()

    @torch.no_grad()
    def calibrate(
        self,
        descriptors: torch.Tensor,
        boxes: torch.Tensor,
        valid: torch.Tensor,
        neighbors: torch.Tensor,
        quantile: float = 0.02,
    ) -> None:
        """Set precision, dustbin and temperature from normal images, whose objects should all match (ours).

        The differences are medians over pairs of mutually best objects of two normal images that were not chosen for
        looking alike: best by place if that brings objects closer than a quarter of the way to the next object of
        their own image, else best by looks. The dustbin's score is a low quantile of the scores of mutually best pairs
        of near normal images. With the temperature, a sixth of the median pair's lead over it, that pair has a
        probability of about 0.9.

        Args:
            descriptors: Of the normal images, shape ``(Z, K, D)``.
            boxes: Shape ``(Z, K, 4)``.
            valid: Shape ``(Z, K)``.
            neighbors: Indices of each one's nearest other normal images, shape ``(Z, R)``.
            quantile: Share of the pairs that may fall below the dustbin's score.
        """
        self.reset()
        if neighbors.shape[1] == 0 or not valid.any():
            return
        self._measure_precision(descriptors, boxes, valid)
        pairs = valid[:, None, :, None] & valid[neighbors].unsqueeze(2)
        if not pairs.any():
            return
        scores = self.scores(descriptors, boxes, descriptors[neighbors], boxes[neighbors])
        best = scores[_mutual_best(scores, pairs)].float()
        self.dustbin.copy_(best.cpu().quantile(quantile))  # in double precision, which not every device has
        self.temperature.copy_(((best.median() - self.dustbin) / 6).clamp_min(0.005))

    def _measure_precision(self, descriptors: torch.Tensor, boxes: torch.Tensor, valid: torch.Tensor) -> None:
        other = torch.arange(len(valid), device=valid.device).roll(len(valid) // 2)
        pairs = valid.unsqueeze(2) & valid[other].unsqueeze(1)
        if not pairs.any():
            return
        geometry = describe_boxes(boxes)
        difference = (geometry.unsqueeze(2) - geometry[other].unsqueeze(1)).abs()
        distance = difference[..., :2].square().sum(dim=-1).sqrt()
        same = _mutual_best(-distance, pairs)
        if distance[same].median() > 0.25 * _nearest_in_image(geometry, valid).median():
            same = _mutual_best(descriptors @ descriptors[other].transpose(1, 2), pairs)
        same_object = lower_median(difference[same]).clamp_min(0.005)
        any_two = lower_median(difference[pairs]).clamp_min(0.005)
        # A median is 0.67 standard deviations, which makes the factor 2.2 for their squares.
        self.precision.copy_((same_object**-2 - any_two**-2).clamp_min(0) / 2.2)


def _mutual_best(scores: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    scores = torch.where(pairs, scores, torch.full_like(scores, NEVER))
    return (scores >= scores.amax(dim=-1, keepdim=True)) & (scores >= scores.amax(dim=-2, keepdim=True)) & pairs


def _nearest_in_image(geometry: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Distance from each object of an image to the next one, 0 where there is none, shape ``(objects,)``."""
    distance = torch.cdist(geometry[..., :2], geometry[..., :2])
    others = valid.unsqueeze(1) & ~torch.eye(valid.shape[1], dtype=torch.bool, device=valid.device)
    nearest = torch.where(others, distance, distance.new_full((), torch.inf)).amin(dim=-1)
    return nearest.nan_to_num(posinf=0.0)[valid]


def describe_boxes(boxes: torch.Tensor) -> torch.Tensor:
    """Centre (y, x) and logarithm of height and width of boxes ``(top, left, bottom, right)``, shape ``(..., 4)``."""
    top, left, bottom, right = boxes.unbind(dim=-1)
    sizes = torch.stack([bottom - top, right - left], dim=-1).clamp_min(1e-3)
    return torch.cat([torch.stack([top + bottom, left + right], dim=-1) / 2, sizes.log()], dim=-1)

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""From distances to an anomaly map and an image score (equations 13 to 16, and what we add)."""

from typing import Literal, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from anomalib_logic.models.components.image_score import ImageScore, summarize
from anomalib_logic.models.components.upsampling import resize

from .bank import Template
from .frames import paste
from .matching import Matches
from .median import lower_median

Alignment = Literal["combined", "nearest", "box", "none"]
SCORES = ("objects", "scene", "anywhere", "place", "arrangement", "count", "composition")
MAPS = SCORES[:5]
FLOORS = (3.0, 1.0)  # of the average usual distance, added to that of each place (place, arrangement)
LEAST_DEVIATION = 0.05  # of image scores of maps, in units of what is usual
LEAST_COUNT_DEVIATION = 0.3  # of objects
WINDOW = 3  # height and width of the windows that change places, at most
DRAWS = 16  # pairs of windows that are tried
NOTICED = (1.0, 3.0)  # deviations by which an exchange raises a score: no trust, full trust
TOP_SHARE = 0.005  # share of the map's positions that the image score "top" averages
INSIDE = 0.3  # share of a position that an object must cover to take it over


class Comparison(NamedTuple):
    """A query image beside its references.

    Attributes:
        references: Indices of the references in the bank, shape ``(N, R)``.
        matches: Which object belongs to which.
        missing: Reference objects that the query lacks, shape ``(N, R, L)``.
        surplus: Objects of the query that no reference has, shape ``(N, K)``.
        objects: Distances in the objects' frames, shape ``(N, K, g, g)``.
        scene: Distances of the whole image to the references, shape ``(N, s, s)``.
        anywhere: Distances of coarse features to the nearest of any normal, shape ``(N, h, w)``.
        place: Distances of small windows of coarse features to the same place of the normals that are most alike,
            shape ``(N, h, w)``.
        arrangement: Distances of larger windows to the same place of any normal, shape ``(N, h, w)``.
        composition: Distance of the image's composition, shape ``(N,)``.
        amounts: How unusual the amount is of what is at each position, shape ``(N, s, s)``.
    """

    references: torch.Tensor
    matches: Matches
    missing: torch.Tensor
    surplus: torch.Tensor
    objects: torch.Tensor
    scene: torch.Tensor
    anywhere: torch.Tensor
    place: torch.Tensor
    arrangement: torch.Tensor
    composition: torch.Tensor
    amounts: torch.Tensor


class Scoring(nn.Module):
    """Anomaly map and image score, calibrated on comparisons of normals with each other.

    Args:
        align, image_score, lite: See :class:`.lightning_model.SamLad`.
        grid: Height and width of the coarse features.
    """

    def __init__(self, align: Alignment, image_score: ImageScore, lite: bool, grid: tuple[int, int]) -> None:
        super().__init__()
        self.align = align
        self.image_score = image_score
        self.lite = lite
        # What is usual among the normals: distances of objects, scene and anywhere, and at each place.
        self.register_buffer("usual", torch.ones(3))
        self.register_buffer("usual_place", torch.ones(2, *grid))
        # Mean and deviation of the image scores.
        self.register_buffer("mean", torch.zeros(len(SCORES)))
        self.register_buffer("std", torch.ones(len(SCORES)))
        # How far each score can be trusted, in [0, 1].
        self.register_buffer("trust", torch.ones(len(SCORES)))
        self.register_buffer("novelty", torch.tensor(1.0))
        self.register_buffer("usual_amount", torch.tensor(1.0))

    @torch.no_grad()
    def reset(self) -> None:
        """Forget an earlier calibration."""
        for name, buffer in self.named_buffers():
            buffer.fill_(0.0 if name == "mean" else 1.0)

    def distance_maps(self, query: Template, compared: Comparison) -> torch.Tensor:
        """Distances in units of what is usual, one map for each of ``MAPS``, shape ``(N, 5, s, s)``."""
        inside = query.masks > INSIDE
        scene = compared.scene / self.usual[1]
        size = tuple(scene.shape[1:])
        places = torch.stack([compared.place, compared.arrangement], dim=1) / self.usual_place
        coarse = resize(torch.cat([compared.anywhere.unsqueeze(1) / self.usual[2], places], dim=1), size)
        if self.lite:
            inside = inside & compared.surplus[..., None, None]
            scene, coarse = torch.zeros_like(scene), torch.zeros_like(coarse)
        if self.align == "none":
            objects = compared.scene / self.usual[1]
        else:
            objects = (paste(compared.objects / self.usual[0], query.boxes, size) * inside).amax(dim=1)
        covered = inside.any(dim=1)
        if self.align != "combined":  # a position is measured once, with its object or with the rest (equation 15)
            scene = torch.where(covered, torch.zeros_like(scene), scene)
        return torch.cat([torch.stack([objects * covered, scene], dim=1), coarse], dim=1)

    def novelty_map(self, query: Template, compared: Comparison, reference_masks: torch.Tensor) -> torch.Tensor:
        """Where objects are too many, and where missing ones should be, in [0, 1], shape ``(N, s, s)``.

        Args:
            query: The images.
            compared: Their comparison.
            reference_masks: Masks of the references' objects, shape ``(N, R, L, s, s)``.
        """
        surplus = (query.masks * compared.surplus[..., None, None]).amax(dim=1)
        missing = (reference_masks * compared.missing[..., None, None]).amax(dim=2).mean(dim=1)
        return torch.maximum(surplus, missing)

    def anomaly_map(
        self, distances: torch.Tensor, query: Template, compared: Comparison, reference_masks: torch.Tensor
    ) -> torch.Tensor:
        """Weighted sum of the distances, and of what is new, missing, too much or too little, shape ``(N, s, s)``.

        Args:
            distances: Result of :meth:`distance_maps`.
            query, compared, reference_masks: See :meth:`novelty_map`.
        """
        amounts = (_smooth(compared.amounts) / self.usual_amount - 1).clamp_min(0)
        novel = self.novelty_map(query, compared, reference_masks)
        return self._sum(distances) + self.novelty * (novel + amounts)

    def _sum(self, distances: torch.Tensor) -> torch.Tensor:
        """Sum of the distances with the weights that they have in the image score, shape ``(N, s, s)``."""
        if self.align != "combined":
            return distances.sum(dim=1)
        weights = (self.trust / self.std)[: len(MAPS)]
        return (distances * weights[:, None, None]).sum(dim=1)

    def image_scores(self, distances: torch.Tensor, compared: Comparison) -> torch.Tensor:
        """One score for each of ``SCORES``, shape ``(N, 7)``.

        Where a position is measured only once, the first score is that of the sum of the maps.

        Args:
            distances: Result of :meth:`distance_maps`.
            compared: The comparison that they come from.
        """
        if self.align != "combined":
            distances = torch.cat([distances.sum(dim=1, keepdim=True), torch.zeros_like(distances[:, 1:])], dim=1)
        maps = [summarize(distances[:, i], self.image_score, TOP_SHARE) for i in range(len(MAPS))]
        return torch.stack([*maps, unmatched_objects(compared), compared.composition], dim=1)

    def deviations(self, scores: torch.Tensor) -> torch.Tensor:
        """Image scores in deviations from their means over held-out normals, times their trust, shape ``(N, 7)``."""
        return self.trust * (scores - self.mean) / self.std

    def fuse(self, scores: torch.Tensor) -> torch.Tensor:
        """Soft maximum of the deviations, shape ``(N,)``: one broken rule is enough."""
        return self.deviations(scores).logsumexp(dim=1)

    def fuse_held_out(self, scores: torch.Tensor, number: int) -> torch.Tensor:
        """Fuse scores of normals that the scores were calibrated on, as if they were new.

        Mean and deviation are those of the other normals. With its own share in them, none of a few normals could
        deviate far: not by more than ``(n - 1) / sqrt(n)``.

        Args:
            scores: Result of :meth:`image_scores`, shape ``(N, 7)``.
            number: Normals that the scores were calibrated on, n.
        """
        if number < 3:
            return self.fuse(scores)
        mean = (number * self.mean - scores) / (number - 1)
        squares = (number - 1) * self.std.square() - number / (number - 1) * (scores - self.mean).square()
        std = _with_floor((squares / (number - 2)).clamp_min(0).sqrt())
        return (self.trust * (scores - mean) / std).logsumexp(dim=1)

    @torch.no_grad()
    def calibrate_distances(self, compared: list[Comparison], valid: torch.Tensor, inside: torch.Tensor) -> None:
        """Learn which distances are usual.

        Args:
            compared: Comparisons of normals with the other normals.
            valid: Which of their slots hold objects, shape ``(Z, K)``.
            inside: Which positions of the frames belong to the objects, shape ``(Z, K, g, g)``.
        """
        objects = torch.cat([c.objects for c in compared])[valid][inside[valid]]
        scene = torch.cat([c.scene for c in compared]).mean()
        anywhere = torch.cat([c.anywhere for c in compared]).mean()
        self.usual.copy_(torch.stack([objects.mean() if len(objects) else scene, scene, anywhere]).clamp_min(1e-6))
        places = torch.cat([torch.stack([c.place, c.arrangement], dim=1) for c in compared]).mean(dim=0)
        places = _smooth(places)
        floors = places.new_tensor(FLOORS).view(2, 1, 1) * places.mean(dim=(1, 2), keepdim=True)
        self.usual_place.copy_((places + floors).clamp_min(1e-6))
        amounts = _smooth(torch.cat([c.amounts for c in compared]))
        self.usual_amount.copy_(amounts.flatten(1).amax(dim=1).mean().clamp_min(1e-6))

    @torch.no_grad()
    def calibrate_scores(self, scores: torch.Tensor) -> None:
        """Learn which image scores are usual.

        Args:
            scores: Image scores of normals that were compared with the other normals, shape ``(Z, 7)``.
        """
        self.mean.copy_(scores.mean(dim=0))
        self.std.copy_(_with_floor(scores.std(dim=0)))
        if len(scores) < 3:  # the Gaussians of the composition are those of the same normals
            self.std[6] = 1.0

    @torch.no_grad()
    def calibrate_trust(self, compared: list[Comparison], exchanged: list[Comparison]) -> None:
        """Learn how far the scores can be trusted.

        Where normals themselves have objects without partner, ``objects`` and ``count``, which rest on matching, are
        worth less. ``place`` and ``arrangement`` are worth what they notice of two windows of a normal that change
        places: where objects lie anywhere, nothing. If positions are measured once (``align`` is not ``"combined"``),
        only ``count`` is weighed.

        Args:
            compared: Comparisons of normals with the other normals.
            exchanged: Comparisons of some of them after :func:`exchange_windows`.
        """
        matching = 1 / (1 + torch.cat([unmatched_objects(c) for c in compared]).mean())
        self.trust[5] = matching
        if self.align != "combined":
            return
        self.trust[0] = matching
        if compared[0].place.shape[1:].numel() == 1:
            return
        normal, strange = (self._places(some) for some in (compared, exchanged))
        deviations = (strange - normal.mean(dim=0)) / normal.std(dim=0).clamp_min(LEAST_DEVIATION)
        least, most = NOTICED
        self.trust[3:5] = ((lower_median(deviations) - least) / (most - least)).clamp(0, 1)

    @torch.no_grad()
    def calibrate_map(self, distances: torch.Tensor) -> None:
        """Learn how high the sum of the distances usually is, which is what something new counts in the map.

        Args:
            distances: Distance maps of normals, shape ``(Z, 5, s, s)``.
        """
        self.novelty.copy_(self._sum(distances).flatten(1).amax(dim=1).mean())

    def _places(self, compared: list[Comparison]) -> torch.Tensor:
        """Image scores ``place`` and ``arrangement``, shape ``(Z, 2)``."""
        maps = torch.cat([torch.stack([c.place, c.arrangement], dim=1) for c in compared]) / self.usual_place
        return torch.stack([summarize(maps[:, i], self.image_score, TOP_SHARE) for i in range(2)], dim=1)


def _with_floor(std: torch.Tensor) -> torch.Tensor:
    """Deviations of the image scores, none so small that the slightest difference would count, shape ``(..., 7)``."""
    least = std.new_tensor([*[LEAST_DEVIATION] * len(MAPS), LEAST_COUNT_DEVIATION, 1e-6])
    return torch.maximum(std, least)


def _smooth(maps: torch.Tensor) -> torch.Tensor:
    """Mean over windows of 5 x 5, shape ``(..., h, w)``."""
    return F.avg_pool2d(maps.unsqueeze(-3), 5, stride=1, padding=2, count_include_pad=False).squeeze(-3)


def unmatched_objects(compared: Comparison) -> torch.Tensor:
    """Number of objects without partner and of missing ones, averaged over the references, shape ``(N,)``."""
    return compared.surplus.float().sum(dim=1) + compared.missing.float().sum(dim=2).mean(dim=1)


def exchange_windows(features: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Let two windows of each feature map change places: of random pairs, the one that changes most.

    Two windows of plain background would change nothing.

    Args:
        features: Shape ``(N, C, h, w)``.
        generator: Source of randomness.
    """
    size = tuple(features.shape[2:])
    side = min(WINDOW, max(1, min(size) // 2))

    def window() -> tuple[slice, ...]:
        corner = [int(torch.randint(extent - side + 1, (), generator=generator)) for extent in size]
        return (slice(None), *(slice(start, start + side) for start in corner))

    result = features.clone()
    for i, image in enumerate(features):
        most = -1.0
        for _ in range(DRAWS):
            one, other, changed = window(), window(), image.clone()
            changed[one], changed[other] = image[other], image[one]
            change = float((changed - image).square().sum())
            if change > most:
                most, result[i] = change, changed
    return result

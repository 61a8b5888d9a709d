# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Features compared with those anywhere in any normal image, as in PatchCore (ours)."""

import torch

from ..bank import Bank, Template, greedy_k_center
from ..comparison import Comparison
from ..encoder import Found, Maps
from ..measurement import nearest_point
from ..whitening import inverse_power
from .score import Measured, Score

SHRINKAGE = 0.03  # of the features' covariance, towards equal variances
CANDIDATES = 50_000  # features that the coreset is chosen from, at most
PART = 1000  # of which so many are compared with the whole coreset at a time
FARTHEST = 10_000  # of which so many, the farthest from the patches of all other images, may take the place of a patch


class Anywhere(Score):
    """Distances of features to the nearest of a coreset of those that the bank keeps of normal images.

    Args:
        side: Height and width of the maps.
        fine: Compare fine features, half whitened, on the grid of the maps, otherwise coarse ones on their own. Half
            whitened coarse features would find more damages, and blur the map.
        patches: Size of the coreset, P, at most.

    Attributes:
        whitening: What fine features are multiplied by, see :func:`half_whitening`, shape ``(C, C)``.
        patches: The coreset, of fine features times this, shape ``(P, C)``.
        owners: Image that each of them is of, shape ``(P,)``.
        substitutes: What the coreset would have in their place without that image, shape ``(P, C)``.
    """

    def __init__(self, side: int, fine: bool, patches: int) -> None:
        super().__init__(side)
        self.fine = fine
        self.finding = f"a {'detail' if fine else 'spot'} unlike any in normal images"
        self.field = "scene" if fine else "coarse"
        self.SAMPLED = {self.field: torch.half}  # type: ignore[misc]
        self.most = patches
        if fine:
            self.register_buffer("whitening", torch.empty(0))
        self.register_buffer("patches", torch.empty(0))
        self.register_buffer("substitutes", torch.empty(0))
        self.register_buffer("owners", torch.empty(0, dtype=torch.long))

    def keep(self, maps: Maps, found: Found) -> Template:
        """Features of the whole image."""
        del found
        return {self.field: maps.scene if self.fine else maps.coarse}

    def learn(self, bank: Bank, left_out: Template | None, prepared: Template, seed: int) -> None:
        """Choose the coreset by greedy k-center."""
        del left_out, prepared
        features = getattr(bank, self.field).flatten(2)
        size = features.shape[2]
        number = len(features) * size
        chosen = torch.randperm(number, generator=torch.Generator().manual_seed(seed))[:CANDIDATES]
        chosen = chosen.to(features.device)
        rows, places = chosen // size, chosen % size
        owners, candidates = bank.images_of(self.field)[rows], features[rows, :, places].float()
        if self.fine:
            self.whitening = half_whitening(candidates)
            candidates = candidates @ self.whitening
        all_of_them = torch.arange(number, device=chosen.device)
        kept = greedy_k_center(candidates, self.most) if number > self.most else all_of_them
        self.patches, self.owners = candidates[kept], owners[kept]
        self.substitutes = self._find_substitutes(candidates, owners, bank.held_out)

    def _find_substitutes(self, candidates: torch.Tensor, owners: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """What the coreset would have taken without an image, in the place of each of its ``patches``.

        For each image the greedy choice goes on among the features of all others, from the patches of all others.

        Args:
            candidates: What to choose from, shape ``(Q, C)``.
            owners: Image that each of them is of, shape ``(Q,)``.
            images: Those that are compared with all others; the patches of the rest stay.

        Returns:
            Shape ``(P, C)``.
        """
        substitutes = self.patches.clone()
        nearest, other, owner = self._nearest_of_two_images(candidates)
        for image in images:
            distances = torch.where(owner == image, other, nearest)
            distances = torch.where(owners == image, -torch.ones_like(distances), distances)
            # The farthest are few, and only they can be chosen.
            distances, farthest = distances.topk(min(FARTHEST, int((owners != image).sum())))
            own = (self.owners == image).nonzero().flatten()
            points = candidates[farthest]
            if len(own):
                substitutes[own] = points[greedy_k_center(points, len(own), distances)]
        return substitutes

    def _nearest_of_two_images(self, candidates: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Squared distance to the nearest patch, to the nearest of all other images, and the first one's image."""
        nearest, other = candidates.new_empty(2, len(candidates))
        index = self.owners.new_empty(len(candidates))  # what is kept between large tensors would fragment the memory
        squares = self.patches.square().sum(dim=1)
        for part, first, second, i in zip(*(t.split(PART) for t in (candidates, nearest, other, index)), strict=True):
            distances = squares - 2 * part @ self.patches.T + part.square().sum(dim=1, keepdim=True)
            torch.min(distances, dim=1, out=(first, i))
            own = self.owners == self.owners[i].unsqueeze(1)
            torch.amin(distances.masked_fill_(own, torch.inf), dim=1, out=second)
        return nearest, other, self.owners[index]

    def measure(self, compared: Comparison) -> Measured:
        """Distance of each position."""
        patches, features = self.patches, compared.query[self.field]
        if compared.exclude is not None:
            own = compared.exclude.unsqueeze(1) == self.owners
            patches = torch.where(own.unsqueeze(2), self.substitutes, patches)
        points = self.whitening @ features.flatten(2) if self.fine else features.flatten(2)
        return Measured(nearest_point(points, patches.mT).unflatten(1, features.shape[2:]))


def half_whitening(features: torch.Tensor) -> torch.Tensor:
    """Matrix that brings features half the way to whitened ones: the inverse fourth root of their covariance.

    Where normal features vary much, distances say little, as the Mahalanobis distance has it. Its inverse covariance
    gives as much weight to directions in which there is nothing but noise; the root of it is between the two.

    Args:
        features: Shape ``(Q, C)``.

    Returns:
        Symmetric, shape ``(C, C)``, on the features' device.
    """
    centred = features.cpu().double()
    centred = centred - centred.mean(dim=0)
    return inverse_power(centred.T @ centred / len(centred), 1 / 4, SHRINKAGE).to(features)

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Amounts of what images show, and which changes of them count (ours, not the paper's)."""

from typing import ClassVar, NamedTuple

import torch
from sklearn.covariance import LedoitWolf
from torch.nn import functional as F

from ..bank import Bank, Template
from ..clustering import CELLS, REGIONS, regions_of
from ..comparison import Comparison
from .score import Measured, Score

WORDS = 48  # centroids of a clustering, M
POWER = 0.75  # of the shares: 0.5 makes much of what is rare, 1 of what there is most of
EPS = 1e-6  # least number that is divided by, and least shrinkage of a covariance that can be inverted
EXCHANGES = 1000  # windows that are exchanged, K
SIDES = (1, 2, 3)  # of such windows, in cells
EXPONENT = 8  # of the power mean of the components along all changes: the larger, the more the highest ones count


class Filters(NamedTuple):
    """Matched filters of K changes of amounts.

    Attributes:
        location: Mean of normal images, shape ``(D,)``.
        filters: Shape ``(D, K)``.
        shape: Numbers of regions, clusterings and centroids that are counted, R, B and M, with D ``R * B * M``.
    """

    location: torch.Tensor
    filters: torch.Tensor
    shape: tuple[int, int, int]

    def components(self, histograms: torch.Tensor) -> torch.Tensor:
        """Distance from the mean along each change, in standard deviations, shape ``(N, K)``.

        Args:
            histograms: Results of :meth:`Amounts.histogram`.
        """
        return (histograms - self.location) @ self.filters

    def distance(self, histograms: torch.Tensor) -> torch.Tensor:
        """Power mean of the components' absolute values, shape ``(N,)``.

        Args:
            histograms: Results of :meth:`Amounts.histogram`.
        """
        return power_mean(self.components(histograms))

    def amounts(self, histograms: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """How unusual the amount is of what is at each position.

        The squared distance is a sum of terms of all centroids. Each is divided by the centroid's share of its region,
        and given to the positions there that it is the nearest to: where there is too much of something, or too little
        of it, all of it is marked.

        Args:
            histograms: Results of :meth:`Amounts.histogram`.
            words: Index of the nearest centroid of each clustering, of any resolution, shape ``(N, B, h, w)``.

        Returns:
            Root of the sum over the clusterings, shape ``(N, h, w)``.
        """
        regions, _, number = self.shape
        density = self.terms(histograms) / histograms.pow(1 / POWER).clamp_min(1 / words[0, 0].numel())
        index = words.long()
        if regions > 1:
            index = index + number * regions_of(words.shape[2:], words.device)
        density = density.unflatten(1, self.shape).transpose(1, 2).flatten(2)
        return density.gather(2, index.flatten(2)).view(words.shape).sum(dim=1).clamp_min(0).sqrt()

    def terms(self, histograms: torch.Tensor) -> torch.Tensor:
        """Terms of the squared distances, which are their sums, shape ``(N, D)``."""
        components = self.components(histograms)
        ratios = components / power_mean(components).clamp_min(EPS).unsqueeze(1)
        weights = components * ratios.abs().pow(EXPONENT - 2) / ratios.shape[1]
        return (histograms - self.location) * (weights @ self.filters.T)


class Amounts(Score):
    """How unusual the shares of centroids are among those of normal images.

    A Gaussian with Ledoit-Wolf covariance is fitted to powers of those of normal images. What counts is how far from
    its mean they are along changes that a rule forbids: parts that are missing, added or exchanged. Such changes are
    made of normal images, see :func:`exchange_windows`, and each has a matched filter: the component along it, in
    standard deviations. The Mahalanobis distance would add up the noise of all directions, most of which no such change
    has.
    Clusterings from different starts are differently good, so several are taken together.

    Args:
        side: Height and width of the maps.
        regions, clusterings, words: Numbers of regions, clusterings and centroids that are counted, R, B and M.

    Attributes:
        location, precision: Mean and inverse covariance of the Gaussian, of shapes ``(D,)`` and ``(D, D)``, with D
            ``R * B * M``.
        shrinkage: Of its covariance.
        filters: Matched filters of K changes, shape ``(D, K)``.
        lengths: Mahalanobis lengths of the changes, shape ``(K,)``.
        number: Of the normal images that it was fitted to, Z.
    """

    LEAST_DEVIATION: ClassVar[float] = 1e-6
    MARKS: ClassVar[bool] = True

    def __init__(self, side: int, regions: int, clusterings: int, words: int = WORDS) -> None:
        super().__init__(side)
        self.shape = (regions, clusterings, words)
        self.register_buffer("location", torch.empty(0))
        self.register_buffer("precision", torch.empty(0))
        self.register_buffer("filters", torch.empty(0))
        self.register_buffer("lengths", torch.empty(0))
        self.register_buffer("shrinkage", torch.tensor(1.0))
        self.register_buffer("number", torch.tensor(0))

    def histogram(self, shares: torch.Tensor) -> torch.Tensor:
        """Powers of the shares that are counted, shape ``(N, D)``.

        Args:
            shares: See :func:`.clustering.assign`.
        """
        raise NotImplementedError

    def learn(self, bank: Bank, left_out: Template | None, prepared: Template, seed: int) -> None:
        """Fit the Gaussian to all normal images, and the filters to the changes of the sample.

        Raises:
            RuntimeError: If there was no sample, or :class:`.composition.Composition` is not among the scores.
        """
        del seed
        if "exchanged" not in prepared:
            msg = "no changes of normal images to learn from: fit_encoder must come before each fit, with composition"
            raise RuntimeError(msg)
        shares = bank.shares if left_out is None else torch.cat([bank.shares, left_out["shares"]])
        self.fit_gaussian(
            self.histogram(shares), self.histogram(prepared["exchanged"]) - self.histogram(prepared["unchanged"])
        )

    def measure(self, compared: Comparison) -> Measured:
        """Amounts by their place, and the distance of the whole."""
        histogram, words = self.histogram(compared.query["shares"]), compared.query["words"][:, : self.shape[1]]
        if compared.exclude is None:
            fitted = self.fitted
            return Measured(smooth(fitted.amounts(histogram, words)), fitted.distance(histogram))
        normal = self.histogram(compared.bank.get("shares", compared.exclude))
        others = [self.without(one) for one in normal]
        parts = list(zip(others, histogram.split(1), words.split(1), strict=True))
        amounts = torch.cat([other.amounts(h, w) for other, h, w in parts])
        return Measured(smooth(amounts), torch.cat([other.distance(h) for other, h, _ in parts]))

    @property
    def fitted(self) -> Filters:
        """What new images are measured by."""
        return Filters(self.location, self.filters, self.shape)

    def draw(self, measured: Measured) -> torch.Tensor:
        """By how much amounts are above the mean of what is the highest in each normal image."""
        return (super().draw(measured) - 1).clamp_min(0)

    def typical(self, maps: torch.Tensor) -> torch.Tensor:
        """Mean of what is the highest in each image."""
        return maps.flatten(1).amax(dim=1).mean()

    def calibrate(self, measured: list[Measured]) -> None:
        """Learn unit, mean and standard deviation, see :meth:`.Score.calibrate`."""
        super().calibrate(measured)
        if len(measured) < 3:  # too few to leave one out, so each is measured by itself
            self.std.fill_(1.0)

    @torch.no_grad()
    def fit_gaussian(self, histograms: torch.Tensor, changes: torch.Tensor) -> None:
        """Fit the Gaussian and the filters.

        Args:
            histograms: Results of :meth:`histogram` for normal images, shape ``(Z, D)``.
            changes: Differences of such results, shape ``(K, D)``.
        """
        gaussian = LedoitWolf(store_precision=False).fit(histograms.cpu().double().numpy())
        self.number.fill_(len(histograms))
        self.shrinkage.fill_(gaussian.shrinkage_)
        if gaussian.shrinkage_ > EPS:  # positive definite: an eighth of the time of the pseudo-inverse
            precision = torch.cholesky_inverse(torch.linalg.cholesky(torch.from_numpy(gaussian.covariance_)))
        else:  # images that do not differ, or two
            precision = torch.from_numpy(gaussian.get_precision())
        changes = changes.cpu().double().T
        weighted = precision @ changes
        lengths = (changes * weighted).sum(dim=0).clamp_min(0).sqrt()
        location = torch.from_numpy(gaussian.location_)
        filters = weighted / lengths.clamp_min(EPS)
        self.location, self.precision, self.filters, self.lengths = (
            t.to(histograms) for t in (location, precision, filters, lengths)
        )

    def without(self, normal: torch.Tensor) -> Filters:
        """Filters by the Gaussian of all other normal images, for one that shall be measured as new images are.

        It has the shrinkage of all images, so that its covariance differs from theirs by a factor and by one term of
        rank one: its inverse follows by the formula of Sherman and Morrison, and with it the filters. Fewer than three
        images are too few to leave one out: then they are those of all.

        Args:
            normal: The image's :meth:`histogram`, shape ``(D,)``.
        """
        number = int(self.number)
        if number < 3:
            return self.fitted
        residual, precision, filters, lengths = (
            t.cpu().double() for t in (normal - self.location, self.precision, self.filters, self.lengths)
        )
        own, weighted = (1 - float(self.shrinkage)) / (number - 1), precision @ residual
        weight = own / (1 - own * residual @ weighted).clamp_min(EPS)
        along = residual @ filters * lengths
        filters = filters * lengths + weight * weighted.outer(along)
        lengths = (lengths.square() + weight * along.square()).sqrt()
        factor = (number - 1) / number
        location = self.location - (residual / (number - 1)).to(self.location)
        return Filters(location, (factor**0.5 * filters / lengths.clamp_min(EPS)).to(self.filters), self.shape)


def power_mean(components: torch.Tensor) -> torch.Tensor:
    """Power mean of absolute values, shape ``(N,)``: between their mean and the highest.

    Args:
        components: Shape ``(N, K)``.
    """
    highest = components.abs().amax(dim=1, keepdim=True).clamp_min(EPS)  # so that no power is too large
    return ((components / highest).abs().pow(EXPONENT).mean(dim=1, keepdim=True).pow(1 / EXPONENT) * highest).squeeze(1)


def exchange_windows(cells: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Shares of normal images before and after a window of each comes from another one.

    Every second window comes from the same place: one variant of what is there takes the place of another. The others
    come from any place, so that parts that each normal image has are missing or there twice.

    Args:
        cells: Shares by cell, see :func:`.clustering.assign`, shape ``(Z, CELLS ** 2, B, M)``.
        seed: Seed of the choice of images and windows.

    Returns:
        Both by region, shape ``(K, R, B, M)``.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(most: int) -> int:
        return int(torch.randint(most, (), generator=generator))

    def pool(image: torch.Tensor) -> torch.Tensor:
        sides = (REGIONS, CELLS // REGIONS)
        return image.unflatten(1, sides).unflatten(0, sides).sum(dim=(1, 3)).flatten(0, 1)

    images = cells.unflatten(1, (CELLS, CELLS))
    pooled = [pool(image) for image in images]
    before, after = [], []
    for i in range(EXCHANGES):
        image = draw(len(images))
        other = (image + 1 + draw(max(1, len(images) - 1))) % len(images)
        side = SIDES[i % len(SIDES)]
        row, column, other_row, other_column = (draw(CELLS + 1 - side) for _ in range(4))
        if i % 2:
            other_row, other_column = row, column
        changed = images[image].clone()
        place = (slice(row, row + side), slice(column, column + side))
        window = images[other, other_row : other_row + side, other_column : other_column + side]
        # Where cells differ in size, all shares would not sum up to 1.
        changed[place] = window * (changed[place].sum() / window.sum().clamp_min(EPS))
        before.append(pooled[image])
        after.append(pool(changed))
    return torch.stack(before), torch.stack(after)


def smooth(maps: torch.Tensor) -> torch.Tensor:
    """Mean over windows of 5 x 5, shape ``(..., h, w)``."""
    return F.avg_pool2d(maps.unsqueeze(-3), 5, stride=1, padding=2, count_include_pad=False).squeeze(-3)

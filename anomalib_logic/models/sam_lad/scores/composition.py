# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Composition of an image, and of its regions: how much of what they show (ours, not the paper's)."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from sklearn.covariance import LedoitWolf

from anomalib_logic.models.components.upsampling import pick

from ..bank import Bank, Template
from ..clustering import REGIONS, assign, deviation_from_median, k_means, regions_of, sample_features
from ..comparison import Comparison
from ..encoder import Found, Maps
from ..measurement import nearest_point
from .place import smooth
from .score import Measured, Score

SOFTNESS = 0.25  # temperature of the assignment, in units of the clusters' mean squared distance to their centroid
WORDS = 48  # centroids of a clustering, M
CLUSTERINGS = 8  # B
POWER = 0.75  # of the shares: 0.5 makes much of what is rare, 1 of what there is most of
LEAST_SHRINKAGE = 1e-6  # of a covariance that can be inverted


class Amounts(Score):
    """How unusual the shares of centroids are among those of normal images.

    Powers of them are compared by the Mahalanobis distance to a Gaussian over normal images with Ledoit-Wolf
    covariance. Clusterings from different starts are differently good, so several are taken together.

    Args:
        side: Height and width of the maps.
        regions, clusterings, words: Numbers of regions, clusterings and centroids that are counted, R, B and M.

    Attributes:
        location, precision: Mean and inverse covariance of the Gaussian.
        shrinkage: Of its covariance.
        number: Of the normal images that it was fitted to, Z.
    """

    LEAST_DEVIATION: ClassVar[float] = 1e-6
    MARKS: ClassVar[bool] = True

    def __init__(self, side: int, regions: int, clusterings: int, words: int = WORDS) -> None:
        super().__init__(side)
        self.shape = (regions, clusterings, words)
        number = regions * clusterings * words
        self.register_buffer("location", torch.zeros(number))
        self.register_buffer("precision", torch.zeros(number, number))
        self.register_buffer("shrinkage", torch.tensor(1.0))
        self.register_buffer("number", torch.tensor(0))

    def histogram(self, shares: torch.Tensor) -> torch.Tensor:
        """Powers of the shares that are counted, shape ``(N, R * B * M)``.

        Args:
            shares: See :func:`.clustering.assign`.
        """
        raise NotImplementedError

    def learn(self, bank: Bank, left_out: Template | None, seed: int) -> None:
        """Fit the Gaussian to all normal images."""
        del seed
        shares = bank.shares if left_out is None else torch.cat([bank.shares, left_out["shares"]])
        self.fit_gaussian(self.histogram(shares))

    def measure(self, compared: Comparison) -> Measured:
        """Amounts by their place, and the distance of the whole."""
        histogram, words = self.histogram(compared.query["shares"]), compared.query["words"][:, : self.shape[1]]
        if compared.exclude is None:
            return Measured(smooth(self.amounts(histogram, words)), self.distance(histogram))
        normal = self.histogram(compared.bank.get("shares", compared.exclude))
        others = [self.without(one) for one in normal]
        parts = list(zip(others, histogram.split(1), words.split(1), strict=True))
        amounts = torch.cat([other.amounts(h, w) for other, h, w in parts])
        return Measured(smooth(amounts), torch.cat([other.distance(h) for other, h, _ in parts]))

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
    def fit_gaussian(self, histograms: torch.Tensor) -> None:
        """Fit the Gaussian.

        Args:
            histograms: Results of :meth:`histogram` for normal images, shape ``(Z, R * B * M)``.
        """
        gaussian = LedoitWolf(store_precision=False).fit(histograms.cpu().double().numpy())
        self.number.fill_(len(histograms))
        self.shrinkage.fill_(gaussian.shrinkage_)
        self.location.copy_(torch.from_numpy(gaussian.location_))
        if gaussian.shrinkage_ > LEAST_SHRINKAGE:  # positive definite: an eighth of the time of the pseudo-inverse
            precision = torch.cholesky_inverse(torch.linalg.cholesky(torch.from_numpy(gaussian.covariance_)))
        else:  # images that do not differ, or two
            precision = torch.from_numpy(gaussian.get_precision())
        self.precision.copy_(precision)

    def without(self, normal: torch.Tensor) -> "Amounts":
        """Amounts with the Gaussian of all other normal images, for one that shall be measured as new images are.

        It has the shrinkage of all images, and the variance that they are shrunk to. Its covariance then differs from
        theirs by a factor and by one term of rank one, so its inverse follows by the formula of Sherman and Morrison.
        Fewer than three images are too few to leave one out: the Gaussian is that of all.

        Args:
            normal: The image's :meth:`histogram`, shape ``(R * B * M,)``.
        """
        number = int(self.number)
        if number < 3:
            return self
        others = Amounts(self.size[0], *self.shape).to(self.location)
        residual, precision = (normal - self.location).cpu().double(), self.precision.cpu().double()
        weight, weighted = (1 - float(self.shrinkage)) / (number - 1), precision @ residual
        rest = (1 - weight * residual @ weighted).clamp_min(LEAST_SHRINKAGE)
        precision = precision + weight / rest * weighted.outer(weighted)
        others.location.copy_(self.location - (residual / (number - 1)).to(self.location))
        others.precision.copy_((number - 1) / number * precision)
        return others

    def distance(self, histograms: torch.Tensor) -> torch.Tensor:
        """Mahalanobis distance, shape ``(N,)``.

        Args:
            histograms: Result of :meth:`histogram`.
        """
        return self._terms(histograms).sum(dim=1).clamp_min(0).sqrt()

    def amounts(self, histograms: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """How unusual the amount is of what is at each position.

        Each centroid's term of the squared distance is divided by its share of its region, and given to the positions
        there that it is the nearest to: where there is too much of something, or too little of it, all of it is marked.

        Args:
            histograms: Result of :meth:`histogram`.
            words: Index of the nearest centroid of each clustering, of any resolution, shape ``(N, B, h, w)``.

        Returns:
            Root of the sum over the clusterings, shape ``(N, h, w)``.
        """
        regions, _, number = self.shape
        density = self._terms(histograms) / histograms.pow(1 / POWER).clamp_min(1 / words[0, 0].numel())
        index = words.long()
        if regions > 1:
            index = index + number * regions_of(words.shape[2:], words.device)
        density = density.unflatten(1, self.shape).transpose(1, 2).flatten(2)
        return density.gather(2, index.flatten(2)).view(words.shape).sum(dim=1).clamp_min(0).sqrt()

    def _terms(self, histograms: torch.Tensor) -> torch.Tensor:
        """Terms of the squared distances, which are their sums, shape ``(N, R * B * M)``."""
        residual = histograms - self.location
        return residual * (residual @ self.precision)


class Composition(Amounts):
    """Histogram of the centroids that an image's features are near: how much there is of what.

    Matching looks at objects one by one; rules are often about amounts ("two washers, two nuts"). Positions are
    assigned softly: near the border between two clusters, small differences of features change the shares by little.
    The clusters are made of positions that change from image to image rather than of the background.

    Args:
        side: Height and width of the maps.
        channels: Channels of the features, C.
        clusterings, words: Numbers of clusterings and of centroids of each, B and M.
    """

    finding = "how much there is of something in the image"
    IMAGES: ClassVar[Mapping[str, torch.dtype]] = {"shares": torch.float, "words": torch.uint8}

    def __init__(self, side: int, channels: int, clusterings: int = CLUSTERINGS, words: int = WORDS) -> None:
        super().__init__(side, 1, clusterings, words)
        self.register_buffer("centroids", torch.zeros(clusterings, words, channels))
        self.register_buffer("temperatures", torch.ones(clusterings))

    def histogram(self, shares: torch.Tensor) -> torch.Tensor:
        """Powers of the shares of the whole image."""
        return shares.sum(dim=1).flatten(1).pow(POWER)

    def prepare(self, features: torch.Tensor, seed: int) -> None:
        """Cluster the features."""
        clusterings, words, _ = self.centroids.shape
        deviation = deviation_from_median(features)
        everywhere = sample_features(features, seed).T
        for i in range(clusterings):
            centroids = k_means(sample_features(features, seed + i, deviation), words, seed + i)
            distances = nearest_point(everywhere, centroids.T)
            self.centroids[i] = centroids
            self.temperatures[i] = (SOFTNESS * distances.square().mean()).clamp_min(1e-6)

    def keep(self, maps: Maps, found: Found) -> Template:
        """Shares of the centroids, and what is where."""
        del found
        words, shares = assign(maps.all, self.centroids, self.temperatures)
        return {"shares": shares, "words": pick(words, self.size).to(torch.uint8)}

    def outline(self, maps: Maps) -> Template:
        """Shares of the centroids."""
        return {"shares": assign(maps.all, self.centroids, self.temperatures)[1]}


class Layout(Amounts):
    """Composition of the image's regions: how much there is of what in each quarter of the image.

    A rule can be about amounts in a place ("a red cap above the red label"), which the whole image's amounts do not
    show. It counts what :class:`Composition` keeps.

    Args:
        side: Height and width of the maps.
        clusterings, words: Numbers of clusterings and of centroids of each that are counted: the first ones.
    """

    finding = "how much there is of something in a quarter of the image"

    def __init__(self, side: int, clusterings: int = CLUSTERINGS // 2, words: int = WORDS) -> None:
        super().__init__(side, REGIONS**2, clusterings, words)

    def histogram(self, shares: torch.Tensor) -> torch.Tensor:
        """Powers of the shares of each region."""
        return shares[:, :, : self.shape[1]].flatten(1).pow(POWER)

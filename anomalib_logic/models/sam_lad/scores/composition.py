# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Composition of an image: how much of what it shows (ours, not the paper's)."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from sklearn.covariance import LedoitWolf

from anomalib_logic.models.components.upsampling import pick

from ..bank import Bank, Template
from ..clustering import k_means, nearest_centroid, sample_features
from ..comparison import Comparison
from ..encoder import Found, Maps
from .place import smooth
from .score import Measured, Score


class Composition(Score):
    """Histogram of nearest centroids of an image's features, and how unusual it is among those of normal images.

    Matching looks at objects one by one; rules are often about amounts ("two washers, two nuts"). Square roots of the
    shares are compared by the Mahalanobis distance to a Gaussian over normal images with Ledoit-Wolf covariance. How
    good one clustering is, is luck, so several from different starts are averaged.

    Args:
        side: Height and width of the maps.
        channels: Channels of the features, C.
        words: Number of centroids of one clustering, M.
        clusterings: Number of clusterings, B.

    Attributes:
        histograms: Of the normal images that the Gaussians were fitted to, the bank's first, shape ``(Z, B * M)``.
    """

    IMAGES: ClassVar[Mapping[str, torch.dtype]] = {"histogram": torch.float, "words": torch.uint8}
    LEAST_DEVIATION: ClassVar[float] = 1e-6
    MARKS: ClassVar[bool] = True

    def __init__(self, side: int, channels: int, words: int = 48, clusterings: int = 4) -> None:
        super().__init__(side)
        self.register_buffer("centroids", torch.zeros(clusterings, words, channels))
        self.register_buffer("means", torch.zeros(clusterings, words))
        self.register_buffer("precision", torch.zeros(clusterings, words, words))
        self.register_buffer("histograms", torch.zeros(0, clusterings * words))

    def prepare(self, features: torch.Tensor, seed: int) -> None:
        """Cluster the features."""
        clusterings, words, _ = self.centroids.shape
        for i in range(clusterings):
            self.centroids[i] = k_means(sample_features(features, seed + i), words, seed + i)

    def keep(self, maps: Maps, found: Found) -> Template:
        """Histogram of the image, and what is where."""
        del found
        words = self.words(maps.all)
        return {"histogram": self.histogram(words), "words": pick(words, self.size).to(torch.uint8)}

    def outline(self, maps: Maps) -> Template:
        """Histogram of the image."""
        return {"histogram": self.histogram(self.words(maps.all))}

    def learn(self, bank: Bank, left_out: Template | None, seed: int) -> None:
        """Fit the Gaussians to all normal images."""
        del seed
        histograms = bank.histogram if left_out is None else torch.cat([bank.histogram, left_out["histogram"]])
        self.fit_gaussian(histograms)

    def measure(self, compared: Comparison) -> Measured:
        """Amounts by their place, and the distance of the whole."""
        histogram, words = compared.query["histogram"], compared.query["words"]
        if compared.exclude is None:
            return Measured(smooth(self.amounts(histogram, words)), self.distance(histogram))
        others = [self.without(int(image)) for image in compared.exclude]
        parts = list(zip(others, histogram.split(1), words.split(1), strict=True))
        amounts = torch.cat([other.amounts(h, w) for other, h, w in parts])
        return Measured(smooth(amounts), torch.cat([other.distance(h) for other, h, _ in parts]))

    def draw(self, measured: Measured) -> torch.Tensor:
        """By how much amounts are above what is the highest in a normal image."""
        return (super().draw(measured) - 1).clamp_min(0)

    def typical(self, maps: torch.Tensor) -> torch.Tensor:
        """Mean of the highest of each image."""
        return maps.flatten(1).amax(dim=1).mean()

    def calibrate(self, measured: list[Measured]) -> None:
        """Learn unit, mean and standard deviation, see :meth:`.Score.calibrate`."""
        super().calibrate(measured)
        if len(measured) < 3:  # too few to leave one out, so each is measured by itself
            self.std.fill_(1.0)

    def words(self, features: torch.Tensor) -> torch.Tensor:
        """Nearest centroid of each clustering at each position.

        Args:
            features: Standardised features, shape ``(N, C, H, W)``.

        Returns:
            Indices, shape ``(N, B, H, W)``.
        """
        return nearest_centroid(features, self.centroids)

    def histogram(self, words: torch.Tensor) -> torch.Tensor:
        """Square roots of the shares of the centroids.

        Args:
            words: Result of :meth:`words`.

        Returns:
            Those of all clusterings, one behind the other, shape ``(N, B * M)``.
        """
        number = torch.arange(self.centroids.shape[1], device=words.device)
        shares = [(w.flatten(1).unsqueeze(-1) == number).to(self.means.dtype).mean(dim=1) for w in words.unbind(1)]
        return torch.cat(shares, dim=1).sqrt()

    @torch.no_grad()
    def fit_gaussian(self, histograms: torch.Tensor) -> None:
        """Fit the Gaussians.

        Args:
            histograms: Of normal images, shape ``(Z, B * M)``.
        """
        self.histograms = histograms.clone()
        parts = histograms.unflatten(1, self.means.shape).cpu().double().numpy()
        for i in range(parts.shape[1]):
            gaussian = LedoitWolf().fit(parts[:, i])
            self.means[i] = torch.from_numpy(gaussian.location_).float()
            self.precision[i] = torch.from_numpy(gaussian.precision_).float()

    def without(self, normal: int) -> "Composition":
        """Composition with the Gaussians of all other normal images, for one that shall be measured as new images are.

        Fewer than three are too few to leave one out: the Gaussians are those of all.

        Args:
            normal: Index in ``histograms``.
        """
        clusterings, words = self.means.shape
        others = Composition(self.size[0], 0, words, clusterings).to(self.means)
        kept = np.delete(np.arange(len(self.histograms)), normal if len(self.histograms) > 2 else [])
        others.fit_gaussian(self.histograms[torch.from_numpy(kept).to(self.histograms.device)])
        return others

    def distance(self, histograms: torch.Tensor) -> torch.Tensor:
        """Root of the mean squared Mahalanobis distance over the clusterings, shape ``(N,)``.

        Args:
            histograms: Result of :meth:`histogram`.
        """
        return self._terms(histograms).sum(dim=2).mean(dim=1).clamp_min(0).sqrt()

    def amounts(self, histograms: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """How unusual the amount is of what is at each position.

        Each centroid's term of the squared distance is spread over the positions that it is nearest to: where there is
        too much of something, or too little of it, all of it is marked.

        Args:
            histograms: Result of :meth:`histogram`.
            words: Result of :meth:`words`, of any resolution, shape ``(N, B, h, w)``.

        Returns:
            Root of the mean over the clusterings, shape ``(N, h, w)``.
        """
        shares = histograms.unflatten(1, self.means.shape).square()
        density = self._terms(histograms) / shares.clamp_min(1 / words[0, 0].numel())
        return density.gather(2, words.long().flatten(2)).view(words.shape).mean(dim=1).clamp_min(0).sqrt()

    def _terms(self, histograms: torch.Tensor) -> torch.Tensor:
        """Terms of the squared distances, which are their sums over the centroids, shape ``(N, B, M)``."""
        residual = histograms.unflatten(1, self.means.shape) - self.means
        return residual * (residual.unsqueeze(2) @ self.precision).squeeze(2)

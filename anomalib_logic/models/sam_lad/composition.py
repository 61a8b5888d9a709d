# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Composition of an image: how much of what it shows (ours, not the paper's)."""

import numpy as np
import torch
from anomalib.models.components import DynamicBufferMixin
from sklearn.covariance import LedoitWolf

from .clustering import k_means, nearest_centroid, sample_features


class Composition(DynamicBufferMixin):
    """Histogram of nearest centroids of an image's features, and how unusual it is among those of the normals.

    Matching looks at objects one by one; rules are often about amounts ("two washers, two nuts"). Square roots of the
    shares are compared by the Mahalanobis distance to a Gaussian over the normals with Ledoit-Wolf covariance. How good
    one clustering is, is luck, so several from different starts are averaged.

    Args:
        channels: Channels of the features, C.
        words: Number of centroids of one clustering, M.
        clusterings: Number of clusterings, B.

    Attributes:
        histograms: Of the normals that the Gaussians were fitted to, shape ``(Z, B * M)``.
    """

    def __init__(self, channels: int, words: int = 48, clusterings: int = 4) -> None:
        super().__init__()
        self.register_buffer("centroids", torch.zeros(clusterings, words, channels))
        self.register_buffer("mean", torch.zeros(clusterings, words))
        self.register_buffer("precision", torch.zeros(clusterings, words, words))
        self.register_buffer("histograms", torch.zeros(0, clusterings * words))

    @torch.no_grad()
    def fit(self, features: torch.Tensor, seed: int = 0) -> None:
        """Cluster features of normal images.

        Args:
            features: Standardised features of a sample of the normals, shape ``(Z, C, H, W)``.
            seed: Seed of the clusterings.
        """
        clusterings, words, _ = self.centroids.shape
        for i in range(clusterings):
            self.centroids[i] = k_means(sample_features(features, seed + i), words, seed + i)

    def words(self, features: torch.Tensor) -> torch.Tensor:
        """Nearest centroid of each clustering at each position.

        Args:
            features: Standardised features, shape ``(N, C, H, W)``.

        Returns:
            Indices, shape ``(N, B, H, W)``.
        """
        return torch.stack([nearest_centroid(features, centroids) for centroids in self.centroids], dim=1)

    def histogram(self, words: torch.Tensor) -> torch.Tensor:
        """Square roots of the shares of the centroids.

        Args:
            words: Result of :meth:`words`.

        Returns:
            Those of all clusterings, one behind the other, shape ``(N, B * M)``.
        """
        number = torch.arange(self.centroids.shape[1], device=words.device)
        shares = [(w.flatten(1).unsqueeze(-1) == number).to(self.mean.dtype).mean(dim=1) for w in words.unbind(1)]
        return torch.cat(shares, dim=1).sqrt()

    @torch.no_grad()
    def fit_gaussian(self, histograms: torch.Tensor) -> None:
        """Fit the Gaussians.

        Args:
            histograms: Of the normals, shape ``(Z, B * M)``.
        """
        self.histograms = histograms.clone()
        parts = histograms.unflatten(1, self.mean.shape).cpu().double().numpy()
        for i in range(parts.shape[1]):
            gaussian = LedoitWolf().fit(parts[:, i])
            self.mean[i] = torch.from_numpy(gaussian.location_).float()
            self.precision[i] = torch.from_numpy(gaussian.precision_).float()

    def without(self, normal: int) -> "Composition":
        """Composition with the Gaussians of all other normals, for a normal that shall be judged as new images are.

        Fewer than three normals are too few to leave one out: the Gaussians are those of all.

        Args:
            normal: Index in ``histograms``.
        """
        clusterings, words = self.mean.shape
        others = Composition(0, words, clusterings).to(self.mean)
        kept = np.delete(np.arange(len(self.histograms)), normal if len(self.histograms) > 2 else [])
        others.fit_gaussian(self.histograms[torch.from_numpy(kept).to(self.histograms.device)])
        return others

    def forward(self, histograms: torch.Tensor) -> torch.Tensor:
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
        shares = histograms.unflatten(1, self.mean.shape).square()
        density = self._terms(histograms) / shares.clamp_min(1 / words[0, 0].numel())
        return density.gather(2, words.long().flatten(2)).view(words.shape).mean(dim=1).clamp_min(0).sqrt()

    def _terms(self, histograms: torch.Tensor) -> torch.Tensor:
        """Terms of the squared distances, which are their sums over the centroids, shape ``(N, B, M)``."""
        residual = histograms.unflatten(1, self.mean.shape) - self.mean
        return residual * (residual.unsqueeze(2) @ self.precision).squeeze(2)

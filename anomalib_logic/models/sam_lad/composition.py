# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Composition of an image: how much of what it shows (ours, not the paper's)."""

import torch
from sklearn.covariance import LedoitWolf
from torch import nn

from .clustering import k_means, nearest_centroid, sample_features

LEAVE_OUT = 200  # most normals that are left out in turn


class Composition(nn.Module):
    """Histogram of nearest centroids of an image's features, and how unusual it is among those of the normals.

    Matching looks at objects one by one; rules are often about amounts ("two washers, two nuts"). Square roots of the
    shares are compared by the Mahalanobis distance to a Gaussian over the normals with Ledoit-Wolf covariance.

    Args:
        channels: Channels of the features, C.
        words: Number of centroids, M.
    """

    def __init__(self, channels: int, words: int = 48) -> None:
        super().__init__()
        self.words = words
        self.register_buffer("centroids", torch.zeros(words, channels))
        self.register_buffer("mean", torch.zeros(words))
        self.register_buffer("precision", torch.zeros(words, words))

    @torch.no_grad()
    def fit(self, features: torch.Tensor, seed: int = 0) -> None:
        """Cluster features of normal images.

        Args:
            features: Standardised features of a sample of the normals, shape ``(Z, C, H, W)``.
            seed: Seed of the clustering.
        """
        self.centroids.copy_(k_means(sample_features(features, seed), self.words, seed))

    def histogram(self, features: torch.Tensor) -> torch.Tensor:
        """Square roots of the shares of the centroids.

        Args:
            features: Standardised features, shape ``(N, C, H, W)``.

        Returns:
            Shape ``(N, M)``.
        """
        nearest = nearest_centroid(features, self.centroids).flatten(1)
        words = torch.arange(self.words, device=features.device)
        return (nearest.unsqueeze(-1) == words).to(features.dtype).mean(dim=1).sqrt()

    @torch.no_grad()
    def fit_gaussian(self, histograms: torch.Tensor) -> torch.Tensor:
        """Fit the Gaussian.

        Args:
            histograms: Of the normals, shape ``(Z, M)``.

        Returns:
            Distances of normals (at most ``LEAVE_OUT``) to the Gaussian of all others.
        """
        values = histograms.double().cpu().numpy()
        self._set(values)
        rows = range(0, len(values), -(-len(values) // LEAVE_OUT))
        if len(values) < 3:
            return torch.zeros(len(rows))
        held_out = []
        for i in rows:
            others = LedoitWolf().fit(values[[j for j in range(len(values)) if j != i]])
            held_out.append(float(others.mahalanobis(values[i : i + 1])[0]) ** 0.5)
        return torch.tensor(held_out)

    def _set(self, values) -> None:
        gaussian = LedoitWolf().fit(values)
        self.mean.copy_(torch.from_numpy(gaussian.location_))
        self.precision.copy_(torch.from_numpy(gaussian.precision_))

    def forward(self, histograms: torch.Tensor) -> torch.Tensor:
        """Mahalanobis distance of histograms, shape ``(N,)``."""
        residual = histograms - self.mean
        return (residual @ self.precision * residual).sum(dim=1).clamp_min(0).sqrt()

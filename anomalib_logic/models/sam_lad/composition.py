# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Composition of an image: how much of what it shows (ours, not the paper's)."""

import numpy as np
import torch
from sklearn.covariance import LedoitWolf
from torch import nn

from .clustering import k_means, nearest_centroid, sample_features

LEAVE_OUT = 200  # most normals that are left out in turn


class Composition(nn.Module):
    """Histogram of nearest centroids of an image's features, and how unusual it is among those of the normals.

    Matching looks at objects one by one; rules are often about amounts ("two washers, two nuts"). Square roots of the
    shares are compared by the Mahalanobis distance to a Gaussian over the normals with Ledoit-Wolf covariance. How good
    one clustering is, is luck, so several from different starts are averaged.

    Args:
        channels: Channels of the features, C.
        words: Number of centroids of one clustering, M.
        clusterings: Number of clusterings, B.
    """

    def __init__(self, channels: int, words: int = 48, clusterings: int = 4) -> None:
        super().__init__()
        self.register_buffer("centroids", torch.zeros(clusterings, words, channels))
        self.register_buffer("mean", torch.zeros(clusterings, words))
        self.register_buffer("precision", torch.zeros(clusterings, words, words))

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

    def histogram(self, features: torch.Tensor) -> torch.Tensor:
        """Square roots of the shares of the centroids.

        Args:
            features: Standardised features, shape ``(N, C, H, W)``.

        Returns:
            Those of all clusterings, one behind the other, shape ``(N, B * M)``.
        """
        words = torch.arange(self.centroids.shape[1], device=features.device)
        nearest = [nearest_centroid(features, centroids).flatten(1) for centroids in self.centroids]
        shares = [(n.unsqueeze(-1) == words).to(features.dtype).mean(dim=1) for n in nearest]
        return torch.cat(shares, dim=1).sqrt()

    @torch.no_grad()
    def fit_gaussian(self, histograms: torch.Tensor) -> torch.Tensor:
        """Fit the Gaussians.

        Args:
            histograms: Of the normals, shape ``(Z, B * M)``.

        Returns:
            Distances of normals (at most ``LEAVE_OUT``) to the Gaussians of all others.
        """
        squared = []
        parts = histograms.unflatten(1, self.mean.shape).double().cpu().numpy()
        for i in range(parts.shape[1]):
            values = parts[:, i]
            gaussian = LedoitWolf().fit(values)
            self.mean[i] = torch.from_numpy(gaussian.location_)
            self.precision[i] = torch.from_numpy(gaussian.precision_)
            squared.append(_left_out(values))
        return torch.stack(squared).mean(dim=0).sqrt()

    def forward(self, histograms: torch.Tensor) -> torch.Tensor:
        """Root of the mean squared Mahalanobis distance over the clusterings, shape ``(N,)``.

        Args:
            histograms: Result of :meth:`histogram`.
        """
        residual = (histograms.unflatten(1, self.mean.shape) - self.mean).unsqueeze(2)  # (N, B, 1, M)
        squared = (residual @ self.precision * residual).sum(dim=(2, 3))
        return squared.mean(dim=1).clamp_min(0).sqrt()


def _left_out(values: np.ndarray) -> torch.Tensor:
    """Squared distances of some rows to the Gaussian of all others."""
    rows = range(0, len(values), -(-len(values) // LEAVE_OUT))
    if len(values) < 3:
        return torch.zeros(len(rows))
    others = (LedoitWolf().fit(np.delete(values, i, axis=0)) for i in rows)
    return torch.tensor([float(other.mahalanobis(values[i : i + 1])[0]) for i, other in zip(rows, others, strict=True)])

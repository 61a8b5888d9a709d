# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""K-means of feature maps, and the nearest centroid at each position."""

import torch
from sklearn.cluster import MiniBatchKMeans

from .measurement import compare_in_parts

SAMPLE = 40_000  # positions that are clustered, at most


def sample_features(features: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Draw features of random positions, as many as ``SAMPLE`` at most.

    Args:
        features: Shape ``(Z, C, H, W)``.
        seed: Seed of the choice.

    Returns:
        Shape ``(P, C)``, on the CPU.
    """
    positions = features.permute(0, 2, 3, 1).flatten(0, 2)
    order = torch.randperm(len(positions), generator=torch.Generator().manual_seed(seed))
    return positions[order[:SAMPLE].to(positions.device)].cpu()


def k_means(sample: torch.Tensor, number: int, seed: int = 0) -> torch.Tensor:
    """Find centroids.

    Args:
        sample: Features, shape ``(P, C)``.
        number: How many, M.
        seed: Seed of the clustering.

    Returns:
        Shape ``(M, C)``.
    """
    means = MiniBatchKMeans(number, n_init=3, batch_size=4096, random_state=seed).fit(sample.numpy())
    return torch.from_numpy(means.cluster_centers_)


def nearest_centroid(features: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """Index of the nearest centroid of each of several clusterings at each position.

    Args:
        features: Shape ``(N, C, H, W)``.
        centroids: Shape ``(B, M, C)``.

    Returns:
        Shape ``(N, B, H, W)``.
    """
    parts = compare_in_parts(features.flatten(2), centroids.flatten(0, 1).T)
    nearest = [part.unflatten(2, centroids.shape[:2]).argmin(dim=3) for part in parts]
    return torch.cat(nearest, dim=1).transpose(1, 2).unflatten(2, features.shape[2:])

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Anomaly measurement: how far features lie from the Gaussian of k references (paper section 3.6)."""

from collections.abc import Iterator

import torch

PART = 1024  # features that are compared at a time: fresh memory for all of them would cost more than the products


def mahalanobis(features: torch.Tensor, references: torch.Tensor, weights: torch.Tensor, eps: float) -> torch.Tensor:
    """Mahalanobis distance to the Gaussian of a few references at each position (equations 11 and 12).

    The covariance has rank k - 1 plus ``eps`` times the identity, so by Woodbury's identity the distance needs inner
    products of the k centred references only, and never a C x C matrix.

    Args:
        features: Shape ``(..., C, P)``, P positions.
        references: k references, shape ``(..., k, C, P)``.
        weights: 1 for a reference that counts and 0 for one that does not, shape ``(..., k)``; not all 0.
        eps: Regularisation of the covariance.

    Returns:
        Distances, shape ``(..., P)``.
    """
    weights = weights[..., None, None]
    total = weights.sum(dim=-3, keepdim=True).clamp_min(1)
    mean = (references * weights).sum(dim=-3, keepdim=True) / total
    centred = (references - mean) * weights
    residual = features.unsqueeze(-3) - mean
    noise = eps * (total - 1).clamp_min(1).squeeze(-3).squeeze(-2)  # of shape (..., 1), like a position
    gram = [[(a * b).sum(dim=-2) for b in centred.unbind(-3)] for a in centred.unbind(-3)]
    projections = [(a * residual.squeeze(-3)).sum(dim=-2) for a in centred.unbind(-3)]
    explained = _quadratic_form(gram, projections, noise)
    squared = (residual.squeeze(-3).square().sum(dim=-2) - explained) / eps
    return squared.clamp_min(0).sqrt()


def _quadratic_form(gram: list[list[torch.Tensor]], vector: list[torch.Tensor], diagonal: torch.Tensor) -> torch.Tensor:
    """Solve b' (G + d I)^-1 b by elimination; G has as many rows as there are references."""
    size = len(vector)
    matrix = [[gram[i][j] + (diagonal if i == j else 0.0) for j in range(size)] for i in range(size)]
    vector = list(vector)
    result = torch.zeros_like(vector[0])
    for i in range(size):
        result = result + vector[i].square() / matrix[i][i]
        for j in range(i + 1, size):
            factor = matrix[i][j] / matrix[i][i]
            vector[j] = vector[j] - factor * vector[i]
            for m in range(j, size):
                matrix[j][m] = matrix[j][m] - factor * matrix[i][m]
    return result


def nearest_distance(features: torch.Tensor, references: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Distance to the nearest feature anywhere in any reference that counts (ours; for objects that turn).

    Args:
        features: Shape ``(..., C, P)``.
        references: Shape ``(..., k, C, P)``.
        weights: 1 for a reference that counts and 0 for one that does not, shape ``(..., k)``.

    Returns:
        Distances, shape ``(..., P)``.
    """
    # One product for each reference: its P x P values stay in the cache.
    squared = torch.stack([_nearest(features, reference) for reference in references.unbind(-3)])
    counts = torch.stack(weights.unbind(-1)).unsqueeze(-1) > 0
    # What does not count is as far as the farthest, which no number format is too small for.
    nearest = torch.where(counts, squared, squared.amax(dim=0)).amin(dim=0)
    return _distance(features, nearest)


def nearest_point(features: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Distance to the nearest of a set of points.

    Args:
        features: Shape ``(..., C, P)``.
        points: Shape ``(..., C, Q)``.

    Returns:
        Distances, shape ``(..., P)``.
    """
    return _distance(features, _nearest(features, points))


def compare_in_parts(features: torch.Tensor, points: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield ``|p|² - 2 f·p``, which orders points by their distance to a feature, for some features at a time.

    Args:
        features: Shape ``(..., C, P)``.
        points: Shape ``(..., C, Q)``.

    Yields:
        Matrix products of shape ``(..., p, Q)``, which stay in the cache; the parts ``p`` make up P.
    """
    left = torch.cat([-2 * features, torch.ones_like(features[..., :1, :])], dim=-2).transpose(-1, -2)
    right = torch.cat([points, points.square().sum(dim=-2, keepdim=True)], dim=-2)
    for part in left.split(PART, dim=-2):
        yield part @ right


def _nearest(features: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Least ``|p|² - 2 f·p`` over the points, shape ``(..., P)``."""
    return torch.cat([part.amin(dim=-1) for part in compare_in_parts(features, points)], dim=-1)


def _distance(features: torch.Tensor, nearest: torch.Tensor) -> torch.Tensor:
    return (nearest + features.square().sum(dim=-2)).clamp_min(0).sqrt()

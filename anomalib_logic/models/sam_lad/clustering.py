# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""K-means of feature maps, and to which centroids positions belong."""

from collections.abc import Sequence

import torch
from sklearn.cluster import MiniBatchKMeans

from .measurement import PART, compare_in_parts
from .median import lower_median

SAMPLE = 40_000  # positions that are clustered, at most
REGIONS = 2  # along one side of the image
CELLS = 8  # as well, a multiple of REGIONS: smaller regions, of which exchanged windows are made


def deviation_from_median(features: torch.Tensor) -> torch.Tensor:
    """How far features are from their median over the images at the same position, shape ``(Z, H, W)``.

    Args:
        features: Shape ``(Z, C, H, W)``.
    """
    median = torch.cat([lower_median(channels) for channels in features.split(8, dim=1)])
    return torch.stack([(image - median).square().sum(dim=0).sqrt() for image in features])


def sample_features(features: torch.Tensor, seed: int = 0, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Draw features of random positions, as many as ``SAMPLE`` at most, none twice.

    Args:
        features: Shape ``(Z, C, H, W)``.
        seed: Seed of the choice.
        weights: What the chances of the positions are proportional to, shape ``(Z, H, W)``; equal by default.

    Returns:
        Shape ``(P, C)``, on the CPU.
    """
    size = features.shape[2] * features.shape[3]
    generator = torch.Generator().manual_seed(seed)
    if weights is None:
        order = torch.randperm(len(features) * size, generator=generator)[:SAMPLE]
    else:
        # The largest of these keys are a weighted sample (Efraimidis and Spirakis, 2006).
        keys = torch.rand(weights.numel(), generator=generator).log() / weights.flatten().cpu().clamp_min(1e-12)
        order = keys.topk(min(SAMPLE, len(keys))).indices
    order = order.to(features.device)
    return features.flatten(2)[order // size, :, order % size].cpu()


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


def assign(
    features: torch.Tensor, centroids: torch.Tensor, temperatures: torch.Tensor, side: int = REGIONS
) -> tuple[torch.Tensor, torch.Tensor]:
    """Assign each position to the centroids of several clusterings: to the nearest one, and softly to all.

    Args:
        features: Shape ``(N, C, H, W)``.
        centroids: Shape ``(B, M, C)``.
        temperatures: Squared distance by which a centroid has to be farther for its share to fall to ``1 / e``, shape
            ``(B,)``.
        side: Number of regions along a side of the image, R of them in all, see :func:`regions_of`.

    Returns:
        Index of the nearest, shape ``(N, B, H, W)``, and the share of the image that is each centroid's, by region,
        shape ``(N, R, B, M)``: all of a clustering sum up to 1.
    """
    regions = regions_of(features.shape[2:], features.device, side)
    members = torch.stack([regions.flatten() == i for i in range(side**2)]).to(features.dtype)
    nearest, shares = [], []
    parts = compare_in_parts(features.flatten(2), centroids.flatten(0, 1).T)
    for part, inside in zip(parts, members.split(PART, dim=1), strict=True):
        distances = part.unflatten(2, centroids.shape[:2])
        nearest.append(distances.argmin(dim=3))
        shares.append(inside @ (-distances / temperatures.unsqueeze(1)).softmax(dim=3).flatten(2))
    words = torch.cat(nearest, dim=1).transpose(1, 2).unflatten(2, features.shape[2:])
    return words, torch.stack(shares).sum(dim=0).unflatten(2, centroids.shape[:2]) / regions.numel()


def regions_of(size: Sequence[int], device: torch.device | None = None, side: int = REGIONS) -> torch.Tensor:
    """Index of the region of each position, shape ``(H, W)``.

    Args:
        size: H and W.
        device: Of the result.
        side: The image is cut into so many rows and as many columns of regions.
    """
    height, width = size
    rows = torch.arange(height, device=device) * side // height
    columns = torch.arange(width, device=device) * side // width
    return rows.unsqueeze(1) * side + columns

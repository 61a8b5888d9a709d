# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Object proposals: their interface, connected regions, calibration of areas, and segments from clustered features."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from .clustering import deviation_from_median, k_means, nearest_centroid, sample_features

logger = logging.getLogger(__name__)

CLUSTER_NUMBERS = (2, 4, 6, 8, 12)


class Objects(NamedTuple):
    """Objects of images in a fixed number of slots, the best first.

    Attributes:
        masks: 1 inside the object, shape ``(N, K, H, W)``; 0 in empty slots.
        scores: Shape ``(N, K)``; 0 in empty slots.
        valid: Which slots hold an object, booleans of shape ``(N, K)``.
        found: Number of objects found, which can be more than K, shape ``(N,)``.
    """

    masks: torch.Tensor
    scores: torch.Tensor
    valid: torch.Tensor
    found: torch.Tensor


def connected_regions(mask: torch.Tensor, iterations: int = 12) -> torch.Tensor:
    """Label the connected regions (8 neighbours) of masks, in a fixed number of tensor operations.

    A label is the index of a pixel of the same region, at first of the pixel itself. In each step every pixel offers
    the largest label around it to the pixel that its label names, and then takes the label which that one has. So
    regions grow together as trees do, in about as many steps as the logarithm of their length. Labels are integers,
    which stay exact where a runtime computes in half precision.

    Args:
        mask: Booleans of shape ``(N, H, W)``.
        iterations: Steps; a region that would need more comes out in several parts.

    Returns:
        Index of one pixel of the region plus one, 0 outside, integers of shape ``(N, H, W)``.
    """
    number, height, width = mask.shape
    inside = mask.int()
    labels = (torch.arange(height * width, device=mask.device, dtype=inside.dtype) + 1).view(1, height, width) * inside
    for _ in range(iterations):
        around = (_largest_around(labels) * inside).flatten(1)
        named = (labels.flatten(1) - 1).clamp_min(0).long()
        with _order_does_not_matter():
            labels = labels.flatten(1).scatter_reduce(1, named, around, "amax")
        labels = labels.gather(1, (labels - 1).clamp_min(0).long()).view(number, height, width) * inside
    return labels


def _largest_around(labels: torch.Tensor) -> torch.Tensor:
    """Maximum over windows of 3 x 3; not every runtime pools integers."""
    for dimension, padding in ((2, (1, 1)), (1, (0, 0, 1, 1))):
        size = labels.shape[dimension]
        padded = F.pad(labels, padding)
        before, after = padded.narrow(dimension, 0, size), padded.narrow(dimension, 2, size)
        labels = torch.maximum(labels, torch.maximum(before, after))
    return labels


@contextmanager
def _order_does_not_matter() -> Iterator[None]:
    """Allow what torch refuses on CUDA in deterministic mode though it is deterministic: the maximum of integers."""
    if not torch.are_deterministic_algorithms_enabled():
        yield
        return
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=warn_only)


def largest_regions(labels: torch.Tensor, slots: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks of the largest regions.

    Args:
        labels: Result of :func:`connected_regions`, shape ``(N, H, W)``.
        slots: Number of regions, K.

    Returns:
        Masks as floats, shape ``(N, K, H, W)``, and areas as shares of the image, shape ``(N, K)``, largest first, of
        equal ones that of the least label.
    """
    flat = labels.flatten(1).long()
    counts = F.pad(torch.zeros_like(flat), (0, 1)).scatter_add(1, flat, torch.ones_like(flat))[:, 1:]
    counts = F.pad(counts, (0, max(0, slots - counts.shape[1])))
    # Runtimes differ in which of equal values comes first, so none are equal. Some compute in 32 bits.
    number = counts.shape[1]
    last_first = torch.arange(number - 1, -1, -1, device=counts.device)
    index = (counts.clamp_max(2**31 // number - 1) * number + last_first).topk(slots, dim=1).indices
    masks = (labels.unsqueeze(1) == (index + 1).to(labels.dtype)[..., None, None]).float()
    return masks, counts.gather(1, index) / flat.shape[1]


def calibrate_areas(areas: torch.Tensor, given: Sequence[float] | None = None) -> tuple[float, float, float]:
    """Find the range of areas that makes the number of objects most constant over normal images (ours).

    Args:
        areas: Shares of the image, 0 in empty slots, shape ``(Z, K)``.
        given: The range, if it is known.

    Returns:
        Least and largest area, and the variation that they give: the number's standard deviation plus a half,
        divided by its mean. The half is the resolution of a count, and makes five steady objects better than one.
    """
    lowest, highest = given or (0.0, 1.0)
    best = (float("inf"), lowest, highest)
    for least in (1e-3, 2e-3, 3e-3, 5e-3, 1e-2, 2e-2, 5e-2) if given is None else (lowest,):
        for largest in (0.02, 0.05, 0.1, 0.2, 0.4) if given is None else (highest,):
            counts = ((areas >= least) & (areas <= largest)).float().sum(dim=1)
            if least < largest and bool(counts.any()):
                variation = ((counts.std(correction=0) + 0.5) / counts.mean()).item()
                # Of equally good ranges the widest: the first least area and the last largest one.
                if variation < best[0] or (variation == best[0] and least == best[1]):
                    best = (variation, least, largest)
    variation, least, largest = best
    return least, largest, variation


class ClusterSegments(nn.Module):
    """Objects from clustered features of the normal images, without any further network (ours).

    K-means clusters the features of the normal images. Clusters whose features differ least from the typical feature at
    their position (the median over the normal images) are background; the connected regions of all others are the
    objects. Number of clusters and range of areas are those with which the number of objects varies least over the
    normal images.

    Args:
        channels: Channels of the features, C.
        slots: Most objects of an image, K.
        clusters: Number of clusters; by default one of ``CLUSTER_NUMBERS``.
        area_range: Least and largest object as shares of the image; calibrated by default.
    """

    def __init__(
        self,
        channels: int,
        slots: int = 16,
        clusters: int | None = None,
        area_range: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.slots = slots
        self.clusters = clusters
        self.area_range = area_range
        most = max(CLUSTER_NUMBERS) if clusters is None else clusters
        self.register_buffer("centroids", torch.zeros(most, channels))
        self.register_buffer("foreground", torch.zeros(most))
        self.register_buffer("areas", torch.tensor([0.0, 1.0]))

    def forward(self, images: torch.Tensor, features: torch.Tensor) -> Objects:
        """Find the objects of images.

        Args:
            images: Not used: what is needed of them is in the features.
            features: Standardised features, shape ``(N, C, H, W)``.

        Returns:
            Objects; their score is their area as a share of the image.
        """
        del images
        masks, areas = self._regions(features)
        accepted = (areas >= self.areas[0]) & (areas <= self.areas[1]) & (areas > 0)
        # Accepted regions first, in their order, which is largest first.
        last_first = torch.arange(areas.shape[1], 0, -1, device=areas.device)
        order = (accepted * last_first).topk(self.slots, dim=1).indices
        scores = (areas * accepted).gather(1, order)
        masks = masks.gather(1, order[..., None, None].expand(-1, -1, *masks.shape[2:]))
        valid = scores > 0
        return Objects(masks * valid[..., None, None], scores, valid, accepted.sum(dim=1))

    def _regions(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        foreground = self.foreground[nearest_centroid(features, self.centroids[None])[:, 0]] > 0
        return largest_regions(connected_regions(foreground), 2 * self.slots)

    @torch.no_grad()
    def fit(self, images: torch.Tensor, features: torch.Tensor, seed: int = 0) -> None:
        """Cluster the features of normal images and calibrate the areas.

        Args:
            images: Not used.
            features: Standardised features of a sample of the normal images, shape ``(Z, C, H, W)``.
            seed: Seed of the clustering.
        """
        del images
        sample = sample_features(features, seed)
        deviation = deviation_from_median(features)
        best = None
        for number in CLUSTER_NUMBERS if self.clusters is None else (self.clusters,):
            self.centroids[:number] = k_means(sample, number, seed).to(self.centroids)
            self.centroids[number:] = self.centroids[0]  # of equal ones it does not matter which is the nearest
            self._separate_foreground(features, deviation, number)
            areas = torch.cat([self._regions(part)[1] for part in features.split(8)])
            least, largest, cost = calibrate_areas(areas, self.area_range)
            # Of equally good ones the finest: with few clusters, compartments pass for the objects in them.
            if best is None or cost <= best[0] + 1e-6:
                best = (cost, number, self.centroids.clone(), self.foreground.clone(), least, largest)
        assert best is not None  # there is at least one number of clusters
        _, number, centroids, foreground, least, largest = best
        self.centroids.copy_(centroids)
        self.foreground.copy_(foreground)
        self.areas.copy_(torch.tensor((least, largest)))
        logger.info("segments: %d clusters, %d of them foreground", number, int(foreground.sum()))

    def _separate_foreground(self, features: torch.Tensor, deviation: torch.Tensor, number: int) -> None:
        """Mark the clusters above the widest gap between the clusters' mean deviations from the median."""
        parts = features.split(8)
        nearest = torch.cat([nearest_centroid(part, self.centroids[None, :number]).flatten() for part in parts])
        deviation = deviation.flatten()
        members = [deviation[nearest == i] for i in range(number)]
        means = torch.stack([some.sum() / max(1, len(some)) for some in members])
        ordered = means.sort().values
        gap = ordered.diff().argmax()
        self.foreground[:number] = (means > (ordered[gap] + ordered[gap + 1]) / 2).to(self.foreground)
        self.foreground[number:] = self.foreground[0]

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Windows of the image compared with about the same place of normal images (ours)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch.nn import functional as F

from ..bank import Template
from ..comparison import Comparison
from ..encoder import Found, Maps
from ..whitening import inverse_power
from .score import Measured, Score

WINDOW = (3, 5)  # least and greatest height and width of windows, in positions of the coarse features: a third of all
SHIFT = 1  # windows of normal images lie so many positions away, at most
COMPONENTS = 64  # principal components of windows that are compared, D
SAMPLE = 1000  # windows that they are computed of, about
SHRINKAGE = 0.1  # of the differences' covariance, towards equal variances
PART = 25  # normal images that are compared at a time, in memory that stays in the cache
FLOOR = 0.5  # share of the average distance, added to that of each place: how much of a difference counts anywhere


class Place(Score):
    """Distances of windows of coarse features to the nearest of normal images in about the same place.

    What is compared are principal components: most of what a window's features have besides them is noise. Distances
    are Mahalanobis distances, by the covariance of differences of normal windows from their nearest ones: directions
    in which the same part differs from image to image count less. Where the sample has fewer than ``COMPONENTS``, there
    is more to see: the length of the remainder is compared as well, and distances are Euclidean.
    Each window has its own nearest image, of all that are alike: two parts of one image may be like those of two.

    Args:
        side: Height and width of the maps.
        grid: Height and width of the coarse features.
        channels: Number of their channels, C.

    Attributes:
        components: Principal components, scaled and turned so that Euclidean distances are what is compared, shape
            ``(D, C, h, w)`` of a window; zeros if the sample's windows have fewer.
        mean_window: Mean window, which is subtracted, shape ``(C, h, w)``.
        remainder: 1 where the remainder counts, otherwise 0.
    """

    finding = "what is at a place"
    IMAGES: ClassVar[Mapping[str, torch.dtype]] = {"windows": torch.half}

    def __init__(self, side: int, grid: tuple[int, int], channels: int) -> None:
        super().__init__(side, grid)
        height, width = (min(max(WINDOW[0], round(length / 3)), WINDOW[1], length) for length in grid)
        rows, columns = grid[0] - height + 1, grid[1] - width + 1
        top, left = (height - 1) // 2, (width - 1) // 2
        self.border = (left, width - 1 - left, top, height - 1 - top)
        self.register_buffer("components", torch.zeros(COMPONENTS, channels, height, width))
        self.register_buffer("mean_window", torch.zeros(channels, height, width))
        self.register_buffer("remainder", torch.tensor(1.0))
        self.register_buffer("partners", _partners(rows, columns), persistent=False)

    def prepare(self, features: torch.Tensor, coarse: torch.Tensor, seed: int) -> Template:
        """Principal components of the sample's windows, and how normal windows differ from their nearest ones."""
        del features
        mean, directions = principal_components(_draw_windows(coarse, self.components.shape[2:], seed), COMPONENTS)
        self.mean_window.copy_(mean.view_as(self.mean_window))
        self.remainder.fill_(float(not directions[:, -1].any()))
        if not self.remainder and len(coarse) > 1:
            coarse = coarse.cpu()  # so that the components are the same on all devices
            differences = nearest_differences(F.conv2d(coarse, directions.T.view_as(self.components).to(coarse)))
            differences = differences.double()
            directions = directions @ inverse_power(differences.T @ differences, 1 / 2, SHRINKAGE)
        self.components.copy_(directions.T.view_as(self.components))
        return {}

    def keep(self, maps: Maps, found: Found) -> Template:
        """Components of all windows that lie in the image, and the length of what they leave out."""
        del found
        mean = self.mean_window.unsqueeze(0)
        windows = F.conv2d(maps.coarse, self.components, -(self.components * mean).sum(dim=(1, 2, 3)))
        # Not of the squares' sum: OpenVINO computes a convolution of one channel wrongly in small oblong images.
        squares = F.conv2d(maps.coarse.square(), torch.ones_like(mean))
        lengths = squares - F.conv2d(maps.coarse, 2 * mean) + mean.square().sum()
        remainder = self.remainder * (lengths - windows.square().sum(dim=1, keepdim=True)).clamp_min(0).sqrt()
        return {"windows": torch.cat([windows, remainder], dim=1)}

    def measure(self, compared: Comparison) -> Measured:
        """Distance of each window; positions at the border have that of the next one."""
        windows = compared.query["windows"]
        _, _, height, width = windows.shape
        padded = F.pad(windows, (SHIFT,) * 4)
        steps = range(2 * SHIFT + 1)
        shifted = torch.stack([padded[..., y : y + height, x : x + width] for y in steps for x in steps], dim=-1)
        shifted = shifted.flatten(2, 3).transpose(1, 2)  # (N, P, D, shifts)
        parts = []
        for alike in compared.alike.split(PART, dim=1):
            normal = compared.bank.get("windows", alike).flatten(3).permute(0, 3, 1, 2)  # (N, P, A, D)
            parts.append((normal.square().sum(dim=3, keepdim=True) - 2 * normal @ shifted).amin(dim=2))
        nearest = torch.stack(parts).amin(dim=0)  # at the normal images' places
        nearest = nearest.flatten(1)[:, self.partners].amin(dim=2)  # at the query's places
        squared = nearest.unflatten(1, (height, width)) + windows.square().sum(dim=1)
        distances = squared.clamp_min(0).sqrt()
        return Measured(F.pad(distances.unsqueeze(1), self.border, mode="replicate").squeeze(1))

    def typical(self, maps: torch.Tensor) -> torch.Tensor:
        """Mean at each place, and the floor."""
        places = maps.mean(dim=0)
        return places + FLOOR * places.mean()


def _partners(height: int, width: int) -> torch.Tensor:
    """Where the shifted windows' distances are that belong to a window.

    Args:
        height, width: Numbers of windows.

    Returns:
        Of each window, and each shift, an index into ``(windows of normal images, shifts)``; those that would lie
        outside the image are replaced by the one that is not shifted.
    """
    y, x = (v.flatten().unsqueeze(1) for v in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    steps = 2 * SHIFT + 1
    shift = torch.arange(steps**2)
    row, column = y - (shift // steps - SHIFT), x - (shift % steps - SHIFT)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    own = (y * width + x) * steps**2 + steps**2 // 2
    return torch.where(inside, (row * width + column) * steps**2 + shift, own)


def _draw_windows(coarse: torch.Tensor, size: Sequence[int], seed: int) -> torch.Tensor:
    """Draw windows, equally many of each image, shape ``(about SAMPLE, C * h * w)``."""
    generator = torch.Generator().manual_seed(seed)
    number, drawn = -(-SAMPLE // len(coarse)), []
    for image in coarse.split(1):
        windows = F.unfold(image, tuple(size))[0].T
        drawn.append(windows[torch.randperm(len(windows), generator=generator)[:number].to(windows.device)])
    return torch.cat(drawn)


def nearest_differences(windows: torch.Tensor) -> torch.Tensor:
    """Differences of windows from the nearest ones of other images in about the same place.

    Args:
        windows: Components of normal windows, of at least two images, shape ``(Z, D, h, w)``.

    Returns:
        Shape ``(Z * h * w, D)``.
    """
    height, width = windows.shape[2:]
    padded = F.pad(windows, (SHIFT,) * 4, value=torch.inf)  # is nearest to nothing
    steps = range(2 * SHIFT + 1)
    results = []
    for i, image in enumerate(windows):
        others = torch.cat([padded[:i], padded[i + 1 :]])
        shifted = (others[..., y : y + height, x : x + width] for y in steps for x in steps)
        results.append(_least(torch.cat([_least(image - other) for other in shifted])))
    return torch.cat(results).permute(0, 2, 3, 1).flatten(0, 2)


def _least(differences: torch.Tensor) -> torch.Tensor:
    """Shortest one at each place, shape ``(1, D, h, w)``, of shape ``(A, D, h, w)``."""
    index = differences.square().sum(dim=1, keepdim=True).argmin(dim=0, keepdim=True)
    return differences.gather(0, index.expand(-1, *differences.shape[1:]))


def principal_components(points: torch.Tensor, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of points, and the directions in which they vary most.

    Args:
        points: Shape ``(Q, C)``, fewer than channels: their inner products are decomposed, in a tenth of the time of a
            singular value decomposition.
        number: How many directions, D.

    Returns:
        Mean of shape ``(C,)``, and unit vectors of shape ``(C, D)``, zero where the points do not vary any more; in
        double precision on the CPU, so that they are the same on all devices.
    """
    points = points.cpu().double()
    mean = points.mean(dim=0)
    centred = points - mean
    variances, weights = torch.linalg.eigh(centred @ centred.T)
    variances, weights = variances.flip(0)[:number], weights.flip(1)[:, :number]
    some = variances > 1e-9 * variances[0].clamp_min(1e-9)
    directions = centred.T @ weights * torch.where(some, variances.clamp_min(1e-18).rsqrt(), 0)
    return mean, F.pad(directions, (0, number - directions.shape[1]))

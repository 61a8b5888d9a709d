# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Composition of an image, and of its regions: how much of what they show (ours, not the paper's)."""

from collections.abc import Mapping
from typing import ClassVar

import torch

from anomalib_logic.models.components.upsampling import pick

from ..bank import Template
from ..clustering import CELLS, REGIONS, assign, deviation_from_median, k_means, sample_features
from ..encoder import Found, Maps
from ..measurement import nearest_point
from .amounts import POWER, WORDS, Amounts, exchange_windows

SOFTNESS = 0.25  # temperature of the assignment, in units of the clusters' mean squared distance to their centroid
CLUSTERINGS = 8  # B


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

    def prepare(self, features: torch.Tensor, coarse: torch.Tensor, seed: int) -> Template:
        """Cluster the features, and exchange windows of the sample's images."""
        del coarse
        clusterings, words, _ = self.centroids.shape
        deviation = deviation_from_median(features)
        everywhere = sample_features(features, seed).T
        for i in range(clusterings):
            centroids = k_means(sample_features(features, seed + i, deviation), words, seed + i)
            distances = nearest_point(everywhere, centroids.T)
            self.centroids[i] = centroids
            self.temperatures[i] = (SOFTNESS * distances.square().mean()).clamp_min(1e-6)
        cells = [assign(image, self.centroids, self.temperatures, CELLS)[1] for image in features.split(1)]
        unchanged, exchanged = exchange_windows(torch.cat(cells), seed)
        return {"unchanged": unchanged, "exchanged": exchanged}

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

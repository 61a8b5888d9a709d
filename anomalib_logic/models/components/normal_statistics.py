# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Statistics over normal images, and scaling by them."""

from collections.abc import Sequence

import torch
from torch import nn


class NormalStatistics(nn.Module):
    """Mean and standard deviation of some quantities over normal images.

    Sums are collected in double precision, added up over processes and turned into statistics by :meth:`finalize`.
    The statistics are buffers, so they travel in checkpoints and exported graphs; the sums do not. Until there are
    statistics, scaling by them changes nothing.

    Args:
        size: Number of quantities.

    Attributes:
        mean: Mean of each quantity, shape ``(size,)``.
        std: Standard deviation of each quantity, shape ``(size,)``.
        measured: Whether the statistics were measured, a boolean scalar.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.register_buffer("measured", torch.tensor(False))
        self.register_buffer("_sums", torch.zeros(3, size, dtype=torch.float64), persistent=False)

    def reset(self) -> None:
        """Forget the sums collected so far; the statistics stay."""
        self._sums.zero_()

    @torch.no_grad()
    def _add(self, values: Sequence[torch.Tensor]) -> None:
        """Add values to the sums.

        Args:
            values: Tensors of shape ``(quantities, samples)``; together they have ``size`` quantities.
        """
        values = [value.detach().double() for value in values]
        counts = torch.cat([value.new_full((len(value),), value.shape[1]) for value in values])
        totals = torch.cat([value.sum(dim=1) for value in values])
        squares = torch.cat([value.square().sum(dim=1) for value in values])
        self._sums += torch.stack([counts, totals, squares])

    @torch.no_grad()
    def finalize(self) -> None:
        """Turn the sums of all processes into statistics and forget them; without sums the statistics stay."""
        sums = self._sums.clone()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        self.reset()
        count, total, squares = sums
        if bool((count > 0).all()):
            mean = total / count
            self.mean.copy_(mean)
            self.std.copy_((squares / count - mean.square()).clamp_min(0).sqrt().clamp_min(1e-6))
            self.measured.fill_(True)


class MapNormalization(NormalStatistics):
    """Scale each of several error maps by its own mean and standard deviation over all positions."""

    def update(self, maps: Sequence[torch.Tensor]) -> None:
        """Collect one batch: ``size`` maps of any shape with one value a position."""
        self._add([error.reshape(1, -1) for error in maps])

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Subtract each map's mean and divide by its standard deviation."""
        return [(error - self.mean[i]) / self.std[i] for i, error in enumerate(maps)]


class ChannelStandardization(NormalStatistics):
    """Scale each channel of a feature pyramid by its mean and standard deviation over all positions.

    Args:
        channels: Channels of the pyramid's maps.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__(sum(channels))
        self.channels = list(channels)

    def update(self, pyramid: Sequence[torch.Tensor]) -> None:
        """Collect one batch: maps of shapes ``(N, C_i, H_i, W_i)``."""
        self._add([features.transpose(0, 1).flatten(1) for features in pyramid])

    def forward(self, pyramid: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Standardise maps of shapes ``(N, C_i, H_i, W_i)``."""
        means = self.mean.view(1, -1, 1, 1).split(self.channels, dim=1)
        stds = self.std.view(1, -1, 1, 1).split(self.channels, dim=1)
        return [(features - mean) / std for features, mean, std in zip(pyramid, means, stds, strict=True)]

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Statistics over normal images, and scaling by them."""

from collections.abc import Sequence

import torch
from torch import nn


class NormalStatistics(nn.Module):
    """Mean and standard deviation of some quantities over normal images.

    Batches are collected, and combined over batches and processes by :meth:`finalize`. The statistics are buffers, so
    they travel in checkpoints and exported graphs; the collected batches do not. Until there are statistics, scaling by
    them changes nothing.

    Args:
        size: Number of quantities.
        used: Which of them are measured; the others keep mean 0 and deviation 1. All by default.

    Attributes:
        mean: Mean of each quantity, shape ``(size,)``.
        std: Standard deviation of each quantity, shape ``(size,)``.
        measured: Whether the statistics were measured, a boolean scalar.
    """

    def __init__(self, size: int, used: Sequence[int] | None = None) -> None:
        super().__init__()
        self.used = list(range(size)) if used is None else list(used)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.register_buffer("measured", torch.tensor(False))
        self._batches: list[torch.Tensor] = []

    def reset(self) -> None:
        """Forget the batches collected so far; the statistics stay."""
        self._batches.clear()

    @torch.no_grad()
    def _collect(self, values: Sequence[torch.Tensor]) -> None:
        """Collect count, mean and variance of a batch, on its device and without waiting for it.

        Args:
            values: Tensors of shape ``(quantities, samples)``; together they have the quantities that are used.
        """
        moments = [torch.var_mean(value.detach().float(), dim=1, correction=0) for value in values]
        counts = [mean.new_full(mean.shape, value.shape[1]) for value, (_, mean) in zip(values, moments, strict=True)]
        variances, means = zip(*moments, strict=True)
        self._batches.append(torch.stack([torch.cat(counts), torch.cat(means), torch.cat(variances)]))

    @torch.no_grad()
    def finalize(self) -> None:
        """Turn what all processes collected into statistics and forget it; if that is nothing, the statistics stay."""
        batches = torch.stack(self._batches).cpu() if self._batches else torch.zeros(1, 3, len(self.used), device="cpu")
        self.reset()
        # Double precision on the host only: MPS and Intel Arc have none.
        count, mean, variance = batches.double().unbind(dim=1)
        sums = torch.stack([count, count * mean, count * (variance + mean.square())]).sum(dim=1)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            shares: list[torch.Tensor] = [sums] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(shares, sums)
            sums = torch.stack(shares).sum(dim=0)
        total, first, second = sums
        if bool((total > 0).all()):
            mean = first / total
            std = (second / total - mean.square()).clamp_min(0).sqrt().clamp_min(1e-6)
            for buffer, value in ((self.mean, mean), (self.std, std)):
                values = buffer.cpu()  # where some devices have no indexed assignment
                values[self.used] = value.float()
                buffer.copy_(values)
            self.measured.fill_(True)


class MapNormalization(NormalStatistics):
    """Scale each of several error maps by its own mean and standard deviation over all positions."""

    def update(self, maps: Sequence[torch.Tensor]) -> None:
        """Collect one batch: the maps that are used, of any shape with one value a position."""
        self._collect([error.reshape(1, -1) for error in maps])

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Subtract each map's mean and divide by its standard deviation."""
        return [(error - self.mean[i]) / self.std[i] for i, error in zip(self.used, maps, strict=True)]


class ChannelStandardization(NormalStatistics):
    """Scale each channel of a feature pyramid by its mean and standard deviation over all positions.

    A channel that hardly varies over the normal images (a dead one) would make the slightest response to anything else
    count without bound. So no channel is taken to vary less than ``FLOOR`` times the average channel of its map.

    Args:
        channels: Channels of the pyramid's maps.
    """

    FLOOR = 0.1

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__(sum(channels))
        self.channels = list(channels)

    def update(self, pyramid: Sequence[torch.Tensor]) -> None:
        """Collect one batch: maps of shapes ``(N, C_i, H_i, W_i)``."""
        self._collect([features.transpose(0, 1).flatten(1) for features in pyramid])

    def finalize(self) -> None:
        """Turn what all processes collected into statistics, with a floor under the standard deviations."""
        super().finalize()
        for std in self.std.split(self.channels):
            std.clamp_min_(self.FLOOR * std.mean())

    def forward(self, pyramid: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Standardise maps of shapes ``(N, C_i, H_i, W_i)``."""
        means = self.mean.view(1, -1, 1, 1).split(self.channels, dim=1)
        stds = self.std.view(1, -1, 1, 1).split(self.channels, dim=1)
        return [(features - mean) / std for features, mean, std in zip(pyramid, means, stds, strict=True)]

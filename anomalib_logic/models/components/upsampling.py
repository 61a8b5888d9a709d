# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Up-sampling of feature maps: bilinear, or FeatUp's joint bilateral up-sampler (https://arxiv.org/abs/2403.10516)."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from .frozen import Frozen
from .weights import read_state_dict, shorten, watch_loading

FACTORS = (1, 2, 4, 8, 16, 32)
RADIUS = 3
DIAMETER = 2 * RADIUS + 1
NORM_PREFIX = "model.1.norm."


def check_factor(factor: int) -> int:
    """Return ``factor`` if features can be up-sampled by it.

    Raises:
        ValueError: If it is none of ``FACTORS``.
    """
    if factor not in FACTORS:
        msg = f"upsample must be one of {FACTORS}, got {factor}"
        raise ValueError(msg)
    return factor


def resize(features: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize maps bilinearly; to a smaller size by the average over what falls into a position.

    Args:
        features: Shape ``(N, C, H, W)``.
        size: Height and width of the result.
    """
    if features.shape[2] > size[0] or features.shape[3] > size[1]:
        return average_pool(features, size)
    return F.interpolate(features, size, mode="bilinear", align_corners=False)


def pick(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize maps of labels: each position of the result takes the one that its upper left corner falls into.

    Not ``F.interpolate(mode="nearest")``: runtimes disagree on its positions where they are whole numbers.

    Args:
        maps: Shape ``(..., H, W)``.
        size: Height and width of the result.
    """
    rows, columns = (
        torch.arange(result, device=maps.device) * length // result
        for length, result in zip(maps.shape[-2:], size, strict=True)
    )
    return maps.index_select(-2, rows).index_select(-1, columns)


def average_pool(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Adaptive average pooling as two matrix products, which exports for every ratio of sizes.

    Args:
        images: Shape ``(N, C, H, W)``.
        size: Height and width of the result.
    """
    rows = _pooling_matrix(images.shape[2], size[0]).to(images)
    columns = _pooling_matrix(images.shape[3], size[1]).to(images)
    # In three dimensions: OpenVINO's CPU plug-in (2026.4) cannot compile a product in four that is scaled by channel.
    pooled = rows @ images.flatten(0, 1) @ columns.T
    return pooled.unflatten(0, (-1, images.shape[1]))


def _pooling_matrix(length: int, result: int) -> torch.Tensor:
    index = torch.arange(result).unsqueeze(1)
    first, last = index * length // result, -(-(index + 1) * length // result)
    position = torch.arange(length)
    return ((position >= first) & (position < last)) / (last - first)


class JbuStage(nn.Module):
    """One doubling: a learned 7 x 7 kernel a position, from how alike the image is around it.

    Parameter names are FeatUp's. No tensor of more than (C + 49 + 2 x 32) x H x W values is made: the kernel's 49
    places are added up one by one.
    """

    def __init__(self, keys: int = 32) -> None:
        super().__init__()
        area = DIAMETER**2
        self.range_temp = nn.Parameter(torch.tensor(0.0))
        self.sigma_spatial = nn.Parameter(torch.tensor(1.0))
        self.range_proj = nn.Sequential(nn.Conv2d(3, keys, 1), nn.GELU(), nn.Dropout2d(0.1), nn.Conv2d(keys, keys, 1))
        self.fixup_proj = nn.Sequential(
            nn.Conv2d(3 + area, area, 1), nn.GELU(), nn.Dropout2d(0.1), nn.Conv2d(area, area, 1)
        )

    def forward(self, source: torch.Tensor, guidance: torch.Tensor) -> torch.Tensor:
        """Filter the bicubically resized source with the kernels.

        Args:
            source: Features, shape ``(N, C, H, W)``.
            guidance: Image at the result's size, shape ``(N, 3, 2H, 2W)``.

        Returns:
            Shape ``(N, C, 2H, 2W)``.
        """
        kernel = self.kernel(guidance)
        resized = F.interpolate(source, guidance.shape[2:], mode="bicubic", align_corners=False)
        padded = F.pad(resized, [RADIUS] * 4, mode="reflect")
        result = torch.zeros_like(resized)
        for i, window in enumerate(_shifted(padded, guidance.shape[2:])):
            result = result + kernel[:, i : i + 1] * window
        return result

    def kernel(self, guidance: torch.Tensor) -> torch.Tensor:
        """Kernels of all positions, shape ``(N, 49, H, W)``, for guidance of shape ``(N, 3, H, W)``."""
        keys = self.range_proj(guidance)
        padded = F.pad(keys, [RADIUS] * 4, mode="reflect")
        alike = [(window * keys).sum(dim=1) for window in _shifted(padded, guidance.shape[2:])]
        temperature = self.range_temp.exp().clamp(1e-4, 1e4)
        range_kernel = torch.softmax(temperature * torch.stack(alike, dim=1), dim=1)
        ticks = torch.linspace(-1, 1, DIAMETER, device=guidance.device, dtype=guidance.dtype).square()
        spatial = torch.exp(-(ticks[:, None] + ticks) / (2 * self.sigma_spatial**2)).view(1, -1, 1, 1)
        kernel = range_kernel * spatial
        kernel = kernel / kernel.sum(dim=1, keepdim=True).clamp_min(1e-7)
        return kernel + 0.1 * self.fixup_proj(torch.cat([kernel, guidance], dim=1))


def _shifted(padded: torch.Tensor, size: Sequence[int]) -> list[torch.Tensor]:
    """The 49 views of a padded map, row by row of the kernel."""
    height, width = size
    return [padded[:, :, dy : dy + height, dx : dx + width] for dy in range(DIAMETER) for dx in range(DIAMETER)]


class JbuUpsampler(Frozen):
    """FeatUp's stack of joint bilateral up-samplers, frozen, in plain tensor operations.

    Args:
        channels: Channels of the features.
        factor: 1, 2, 4, 8, 16 or 32; beyond 16 the fourth stage is used again.
        norm: Apply a LayerNorm over channels first, as one of the published variants does.

    Raises:
        ValueError: If ``factor`` is another one.
    """

    def __init__(self, channels: int, factor: int = 8, norm: bool = False) -> None:
        super().__init__()
        self.steps = round(math.log2(check_factor(factor)))
        self.norm = nn.LayerNorm(channels) if norm else None
        self.up1, self.up2, self.up3, self.up4 = (JbuStage() for _ in range(4))
        self.fixup_proj = nn.Sequential(nn.Dropout2d(0.2), nn.Conv2d(channels, channels, 1))
        watch_loading(self)
        self.freeze()

    def forward(self, features: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Up-sample features under the guidance of their images.

        Args:
            features: Shape ``(N, C, H, W)``.
            images: Normalised images, shape ``(N, 3, h, w)``.

        Returns:
            Shape ``(N, C, factor H, factor W)``.
        """
        if self.norm is not None:
            features = self.norm(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        if self.steps == 0:
            return features
        for stage in (self.up1, self.up2, self.up3, self.up4, self.up4)[: self.steps]:
            size = (2 * features.shape[2], 2 * features.shape[3])
            features = stage(features, average_pool(images, size))  # as FeatUp does, also to a larger size
        return features + 0.1 * self.fixup_proj(features)


def load_jbu_upsampler(path: str | Path, channels: int, factor: int) -> JbuUpsampler:
    """Build the up-sampler from one of FeatUp's published checkpoints.

    Args:
        path: Checkpoint with the stack under ``upsampler.`` and, in one variant, a LayerNorm under ``model.1.norm.``.
        channels: Channels of the features to up-sample.
        factor: See :class:`JbuUpsampler`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read, lacks entries or is for another number of channels.
    """
    source = read_state_dict(path, "upsampler_weights")
    state = {
        name.removeprefix("upsampler."): value
        for name, value in source.items()
        if name.startswith("upsampler.") and "scale_net" not in name
    }
    norm = {name.removeprefix("model.1."): value for name, value in source.items() if name.startswith(NORM_PREFIX)}
    upsampler = JbuUpsampler(channels, factor, norm=bool(norm))
    state |= norm
    wanted = upsampler.state_dict()
    missing = [name for name in wanted if name not in state]
    if missing:
        msg = f"upsampler_weights file {path} is not FeatUp's JBU stack: it lacks {shorten(missing)}"
        raise ValueError(msg)
    wrong = [name for name in wanted if state[name].shape != wanted[name].shape]
    if wrong:
        found = state["fixup_proj.1.weight"].shape[0]
        msg = (
            f"upsampler_weights file {path} does not fit the backbone: it is for {found} channels, the backbone has "
            f"{channels} ({shorten(wrong)}); pass the up-sampler of this backbone, or none for bilinear up-sampling"
        )
        raise ValueError(msg)
    upsampler.load_state_dict({name: state[name] for name in wanted})
    return upsampler

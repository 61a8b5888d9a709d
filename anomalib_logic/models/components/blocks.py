# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Layers that trained networks share, put together from timm's."""

import torch
from timm.layers import GroupNorm1, trunc_normal_
from timm.models.resnet import BasicBlock
from timm.models.vision_transformer import Block
from torch import nn


class DualUpSample(nn.Module):
    """Twice the resolution by a sub-pixel and a bilinear branch (SUNet, https://arxiv.org/abs/2202.14009, fig. 3).

    Args:
        channels: Channels of the input.
        out_channels: Channels of the output.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.sub_pixel = nn.Sequential(
            nn.Conv2d(channels, 4 * out_channels, 1),
            nn.PReLU(),
            nn.PixelShuffle(2),
            nn.Conv2d(out_channels, out_channels, 1),
        )
        self.bilinear = nn.Sequential(
            nn.Conv2d(channels, channels, 1),
            nn.PReLU(),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            nn.Conv2d(channels, out_channels, 1),
        )
        self.merge = nn.Conv2d(2 * out_channels, out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Up-sample ``(N, C, H, W)`` to ``(N, C_out, 2H, 2W)``."""
        return self.merge(torch.cat([self.sub_pixel(x), self.bilinear(x)], dim=1))


class Residual(nn.Module):
    """Add to a map what a norm, a 3 x 3 convolution and one of single positions make of it.

    Args:
        width: Channels of the map.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(1, width), nn.Conv2d(width, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, width, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, C, H, W)`` to the same shape."""
        return x + self.layers(x)


def residual_blocks(channels: int, depth: int) -> nn.Sequential:
    """Residual convolution blocks on a map of so many channels."""
    return nn.Sequential(*(BasicBlock(channels, channels, norm_layer=GroupNorm1) for _ in range(depth)))


def check_width(width: int, heads: int) -> None:
    """Refuse widths of tokens that do not divide among the heads, or by 4 for a 2-D sine-cosine position encoding.

    Raises:
        ValueError: The message names the width and what it must be a multiple of.
    """
    if width % 4 or width % heads:
        msg = f"width must be a multiple of 4 and of the {heads} heads, got {width}"
        raise ValueError(msg)


def transformer(depth: int, width: int, heads: int) -> nn.Sequential:
    """Transformer blocks and a last norm, on tokens of shape ``(N, L, width)``."""
    blocks = [Block(width, heads, qkv_bias=True) for _ in range(depth)]
    return nn.Sequential(*blocks, nn.LayerNorm(width))


def learned_tokens(number: int, width: int) -> nn.Parameter:
    """Tokens that are learned, shape ``(1, number, width)``."""
    return nn.Parameter(trunc_normal_(torch.empty(1, number, width), std=0.02))


def to_map(tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Lay tokens of shape ``(N, L, C)`` out as a map, shape ``(N, C, h, w)``, of a grid of ``L = h * w``."""
    return tokens.transpose(1, 2).unflatten(2, grid)

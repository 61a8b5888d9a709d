# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Decoders of GLCF: the backbone's structure turned round (paper section IV-B, up-sampling of SUNet)."""

from collections.abc import Sequence

import torch
from timm.layers import GroupNorm1
from timm.models.resnet import BasicBlock
from timm.models.swin_transformer import SwinTransformerStage
from torch import nn

BLOCKS = ("swin", "convolution")


class DualUpSample(nn.Module):
    """Twice the resolution by a sub-pixel and a bilinear branch (SUNet, fig. 3).

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


class SwinStage(nn.Module):
    """Swin blocks on a channels-first map.

    Args:
        channels: Channels of the map.
        resolution: Height and width of the map.
        depth: Number of blocks.
    """

    def __init__(self, channels: int, resolution: tuple[int, int], depth: int) -> None:
        super().__init__()
        self.blocks = SwinTransformerStage(
            channels, channels, resolution, depth, downsample=False, num_heads=max(1, channels // 32)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, C, H, W)`` to the same shape."""
        return self.blocks(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous()


class ConvolutionStage(nn.Sequential):
    """Residual convolution blocks.

    Args:
        channels: Channels of the map.
        resolution: Ignored; a convolution fits every size.
        depth: Number of blocks.
    """

    def __init__(self, channels: int, resolution: tuple[int, int], depth: int) -> None:
        del resolution
        super().__init__(*(BasicBlock(channels, channels, norm_layer=GroupNorm1) for _ in range(depth)))


class PyramidDecoder(nn.Module):
    """Feature maps at strides 16, 8 and 4 from a stride-32 representation: G, E_l and E_g have this shape.

    Args:
        channels: Channels of the backbone's maps at strides 4, 8, 16 and 32.
        grid: Height and width of the stride-32 map.
        block: ``"swin"`` or ``"convolution"``.
        depths: Blocks of the stages at strides 32, 16, 8 and 4.
        widths: Channels of the stages at strides 4, 8, 16 and 32; those of the backbone by default.
    """

    def __init__(
        self,
        channels: Sequence[int],
        grid: tuple[int, int],
        block: str,
        depths: Sequence[int] = (2, 2, 2, 2),
        widths: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        stage = SwinStage if block == "swin" else ConvolutionStage
        widths = list(widths or channels)[::-1]
        sizes = [(grid[0] * 2**i, grid[1] * 2**i) for i in range(4)]
        self.stem = nn.Conv2d(channels[-1], widths[0], 1)
        self.stages = nn.ModuleList(
            stage(width, size, depth) for width, size, depth in zip(widths, sizes, depths, strict=True)
        )
        self.up_samplers = nn.ModuleList(DualUpSample(widths[i], widths[i + 1]) for i in range(3))
        self.heads = nn.ModuleList(nn.Conv2d(widths[i], list(channels)[::-1][i], 1) for i in range(1, 4))

    def forward(self, representation: torch.Tensor) -> list[torch.Tensor]:
        """Decode.

        Args:
            representation: Stride-32 map, shape ``(N, C, h, w)``.

        Returns:
            Maps at strides 4, 8 and 16 (finest first), shapes ``(N, C_i, H_i, W_i)`` as the backbone's.
        """
        x = self.stages[0](self.stem(representation))
        outputs = []
        for up_sample, stage, head in zip(self.up_samplers, self.stages[1:], self.heads, strict=True):
            x = stage(up_sample(x))
            outputs.append(head(x))
        return outputs[::-1]

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Decoders of GLCF: the backbone's structure turned round (paper section IV-B, up-sampling of SUNet)."""

from collections.abc import Sequence

import torch
from timm.models.swin_transformer import SwinTransformerStage
from torch import nn

from anomalib_logic.models.components.blocks import DualUpSample, residual_blocks

SCALES = (True, True, True)  # strides 4, 8 and 16


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
        depths: Sequence[int],
        widths: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        widths = list(widths or channels)[::-1]
        sizes = [(grid[0] * 2**i, grid[1] * 2**i) for i in range(4)]
        self.stem = nn.Conv2d(channels[-1], widths[0], 1)
        self.stages = nn.ModuleList(
            SwinStage(width, size, depth) if block == "swin" else residual_blocks(width, depth)
            for width, size, depth in zip(widths, sizes, depths, strict=True)
        )
        self.up_samplers = nn.ModuleList(DualUpSample(widths[i], widths[i + 1]) for i in range(3))
        self.heads = nn.ModuleList(nn.Conv2d(widths[i], list(channels)[::-1][i], 1) for i in range(1, 4))

    def forward(self, representation: torch.Tensor, scales: Sequence[bool] = SCALES) -> list[torch.Tensor | None]:
        """Decode.

        Args:
            representation: Stride-32 map, shape ``(N, C, h, w)``.
            scales: Which of the maps at strides 4, 8 and 16 to compute.

        Returns:
            Maps at strides 4, 8 and 16 (finest first), shapes ``(N, C_i, H_i, W_i)`` as the backbone's; ``None`` for
            those that were not to be computed.
        """
        x = self.stages[0](self.stem(representation))
        outputs: list[torch.Tensor | None] = [None, None, None]
        for i in range(3 - list(scales).index(True)):  # strides 16, 8 and 4, down to the finest that is wanted
            x = self.stages[i + 1](self.up_samplers[i](x))
            if scales[2 - i]:
                outputs[2 - i] = self.heads[i](x)
        return outputs

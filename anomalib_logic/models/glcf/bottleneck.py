# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Semantic bottleneck of GLCF: multi-scale patch embedding and semantic aggregation (paper section III-B)."""

from collections.abc import Sequence

import torch
from timm.layers import PatchEmbed
from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed
from torch import nn

from anomalib_logic.models.components.arguments import check_choice
from anomalib_logic.models.components.blocks import check_width, learned_tokens, to_map, transformer

from .options import Structure


class MultiScalePatchEmbedding(nn.Module):
    """Embed several scales as one sequence of tokens (MS-PEM, paper section III-B1).

    Each scale gets a patch embedding whose patch size brings it to the grid of the deepest one; the embeddings are
    added.

    Args:
        channels: Channels of each scale, from the finest to the deepest.
        patch_sizes: Patch size of each scale in positions of its map.
        width: Width D of the tokens.
    """

    def __init__(self, channels: Sequence[int], patch_sizes: Sequence[int], width: int) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(
            PatchEmbed(img_size=None, patch_size=size, in_chans=channel, embed_dim=width)
            for channel, size in zip(channels, patch_sizes, strict=True)
        )

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Embed and add.

        Args:
            maps: One map a scale, shapes ``(N, C_i, p_i * h, p_i * w)``.

        Returns:
            Tokens, shape ``(N, L, D)`` with ``L = h * w``.
        """
        tokens = [embed(feature_map) for embed, feature_map in zip(self.embeddings, maps, strict=True)]
        return torch.stack(tokens).sum(dim=0)


class SemanticAggregation(nn.Module):
    """Separate a global semantic from a preserved patch representation (SAM, paper section III-B2 and fig. 6).

    Args:
        grid: Height and width of the token grid; ``L = height * width``.
        width: Width D of the tokens, a multiple of 4 and of ``heads``.
        depth: Transformer blocks of the encoder and of each decoder.
        heads: Attention heads.
        structure: ``"ps"``: L semantic tokens go through the encoder beside the patch tokens. ``"pgs"``: one does,
            and L fresh ones go through the global decoder. ``"pss"``: L do, and L fresh ones go through the global
            decoder. ``"none"``: no semantic tokens, one decoder whose output serves as both representations.

    Raises:
        ValueError: If ``structure`` is unknown or ``width`` does not divide.
    """

    def __init__(self, grid: tuple[int, int], width: int, depth: int, heads: int, structure: Structure) -> None:
        super().__init__()
        self.structure = check_choice("structure", structure, Structure)
        check_width(width, heads)
        self.length = grid[0] * grid[1]
        self.register_buffer("position", build_sincos2d_pos_embed(list(grid), dim=width)[None], persistent=False)
        if structure != "none":
            self.encoder_tokens = learned_tokens(1 if structure == "pgs" else self.length, width)
            self.global_decoder = transformer(depth, width, heads)
        if structure in ("pgs", "pss"):
            self.decoder_tokens = learned_tokens(self.length, width)
        self.encoder = transformer(depth, width, heads)
        self.patch_decoder = transformer(depth, width, heads)

    def forward(self, patches: torch.Tensor, with_global: bool = True) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Aggregate.

        Args:
            patches: Patch tokens, shape ``(N, L, D)``.
            with_global: Compute z_g.

        Returns:
            Global semantic representation z_g, or ``None``, and preserved patch representation z_p, each ``(N, L, D)``.
        """
        patches = patches + self.position
        if self.structure == "none":
            decoded = self.patch_decoder(self.encoder(patches))
            return decoded, decoded
        semantic = self.encoder_tokens
        if self.structure != "pgs":
            semantic = semantic + self.position
        encoded = self.encoder(torch.cat([patches, semantic.expand(patches.shape[0], -1, -1)], dim=1))
        patches, semantic = encoded[:, : self.length], encoded[:, self.length :]
        if not with_global:
            return None, self.patch_decoder(patches)
        if self.structure != "ps":
            fresh = (self.decoder_tokens + self.position).expand(patches.shape[0], -1, -1)
            semantic = torch.cat([semantic, fresh], dim=1)  # type: ignore[assignment]
        decoded = self.global_decoder(semantic)[:, -self.length :]
        return decoded, self.patch_decoder(patches)


class SemanticBottleneck(nn.Module):
    """From the deeper maps of the pyramid to the two representations that the decoders start from (section III-B).

    Args:
        channels: Channels of the maps at strides 8, 16 and 32.
        grid: Height and width of the stride-32 map.
        width, depth, heads, structure: See :class:`SemanticAggregation`.
        multi_scale: Embed all three scales; otherwise only the deepest (ablation of the paper's fig. 11c).
    """

    def __init__(
        self,
        channels: Sequence[int],
        grid: tuple[int, int],
        width: int,
        depth: int,
        heads: int,
        structure: Structure,
        multi_scale: bool,
    ) -> None:
        super().__init__()
        self.scales = len(channels) if multi_scale else 1
        patch_sizes = [2**i for i in reversed(range(self.scales))]
        self.embedding = MultiScalePatchEmbedding(channels[-self.scales :], patch_sizes, width)
        self.aggregation = SemanticAggregation(grid, width, depth, heads, structure)
        self.grid = grid
        self.global_projection = nn.Linear(width, channels[-1])
        self.patch_projection = nn.Linear(width, channels[-1])

    def forward(
        self, maps: Sequence[torch.Tensor], with_global: bool = True
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Compute the two representations.

        Args:
            maps: Maps at strides 8, 16 and 32, shapes ``(N, C_i, H_i, W_i)``.
            with_global: Compute z_g.

        Returns:
            z_g, or ``None``, and z_p, each of the stride-32 map's shape ``(N, C, h, w)``.
        """
        semantic, patches = self.aggregation(self.embedding(maps[-self.scales :]), with_global)
        z_p = to_map(self.patch_projection(patches), self.grid)
        if not with_global:
            return None, z_p
        return to_map(self.global_projection(semantic), self.grid), z_p

    def freeze_global(self) -> None:
        """Let nothing be trained that only z_g needs."""
        for module in (self.global_projection, getattr(self.aggregation, "global_decoder", None)):
            if module is not None:
                module.requires_grad_(False)
        if hasattr(self.aggregation, "decoder_tokens"):
            self.aggregation.decoder_tokens.requires_grad_(False)

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Towers, head and scoring of LGFDR."""

import math
from typing import Any, NamedTuple

import torch
from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed
from torch import nn
from torch.nn import functional as F

from anomalib_logic.models.components.arguments import check_divisible
from anomalib_logic.models.components.blocks import Residual, check_width, learned_tokens, to_map, transformer
from anomalib_logic.models.components.error_maps import MapFusion, position_distance
from anomalib_logic.models.components.normal_statistics import ChannelStandardization, MapNormalization
from anomalib_logic.models.components.pyramid import FeaturePyramid
from anomalib_logic.models.components.trained_network import TrainedNetwork
from anomalib_logic.models.components.upsampling import resize

from .options import LgfdrNetworks, LgfdrScoring, LgfdrTraining

PATCH = 2  # side of the global tower's patches, in positions of the grid


class LgfdrMaps(NamedTuple):
    """Features of normal or other images and their reconstructions, each of shape ``(N, C, h, w)``."""

    features: torch.Tensor
    local: torch.Tensor | None
    global_: torch.Tensor | None
    fused: torch.Tensor


class LocalTower(nn.Sequential):
    """Reconstruct each position from its neighbourhood: convolutions through a narrow map."""

    def __init__(self, channels: int, width: int, depth: int, bottleneck: int) -> None:
        super().__init__(
            nn.Conv2d(channels, width, 1),
            *(Residual(width) for _ in range(depth)),
            nn.Conv2d(width, bottleneck, 1),
            nn.Conv2d(bottleneck, width, 1),
            Residual(width),
            nn.GroupNorm(1, width),
            nn.Conv2d(width, channels, 1),
        )


class GlobalTower(nn.Module):
    """Reconstruct all positions from all others: learned queries, one a patch, see the encoded image by attention."""

    def __init__(self, channels: int, grid: tuple[int, int], width: int, depth: int, heads: int) -> None:
        super().__init__()
        check_width(width, heads)
        self.grid = (grid[0] // PATCH, grid[1] // PATCH)
        self.stem = nn.Conv2d(channels, width, PATCH, PATCH)
        self.register_buffer("position", build_sincos2d_pos_embed(list(self.grid), dim=width)[None], persistent=False)
        self.queries = learned_tokens(math.prod(self.grid), width)
        self.encoder = transformer(depth, width, heads)
        self.decoder = transformer(depth, width, heads)
        self.head = nn.Sequential(nn.Conv2d(width, channels * PATCH**2, 1), nn.PixelShuffle(PATCH))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Reconstruct ``(N, C, h, w)``."""
        tokens = self.encoder(self.stem(features).flatten(2).transpose(1, 2) + self.position)
        queries = (self.queries + self.position).expand(tokens.shape[0], -1, -1)
        decoded = self.decoder(torch.cat([tokens, queries], dim=1))[:, tokens.shape[1] :]
        return self.head(to_map(decoded, self.grid))


class SelectiveHead(nn.Module):
    """Softmax over the two towers for each channel, from the pooled sum of both (as in selective-kernel networks)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(16, channels // 4)
        self.weights = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.GELU(), nn.Conv2d(hidden, 2 * channels, 1))

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Fuse two reconstructions, shapes ``(N, C, h, w)``."""
        weights = self.weights((first + second).mean(dim=(2, 3), keepdim=True))
        weight, other = weights.unflatten(1, (2, -1)).softmax(dim=1).unbind(dim=1)
        return weight * first + other * second


class LgfdrModel(TrainedNetwork):
    """LGFDR: a frozen pyramid, two towers that reconstruct it from noisy features, and a head that fuses them.

    Args:
        image_size: Height and width of the input in pixels.
        networks, scoring, training: See :mod:`.options`.
        backbone: Name of the backbone, and more arguments of :class:`.pyramid.FeaturePyramid`.

    Raises:
        ValueError: If an argument does not fit; the message names it.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        networks: LgfdrNetworks,
        scoring: LgfdrScoring,
        training: LgfdrTraining,
        backbone: str,
        **pyramid: Any,
    ) -> None:
        super().__init__()
        self.scoring = scoring
        self.noise, self.noise_kind = training.noise, training.noise_kind
        check_divisible(image_size, math.lcm(PATCH * networks.grid_stride, *networks.strides), backbone)
        self.grid = (image_size[0] // networks.grid_stride, image_size[1] // networks.grid_stride)
        self.pyramid = FeaturePyramid(backbone, image_size=image_size, strides=networks.strides, **pyramid)
        self.standardization = ChannelStandardization(self.pyramid.channels)
        channels, width = sum(self.pyramid.channels), networks.width
        self.local_tower = self.global_tower = self.head = None
        if networks.towers != "global":
            self.local_tower = LocalTower(channels, width, networks.local_depth, networks.bottleneck)
        if networks.towers != "local":
            self.global_tower = GlobalTower(channels, self.grid, width, networks.global_depth, networks.heads)
        if (networks.towers, networks.head) == ("both", "selective"):
            self.head = SelectiveHead(channels)
        self.groups = self.pyramid.channels if self.scoring.normalize_scales else [channels]
        self.normalization = MapNormalization(len(self.groups))
        self.fusion = MapFusion(image_size, self.scoring.sigma, self.scoring.image_score)

    def maps(self, images: torch.Tensor) -> LgfdrMaps:
        """Compute features and reconstructions of normalised images, shape ``(N, 3, H, W)``."""
        features = torch.cat([resize(m, self.grid) for m in self.features(images)], dim=1)
        noisy = self._add_noise(features) if self.training and self.noise > 0 else features
        both = [None if tower is None else tower(noisy) for tower in (self.local_tower, self.global_tower)]
        there = [reconstruction for reconstruction in both if reconstruction is not None]
        fused = torch.stack(there).mean(dim=0) if self.head is None else self.head(*there)
        return LgfdrMaps(features, both[0], both[1], fused)

    def _add_noise(self, features: torch.Tensor) -> torch.Tensor:
        level: float | torch.Tensor = self.noise
        if self.noise_kind == "varied":
            level = 2 * level * torch.rand_like(features[:, :1, :1, :1])
        return features + level * torch.randn_like(features)

    def errors(self, maps: LgfdrMaps) -> list[torch.Tensor]:
        """Errors of the fused reconstruction, one map a scale or one for all, shapes ``(N, 1, h, w)``."""
        pairs = zip(maps.features.float().split(self.groups, 1), maps.fused.float().split(self.groups, 1), strict=True)
        distances = [position_distance(*pair, self.scoring.distance) for pair in pairs]
        return [d.sqrt() for d in distances] if self.scoring.distance == "mse" else distances

    def anomaly_map(self, errors: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Anomaly map and image score of errors, see :class:`.TrainedNetwork`."""
        return self.fusion(self.normalization(errors), [1.0] * len(errors))


class LgfdrLoss(nn.Module):
    """Mean squared error and one minus cosine similarity of each reconstruction to the clean features, summed."""

    def forward(self, features: torch.Tensor, *reconstructions: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """Compute ``loss`` and its terms ``loss_local``, ``loss_global`` and ``loss_fused``, those that there are."""
        named = zip(("loss_local", "loss_global", "loss_fused"), reconstructions, strict=True)
        terms = {name: self._term(one.float(), features.float()) for name, one in named if one is not None}
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    @staticmethod
    def _term(reconstruction: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        cosine = F.cosine_similarity(reconstruction, features, dim=1).mean()
        return F.mse_loss(reconstruction, features) + 1 - cosine

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Frozen features of patches, from a vision transformer or a pyramid backbone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch.nn import functional as F

from .arguments import check_divisible
from .frozen import Frozen
from .pyramid import FeaturePyramid, create_timm_model, fit_weights
from .weights import read_state_dict

PYRAMID_STRIDES = (4, 8, 16)
_TRANSFORMERS = ("vision_transformer", "deit")  # modules of timm whose models are VisionTransformers


class PatchFeatures(Frozen):
    """Maps of patch features: a vision transformer's last tokens (final norm applied), or three scales of a pyramid.

    Args:
        backbone: Name of any vision transformer of timm, or of a model with a pyramid at strides 4, 8 and 16.
        pre_trained: Load timm's published weights (downloads them). Ignored when ``weights`` is given.
        weights: Local ``.safetensors`` or ``.pth`` file with the backbone's weights. Position embeddings of another
            image size are resampled.
        image_size: Height and width of the input in pixels.
        backbone_args: More keyword arguments for ``timm.create_model``.

    Attributes:
        channels: Number of channels of each map.
        grid: Height and width of a transformer's map, or of the pyramid's coarsest.

    Raises:
        ValueError: If the backbone is unknown or does not suit, or its patch size does not divide the image size.
        RuntimeError: If the published weights cannot be downloaded.
        FileNotFoundError: If ``weights`` is not a file.
    """

    def __init__(
        self,
        backbone: str,
        pre_trained: bool = True,
        weights: str | Path | None = None,
        image_size: tuple[int, int] = (224, 224),
        backbone_args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.is_transformer = timm.is_model(backbone) and (
            timm.model_entrypoint(backbone).__module__.rsplit(".", 1)[-1] in _TRANSFORMERS
        )
        if self.is_transformer:
            self.network = _create_transformer(backbone, pre_trained and weights is None, image_size, backbone_args)
            stride = self.network.patch_embed.patch_size[0]
            self.channels = [self.network.num_features]
            if weights is not None:
                source = checkpoint_filter_fn(dict(read_state_dict(weights, "backbone_weights")), self.network)
                fit_weights(self.network, source, weights)
        else:
            stride = PYRAMID_STRIDES[-1]
            check_divisible(image_size, stride, backbone)
            self.network = FeaturePyramid(
                backbone, pre_trained, weights, image_size, backbone_args, strides=PYRAMID_STRIDES
            )
            self.channels = self.network.channels
        self.grid = (image_size[0] // stride, image_size[1] // stride)
        self.freeze()

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Compute the maps.

        Args:
            images: Normalised images, shape ``(N, 3, H, W)``.

        Returns:
            Maps, the finest first, shapes ``(N, C_i, H_i, W_i)``. A pyramid's are averaged over 3 x 3 positions.
        """
        with torch.no_grad():
            if self.is_transformer:
                tokens = self.network.forward_features(images)[:, self.network.num_prefix_tokens :]
                return [tokens.transpose(1, 2).unflatten(2, self.grid)]
            maps = self.network(images)
            return [F.avg_pool2d(m, 3, stride=1, padding=1, count_include_pad=False) for m in maps]


def _create_transformer(
    backbone: str, pre_trained: bool, image_size: tuple[int, int], backbone_args: Mapping[str, Any] | None
) -> VisionTransformer:
    probe = timm.create_model(backbone, num_classes=0, depth=1)
    check_divisible(image_size, probe.patch_embed.patch_size[0], backbone)
    arguments = {"num_classes": 0, "img_size": image_size, **(backbone_args or {})}
    return create_timm_model(backbone, pre_trained, **arguments)

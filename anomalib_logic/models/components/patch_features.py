# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Frozen features of patches, from a vision transformer or a pyramid backbone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .arguments import check_divisible
from .backbone import create_timm_model, describe_backbone, load_weights
from .frozen import Frozen
from .pyramid import FeaturePyramid

PYRAMID_STRIDES = (4, 8, 16)


class PatchFeatures(Frozen):
    """Maps of patch features: a vision transformer's last tokens (final norm applied), or three scales of a pyramid.

    A vision transformer is any timm model whose ``forward_intermediates`` gives its normed last tokens as one map, and
    whose blocks all work on that one grid: those of timm's modules ``vision_transformer`` (DINOv2, CLIP, SigLIP, ...),
    ``vision_transformer_hybrid``, ``vision_transformer_relpos``, ``vision_transformer_sam``, ``deit``, ``beit`` and
    ``eva`` (EVA-02, DINOv3, Perception Encoder), and ``cait``, ``xcit``, ``tnt`` and ``mlp_mixer``. timm's
    ``features_only`` is for pyramids alone here: it cannot be asked for the final norm.

    Args:
        backbone: Name of a vision transformer of timm, or of a model with a pyramid at strides 4, 8 and 16, or
            ``hf-hub:NAME`` or ``local-dir:PATH`` of one.
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
        patch_size = _patch_size(describe_backbone(backbone, **(backbone_args or {})))
        self.is_transformer = patch_size is not None
        check_divisible(image_size, patch_size or PYRAMID_STRIDES[-1], backbone)
        if self.is_transformer:
            self._create_transformer(backbone, pre_trained, weights, image_size, backbone_args)
        else:
            self.network = FeaturePyramid(
                backbone, pre_trained, weights, image_size, backbone_args, strides=PYRAMID_STRIDES
            )
            self.channels = self.network.channels
            self.grid = (image_size[0] // PYRAMID_STRIDES[-1], image_size[1] // PYRAMID_STRIDES[-1])
        self.freeze()

    def _create_transformer(
        self,
        backbone: str,
        pre_trained: bool,
        weights: str | Path | None,
        image_size: tuple[int, int],
        backbone_args: Mapping[str, Any] | None,
    ) -> None:
        arguments = {"num_classes": 0, **(backbone_args or {})}
        reference = describe_backbone(backbone, **arguments)
        if reference.pretrained_cfg["fixed_input_size"] and "img_size" not in arguments:
            arguments["img_size"] = image_size
            reference = describe_backbone(backbone, **arguments)
        shape = _map_shape(reference, backbone, image_size)
        self.channels, self.grid = [shape[1]], (shape[2], shape[3])
        self.network = create_timm_model(backbone, pre_trained and weights is None, **arguments)
        if weights is not None:
            load_weights(self.network, weights, reference)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Compute the maps.

        Args:
            images: Normalised images, shape ``(N, 3, H, W)``.

        Returns:
            Maps, the finest first, shapes ``(N, C_i, H_i, W_i)``. A pyramid's are averaged over 3 x 3 positions.
        """
        with torch.no_grad():
            if self.is_transformer:
                return _last_map(self.network, images)
            maps = self.network(images)
            return [F.avg_pool2d(m, 3, stride=1, padding=1, count_include_pad=False) for m in maps]


def coarsest_stride(backbone: str, backbone_args: Mapping[str, Any] | None = None) -> int:
    """Stride of a backbone's coarsest map in pixels, whose multiples an image's height and width must be.

    Args:
        backbone: As in :class:`PatchFeatures`.
        backbone_args: Keyword arguments for ``timm.create_model``.

    Returns:
        A vision transformer's patch size, or 16 for a pyramid.

    Raises:
        ValueError: If the backbone is unknown.
    """
    return _patch_size(describe_backbone(backbone, **(backbone_args or {}))) or PYRAMID_STRIDES[-1]


def _last_map(transformer: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Normed last tokens without prefix tokens as a map, shape ``(N, C, H / patch, W / patch)``, in a list."""
    return transformer.forward_intermediates(images, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True)


def _patch_size(model: nn.Module) -> int | None:
    """Stride of a model whose blocks all have the same, in pixels; ``None`` for pyramids."""
    info = getattr(model, "feature_info", ())
    strides = {level["reduction"] for level in getattr(info, "info", info)}
    return strides.pop() if len(strides) == 1 and hasattr(model, "forward_intermediates") else None


def _map_shape(reference: nn.Module, backbone: str, image_size: tuple[int, int]) -> torch.Size:
    try:
        with torch.no_grad():
            (feature_map,) = _last_map(reference, torch.empty(1, 3, *image_size, device="meta"))
    except Exception as error:
        msg = (
            f"backbone '{backbone}' gives no map of its last patch tokens at image_size {tuple(image_size)} ({error}): "
            "choose a vision transformer whose forward_intermediates does, e.g. 'vit_small_patch14_dinov2' or "
            "'vit_small_patch16_dinov3', or a model with a feature pyramid, e.g. 'wide_resnet50_2'"
        )
        raise ValueError(msg) from error
    return feature_map.shape

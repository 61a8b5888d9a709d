# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Frozen feature pyramids of timm backbones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from timm.layers import Format, nhwc_to

from .arguments import check_ascending
from .backbone import create_timm_model, describe_backbone, load_weights
from .frozen import Frozen

STRIDES = (4, 8, 16, 32)


class FeaturePyramid(Frozen):
    """Frozen multi-scale features of a timm backbone.

    The network is always in evaluation mode, needs no gradient and never updates its batch-norm statistics, whatever
    mode its parent is in.

    Anomalib's ``TimmFeatureExtractor`` is not used because it can pass neither an image size (Swin needs one that is
    not 224) nor other timm arguments, and keeps Swin's channels-last layout.

    Args:
        backbone: Name of a timm model with a pyramid at strides 4, 8, 16 and 32 (Swin, ConvNeXt, ResNet,
            Wide ResNet, MobileNetV2, ...), or ``hf-hub:NAME`` or ``local-dir:PATH`` of one.
        pre_trained: Load timm's published weights (downloads them). Ignored when ``weights`` is given.
        weights: Local ``.safetensors`` or ``.pth`` file with the weights of the pyramid or of the whole classifier,
            also of another image size.
        image_size: Height and width of the input in pixels.
        backbone_args: More keyword arguments for ``timm.create_model``, e.g. ``{"pad_type": "same"}``.
        strides: Strides of the maps to return, each once, in ascending order.

    Attributes:
        channels: Number of channels of each returned map.

    Raises:
        ValueError: If timm does not know ``backbone``, if it lacks one of the strides or these are not
            ascending, or if the weights do not fit.
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
        strides: Sequence[int] = STRIDES,
    ) -> None:
        super().__init__()
        check_ascending("strides", strides)
        arguments = dict(backbone_args or {})
        if describe_backbone(backbone, **arguments).pretrained_cfg["fixed_input_size"]:
            arguments.setdefault("img_size", image_size)
        self.network = create_timm_model(backbone, pre_trained and weights is None, features_only=True, **arguments)
        reductions = self.network.feature_info.reduction()
        missing = [stride for stride in strides if stride not in reductions]
        if missing:
            msg = (
                f"backbone '{backbone}' has feature maps at strides {tuple(reductions)}, but strides {tuple(strides)} "
                "are needed: choose a backbone with a feature pyramid, e.g. 'swin_tiny_patch4_window7_224' or "
                "'wide_resnet50_2'"
            )
            raise ValueError(msg)
        self.levels = [reductions.index(stride) for stride in strides]
        self.channels = [self.network.feature_info.channels()[level] for level in self.levels]
        self.layout = Format(getattr(self.network, "output_fmt", None) or Format.NCHW)
        if weights is not None:
            load_weights(self.network, weights, describe_backbone(backbone, **arguments))
        self.freeze()

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Compute the pyramid.

        Args:
            images: Normalised images, shape ``(N, 3, H, W)``.

        Returns:
            One map a stride, shapes ``(N, C_i, H / stride_i, W / stride_i)``.
        """
        with torch.no_grad():
            maps = self.network(images)
        maps = [maps[level] for level in self.levels]
        if self.layout == Format.NHWC:
            maps = [nhwc_to(feature_map, Format.NCHW).contiguous() for feature_map in maps]
        return maps

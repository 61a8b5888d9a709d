# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Frozen feature pyramids of timm backbones and the loading of their weights."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import Format, nhwc_to
from torch import nn

from .frozen import Frozen
from .weights import read_state_dict, shorten

logger = logging.getLogger(__name__)

STRIDES = (4, 8, 16, 32)


class FeaturePyramid(Frozen):
    """Frozen multi-scale features of a timm backbone.

    The network is always in evaluation mode, needs no gradient and never updates its batch-norm statistics, whatever
    mode its parent is in.

    Anomalib's ``TimmFeatureExtractor`` is not used because it can pass neither an image size (Swin needs one that is
    not 224) nor other timm arguments, and keeps Swin's channels-last layout.

    Args:
        backbone: Name of a timm model with a pyramid at strides 4, 8, 16 and 32 (Swin, ConvNeXt, ResNet,
            Wide ResNet, MobileNetV2, ...).
        pre_trained: Load timm's published weights (downloads them). Ignored when ``weights`` is given.
        weights: Local ``.safetensors`` or ``.pth`` file with the weights of the pyramid or of the whole classifier.
        image_size: Height and width of the input in pixels.
        backbone_args: More keyword arguments for ``timm.create_model``, e.g. ``{"pad_type": "same"}``.
        strides: Strides of the maps to return, each once, in ascending order.

    Attributes:
        channels: Number of channels of each returned map.

    Raises:
        ValueError: If timm does not know ``backbone``, if it lacks one of the strides, or if the weights do not fit.
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
        self.network = _create_network(backbone, pre_trained and weights is None, image_size, backbone_args)
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
            load_weights(self.network, weights)
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


def _create_network(
    backbone: str,
    pre_trained: bool,
    image_size: tuple[int, int],
    backbone_args: Mapping[str, Any] | None,
) -> nn.Module:
    """Create timm's ``features_only`` network; see :class:`FeaturePyramid` for arguments and errors."""
    on_hub = ":" in backbone  # hf-hub:NAME or local-dir:PATH
    if not on_hub and not timm.is_model(backbone):
        similar = timm.list_models(f"{backbone.split('_')[0]}*")[:8]
        hint = f"; similar names: {', '.join(similar)}" if similar else ""
        msg = f"backbone '{backbone}' is not a timm model{hint}"
        raise ValueError(msg)
    arguments = dict(backbone_args or {})
    config = None if on_hub else timm.get_pretrained_cfg(backbone)
    if config is not None and config.fixed_input_size:
        arguments.setdefault("img_size", image_size)
    return create_timm_model(backbone, pre_trained, features_only=True, **arguments)


def create_timm_model(backbone: str, pre_trained: bool, **arguments: Any) -> nn.Module:
    """Create a model of timm.

    Args:
        backbone: Its name.
        pre_trained: Load timm's published weights (downloads them).
        **arguments: Of ``timm.create_model``.

    Raises:
        RuntimeError: If the weights cannot be downloaded; the message says from where and what to do without.
    """
    try:
        return timm.create_model(backbone, pretrained=pre_trained, **arguments)
    except Exception as error:
        if not pre_trained or isinstance(error, TypeError):  # a TypeError is a wrong argument, not a failed download
            raise
        config = None if ":" in backbone else timm.get_pretrained_cfg(backbone)
        raise RuntimeError(_download_message(backbone, config, error)) from error


def _download_message(backbone: str, config: Any, error: Exception) -> str:
    """Say where weights were looked for and what to do without."""
    hub = getattr(config, "hf_hub_id", None)
    address = f"https://huggingface.co/{hub}" if hub else getattr(config, "url", None) or "timm's model hub"
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        f"could not get the pre-trained weights of backbone '{backbone}' from {address} ({reason}). Two ways out: "
        "download the file on another machine and pass it as backbone_weights=FILE (.safetensors or .pth), or pass "
        "pre_trained=False. The latter is right where a checkpoint is loaded, which holds these weights already; to "
        "train with it means random features and much weaker detection."
    )


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Load a local file of weights into a pyramid.

    Names are matched as timm writes them for the pyramid (``layers_0.blocks...``) and for the classifier
    (``layers.0.blocks...``). Entries that the pyramid lacks (a classifier's head) are ignored; half-precision
    values are converted.

    Args:
        network: timm ``features_only`` network.
        path: ``.safetensors`` or ``.pth`` file: a state dict, bare or under ``state_dict`` or ``model``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is of another kind, cannot be read, lacks entries or holds other shapes.
    """
    fit_weights(network, read_state_dict(path, "backbone_weights"), path)


def fit_weights(network: nn.Module, source: Mapping[str, torch.Tensor], path: str | Path) -> None:
    """Load a state dict into a network as :func:`load_weights` does; ``path`` is for messages."""
    source = {_canonical(name): value for name, value in source.items()}
    wanted = network.state_dict()
    state, missing, wrong = {}, [], []
    for name, value in wanted.items():
        found = source.get(_canonical(name))
        if found is None:
            if not name.endswith("num_batches_tracked"):
                missing.append(name)
        elif found.shape != value.shape:
            wrong.append(f"{name}: {tuple(found.shape)} in the file, {tuple(value.shape)} in the network")
        else:
            state[name] = found.to(value.dtype)
    if missing or wrong:
        problems = ([f"missing: {shorten(missing)}"] if missing else []) + (
            [f"other shapes: {shorten(wrong)}"] if wrong else []
        )
        msg = (
            f"backbone_weights file {path} does not fit the backbone ({'; '.join(problems)}): "
            "pass the weights of the same timm model"
        )
        raise ValueError(msg)
    network.load_state_dict(state, strict=False)
    logger.info("Loaded %d tensors of the backbone from %s", len(state), path)


def _canonical(name: str) -> str:
    """Name of an entry in the classifier: timm flattens ``layers.0.`` to ``layers_0.`` in pyramids."""
    return re.sub(r"^([a-z]+)_(\d+)\.", r"\1.\2.", name.removeprefix("module."))

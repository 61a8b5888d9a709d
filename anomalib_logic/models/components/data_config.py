# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Normalisation of the input images: what a backbone was trained with, and what a pre-processor does."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import timm
from anomalib.pre_processing import PreProcessor
from timm.data import resolve_data_config
from torch import nn
from torchvision.transforms.v2 import Compose, Normalize

from .backbone import describe_backbone

logger = logging.getLogger(__name__)

_CONFIGURATION = ("pretrained_cfg", "pretrained_cfg_overlay")


class Normalization(NamedTuple):
    """Mean and standard deviation of the red, green and blue channel, of images with values in [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def input_normalization(backbone: str, backbone_args: Mapping[str, Any] | None = None) -> Normalization:
    """Look up the normalisation that a backbone was trained with, in timm's data configuration.

    Neither weights nor, except for the ``config.json`` of an ``hf-hub:`` model, a network connection are needed.

    Args:
        backbone: Name of a timm model, with or without a tag, or ``hf-hub:NAME`` or ``local-dir:PATH``.
        backbone_args: Keyword arguments for ``timm.create_model``; ``pretrained_cfg`` and ``pretrained_cfg_overlay``
            among them have precedence over timm's configuration.

    Returns:
        Mean and standard deviation; ImageNet's, with a logged sentence, if timm has no configuration of the model.

    Raises:
        ValueError: If timm does not know the model or its tag.
        FileNotFoundError: If a local directory holds no ``config.json``.
        RuntimeError: If the configuration cannot be downloaded.
    """
    given = {name: value for name, value in (backbone_args or {}).items() if name in _CONFIGURATION}
    config = resolve_data_config(model=describe_backbone(backbone, **given))
    if not given and ":" not in backbone and timm.get_pretrained_cfg(backbone) is None:
        logger.warning(
            "timm has no configuration of backbone '%s': images are normalised with ImageNet's mean and standard "
            "deviation. Pass a pre_processor with a Normalize transform if it was trained with others.",
            backbone,
        )
    return Normalization(_three(config["mean"]), _three(config["std"]))


def normalization_of(pre_processor: PreProcessor | bool | None) -> Normalization | None:
    """Read the normalisation that a pre-processor applies.

    Args:
        pre_processor: Anomalib's pre-processor, or what a model has without one.

    Returns:
        Mean and standard deviation of its ``Normalize`` transforms, several of them taken together; ``None`` without.
    """
    found = list(_normalizations(getattr(pre_processor, "transform", None)))
    if not found:
        return None
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    for transform in found:
        mean = tuple(m + s * own for m, s, own in zip(mean, std, _three(transform.mean), strict=True))
        std = tuple(s * own for s, own in zip(std, _three(transform.std), strict=True))
    return Normalization(_three(mean), _three(std))


def _normalizations(transform: nn.Module | None) -> Iterator[Normalize]:
    if isinstance(transform, Normalize):
        yield transform
    elif isinstance(transform, Compose | nn.Sequential):
        for part in transform.transforms if isinstance(transform, Compose) else transform:
            yield from _normalizations(part)


def _three(values: Any) -> tuple[float, float, float]:
    values = tuple(float(value) for value in values)
    return values * 3 if len(values) == 1 else values

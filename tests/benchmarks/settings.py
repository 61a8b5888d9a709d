# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Settings that several benchmarks share."""

from typing import Any

BACKBONE = "mobilenetv2_100"
BACKBONE_ARGS = {"pad_type": "same"}  # the weights come from TensorFlow
NARROW = {"depth": 2, "decoder_depths": (1, 1, 1, 1), "decoder_widths": (32, 64, 96, 160)}  # GLCF with MobileNetV2


def arguments_of(backbone: str) -> dict[str, Any]:
    """timm's arguments for the weights that are used of a backbone."""
    return BACKBONE_ARGS if backbone == BACKBONE else {}

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Logical anomaly detection for Anomalib."""

from ._version import __version__
from .data import DigitAnatomy, MVTecLoco
from .models import Glcf
from .registration import register

register((MVTecLoco, DigitAnatomy))

__all__ = ["DigitAnatomy", "Glcf", "MVTecLoco", "__version__"]

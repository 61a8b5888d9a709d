# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Logical anomaly detection models."""

from .glcf import Glcf
from .lgfdr import Lgfdr
from .sam_lad import SamLad

__all__ = ["Glcf", "Lgfdr", "SamLad"]

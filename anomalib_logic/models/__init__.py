# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Logical anomaly detection models."""

from .glcf import Glcf

__all__ = ["Glcf"]

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""SAM-LAD: logical anomaly detection by matching objects."""

from .lightning_model import SamLad

__all__ = ["SamLad"]

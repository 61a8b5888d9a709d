# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Logical anomaly detection for Anomalib."""

from ._version import __version__

__all__ = ["__version__"]

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Exported models: running them, checking them against the model they come from, and quantising them."""

from .mixin import VerifiedExport
from .runners import EngineRunner, OnnxRunner, OpenVINORunner, Runner, TorchRunner, open_exported
from .verification import ExportVerificationError, Tolerance, verify

__all__ = [
    "EngineRunner",
    "ExportVerificationError",
    "OnnxRunner",
    "OpenVINORunner",
    "Runner",
    "Tolerance",
    "TorchRunner",
    "VerifiedExport",
    "open_exported",
    "verify",
]

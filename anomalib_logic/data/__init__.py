# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Data modules for logical anomaly detection."""

from .digit_anatomy import DigitAnatomy
from .loco_layout import (
    ANOMALY_KINDS,
    DefectChannel,
    DefectConfig,
    anomaly_kind,
    anomaly_kinds,
    mask_folder,
    read_defect_channels,
    read_defects_config,
)
from .mvtec_loco import MVTecLoco, MVTecLocoDataset

__all__ = [
    "ANOMALY_KINDS",
    "DefectChannel",
    "DefectConfig",
    "DigitAnatomy",
    "MVTecLoco",
    "MVTecLocoDataset",
    "anomaly_kind",
    "anomaly_kinds",
    "mask_folder",
    "read_defect_channels",
    "read_defects_config",
]

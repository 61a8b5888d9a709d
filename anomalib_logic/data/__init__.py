# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Data modules for logical anomaly detection, and the folder layout of MVTec LOCO AD.

The public names are loaded on first use: reading the layout needs nothing of Anomalib.
"""

from typing import TYPE_CHECKING

from anomalib_logic._lazy import lazy_names

if TYPE_CHECKING:
    from .digit_anatomy import DigitAnatomy
    from .image_files import check_image_files, read_image
    from .loco_layout import (
        ANOMALY_KINDS,
        DefectChannel,
        DefectConfig,
        anomaly_kind,
        anomaly_kinds,
        category_kinds,
        mask_folder,
        read_defect_channels,
        read_defects_config,
    )
    from .loco_scenes import LocoScenes
    from .mvtec_loco import MVTecLoco, MVTecLocoDataset

__all__ = [
    "ANOMALY_KINDS",
    "DefectChannel",
    "DefectConfig",
    "DigitAnatomy",
    "LocoScenes",
    "MVTecLoco",
    "MVTecLocoDataset",
    "anomaly_kind",
    "anomaly_kinds",
    "category_kinds",
    "check_image_files",
    "mask_folder",
    "read_defect_channels",
    "read_defects_config",
    "read_image",
]

_HOMES = {
    **dict.fromkeys(__all__, ".loco_layout"),
    "DigitAnatomy": ".digit_anatomy",
    "LocoScenes": ".loco_scenes",
    "MVTecLoco": ".mvtec_loco",
    "MVTecLocoDataset": ".mvtec_loco",
    "check_image_files": ".image_files",
    "read_image": ".image_files",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)

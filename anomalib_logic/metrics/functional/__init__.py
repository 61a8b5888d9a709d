# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Metrics as pure functions on tensors."""

from .auroc import auroc
from .spro import (
    ScoreCounts,
    SproCurve,
    au_spro,
    count_scores,
    merge_regions,
    merge_scores,
    resize_anomaly_map,
    saturation_area,
    spro_curve,
)

__all__ = [
    "ScoreCounts",
    "SproCurve",
    "au_spro",
    "auroc",
    "count_scores",
    "merge_regions",
    "merge_scores",
    "resize_anomaly_map",
    "saturation_area",
    "spro_curve",
]

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Logical anomaly detection for Anomalib.

The public classes are loaded when they are first used, and registered with Anomalib when ``anomalib.models`` is
imported, whichever comes first; until then this package costs next to nothing.
"""

from typing import TYPE_CHECKING

from ._lazy import lazy_names
from ._version import __version__
from .registration import register_with_anomalib

if TYPE_CHECKING:
    from .data import DigitAnatomy, LocoScenes, MVTecLoco
    from .explanations import ExplanationVisualizer, ExplanationWriter, HtmlReport
    from .metrics import AnomalyMapWriter, AUsPRO, LocoAUROC, LocoEvaluator
    from .models import Glcf, Lgfdr, SamLad
    from .models.components.post_processing import CalibratedPostProcessor

__all__ = [
    "AUsPRO",
    "AnomalyMapWriter",
    "CalibratedPostProcessor",
    "DigitAnatomy",
    "ExplanationVisualizer",
    "ExplanationWriter",
    "Glcf",
    "HtmlReport",
    "Lgfdr",
    "LocoAUROC",
    "LocoEvaluator",
    "LocoScenes",
    "MVTecLoco",
    "SamLad",
    "__version__",
]

_HOMES = {
    "AUsPRO": ".metrics",
    "AnomalyMapWriter": ".metrics",
    "CalibratedPostProcessor": ".models.components.post_processing",
    "DigitAnatomy": ".data",
    "ExplanationVisualizer": ".explanations",
    "ExplanationWriter": ".explanations",
    "Glcf": ".models",
    "HtmlReport": ".explanations",
    "Lgfdr": ".models",
    "LocoAUROC": ".metrics",
    "LocoEvaluator": ".metrics",
    "LocoScenes": ".data",
    "MVTecLoco": ".data",
    "SamLad": ".models",
}


__getattr__, __dir__ = lazy_names(__name__, _HOMES)

register_with_anomalib()

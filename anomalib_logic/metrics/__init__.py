# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The metrics of the MVTec LOCO AD protocol: metrics, evaluator, command and maps in MVTec's layout.

The public names are loaded on first use: the command (:mod:`~anomalib_logic.metrics.loco`) needs nothing of Anomalib.
"""

from typing import TYPE_CHECKING

from anomalib_logic._lazy import lazy_names

if TYPE_CHECKING:
    from .anomaly_map_writer import AnomalyMapWriter
    from .auroc import LocoAUROC
    from .evaluator import LocoEvaluator
    from .spro import AUsPRO

__all__ = ["AUsPRO", "AnomalyMapWriter", "LocoAUROC", "LocoEvaluator"]

_HOMES = {
    "AUsPRO": ".spro",
    "AnomalyMapWriter": ".anomaly_map_writer",
    "LocoAUROC": ".auroc",
    "LocoEvaluator": ".evaluator",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What a model found, for people and machines: pictures, a JSON file for each image, and a report of a test run."""

from typing import TYPE_CHECKING

from anomalib_logic._lazy import lazy_names

if TYPE_CHECKING:
    from .report import HtmlReport
    from .visualizer import ExplanationVisualizer
    from .writer import ExplanationWriter

__all__ = ["ExplanationVisualizer", "ExplanationWriter", "HtmlReport"]

_HOMES = {
    "ExplanationVisualizer": ".visualizer",
    "ExplanationWriter": ".writer",
    "HtmlReport": ".report",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)

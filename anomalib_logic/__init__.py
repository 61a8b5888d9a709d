# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Logical anomaly detection for Anomalib.

The public classes are loaded when they are first used, and registered with Anomalib when ``anomalib.models`` is
imported, whichever comes first; until then this package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._after_import import call_after_import
from ._version import __version__
from .registration import register

if TYPE_CHECKING:
    from .data import DigitAnatomy, MVTecLoco
    from .models import Glcf, SamLad

__all__ = ["DigitAnatomy", "Glcf", "MVTecLoco", "SamLad", "__version__"]

_HOMES = {"DigitAnatomy": ".data", "Glcf": ".models", "MVTecLoco": ".data", "SamLad": ".models"}


def __getattr__(name: str) -> Any:
    """Load a public class on first use."""
    if name not in _HOMES:
        msg = f"module '{__name__}' has no attribute '{name}'"
        raise AttributeError(msg)
    value = getattr(import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})


call_after_import("anomalib.models", register)

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Admission of this package's classes to Anomalib's registries.

Anomalib 2.7 has no plug-in mechanism: ``get_model`` finds models among the imported subclasses of its base class and
imports class paths from an allow-list of modules only; ``get_datamodule`` looks names up in ``anomalib.data``; and
``anomalib benchmark`` imports nothing but those. So this package registers itself when ``anomalib.models`` is imported,
and a ``.pth`` file beside it in the environment makes sure that it is there to notice.
"""

import warnings
from importlib import import_module


def register() -> None:
    """Make Anomalib know the models and data modules; a failure is a warning, for Anomalib must work all the same."""
    try:
        import_module("anomalib_logic.models")
        data = import_module("anomalib_logic.data")
        import_module("anomalib.models").ALLOWED_MODULES.add("anomalib_logic")
        for name in ("MVTecLoco", "DigitAnatomy", "LocoScenes"):
            _add_data_module(getattr(data, name))
    except Exception as error:
        warnings.warn(f"anomalib_logic could not register with Anomalib: {error!r}", stacklevel=2)


def _add_data_module(data_module: type) -> None:
    registry = import_module("anomalib.data")
    known = getattr(registry, data_module.__name__, data_module)
    if known is not data_module:
        msg = f"anomalib.data.{data_module.__name__} is taken by {known}; import ours from anomalib_logic"
        raise AttributeError(msg)
    setattr(registry, data_module.__name__, data_module)

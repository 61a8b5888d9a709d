# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Admission of this package's classes to Anomalib's registries.

Anomalib 2.7 has no plug-in mechanism: ``get_model`` finds models among the imported subclasses of its base class and
imports class paths from an allow-list of modules only; ``get_datamodule`` looks names up in ``anomalib.data``; and
``anomalib benchmark`` imports nothing but those. So this package registers itself when it is imported or, where
``anomalib.models`` is not loaded yet (that takes seconds), as soon as that is.
"""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

MODELS = "anomalib.models"


def register() -> None:
    """Make Anomalib know the models and data modules; a failure is a warning, for Anomalib must work all the same."""
    try:
        import_module("anomalib_logic.models")
        data = import_module("anomalib_logic.data")
        import_module(MODELS).ALLOWED_MODULES.add("anomalib_logic")
        for name in ("MVTecLoco", "DigitAnatomy", "LocoScenes"):
            _add_data_module(getattr(data, name))
    except Exception as error:
        warnings.warn(f"anomalib_logic could not register with Anomalib: {error!r}", stacklevel=2)


def register_with_anomalib() -> None:
    """Call :func:`register` once: now if Anomalib's models are imported already, else as soon as they are."""
    if MODELS in sys.modules:
        register()
    else:
        sys.meta_path.insert(0, _FirstImport())


class _FirstImport(MetaPathFinder):
    """Finder of nothing but the first import of Anomalib's models, after which it is gone and :func:`register` runs."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the module as Python does, and have the module registered with after it has run."""
        if fullname != MODELS:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            loader, run = spec.loader, spec.loader.exec_module

            def run_and_register(module: ModuleType) -> None:
                del loader.exec_module  # the class's method again, for a reload
                run(module)
                register()

            setattr(loader, "exec_module", run_and_register)  # noqa: B010  mypy takes no assignment to a method
        return spec


def _add_data_module(data_module: type) -> None:
    registry = import_module("anomalib.data")
    known = getattr(registry, data_module.__name__, data_module)
    if known is not data_module:
        msg = f"anomalib.data.{data_module.__name__} is taken by {known}; import ours from anomalib_logic"
        raise AttributeError(msg)
    setattr(registry, data_module.__name__, data_module)

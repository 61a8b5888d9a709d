# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Make Anomalib know this package's models and data modules as soon as ``anomalib.models`` is imported.

Anomalib 2.7 has no plug-in mechanism: ``get_model`` imports classes from an allow-list of its own modules only, and
``anomalib benchmark`` imports nothing else. ``anomalib_logic_autoload.pth``, installed beside this module, runs it when
Python starts. All it does then is to wait for the import of ``anomalib.models``, and to import ``anomalib_logic`` right
after it; the package registers itself. Programs without Anomalib notice nothing.

Set the environment variable ``ANOMALIB_LOGIC_AUTOLOAD=0`` to switch it off; ``import anomalib_logic`` then registers.
"""

import os
import sys
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder

_TRIGGER = "anomalib.models"


class _AfterImport:
    """Loader that imports ``anomalib_logic`` after the trigger, through the trigger's own loader."""

    def __init__(self, loader) -> None:  # noqa: ANN001
        self._loader = loader

    def __getattr__(self, name: str):  # noqa: ANN204
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec):  # noqa: ANN201
        return self._loader.create_module(spec)

    def exec_module(self, module) -> None:  # noqa: ANN001
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        try:
            import_module("anomalib_logic")
        except Exception as error:  # noqa: BLE001  # Anomalib must work whatever is wrong with this package.
            import warnings

            warnings.warn(f"anomalib_logic could not be loaded: {error!r}", stacklevel=2)


class _Finder:
    """Finder that claims nothing but the first import of the trigger."""

    @classmethod
    def find_spec(cls, name: str, path=None, target=None) -> ModuleSpec | None:  # noqa: ANN001
        if name != _TRIGGER:
            return None
        sys.meta_path.remove(cls)
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None and "anomalib_logic" not in sys.modules:
            spec.loader = _AfterImport(spec.loader)
        return spec


if os.environ.get("ANOMALIB_LOGIC_AUTOLOAD", "1") != "0":
    sys.meta_path.insert(0, _Finder)

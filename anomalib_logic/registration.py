# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Admission of this package's classes to Anomalib's registries."""

from importlib import import_module

from anomalib.data import AnomalibDataModule
from anomalib.models import ALLOWED_MODULES


def register(data_modules: tuple[type[AnomalibDataModule], ...]) -> None:
    """Make ``get_model`` accept ``anomalib_logic.*`` class paths, and ``get_datamodule`` this package's data modules.

    ``get_model`` imports classes only from modules in ``anomalib.models.ALLOWED_MODULES``; ``get_datamodule`` looks
    classes up by name in ``anomalib.data``. Models need no more than to be imported to be found by their short name.

    Args:
        data_modules: Data modules to add.

    Raises:
        AttributeError: If Anomalib has a data module of the same name already.
    """
    ALLOWED_MODULES.add("anomalib_logic")
    registry = import_module("anomalib.data")
    for data_module in data_modules:
        known = getattr(registry, data_module.__name__, data_module)
        if known is not data_module:
            msg = f"anomalib.data.{data_module.__name__} is taken by {known}; import ours from anomalib_logic"
            raise AttributeError(msg)
        setattr(registry, data_module.__name__, data_module)

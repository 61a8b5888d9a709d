# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""One sentence for a wrong argument of the command line, of which jsonargparse lists every type that it tried."""

import ast
import difflib
import inspect
import re
from collections.abc import Sequence
from importlib import import_module
from typing import Any, get_args

FOLDER = "--data Folder --data.name NAME --data.root FOLDER --data.normal_dir good"

_GROUP = re.compile(r'Parser key "(\w+)":')
_CLASS = re.compile(r"Problem with given class_path '([\w.]+)'")
_UNKNOWN = re.compile(r"Option '([\w.]+)' is not accepted")
_MISSING = re.compile(r"Option '([\w.]+)' is required")
_CHOICE = re.compile(r'Parser key "([\w.]+)":\s+Expected a typing\.Literal(\[.*?\])\. Got value: (\S+)')
_NO_CLASS = re.compile(r"Expected a dot import path string: (\S+)")
_NO_PATH = re.compile(r"Unexpected import path format: (\S+)")


def argument_sentence(message: str) -> str | None:
    """Say what is wrong with an argument.

    Args:
        message: What jsonargparse says of it.

    Returns:
        A sentence; ``None`` for what is not known here.
    """
    group, owner = _GROUP.search(message), _CLASS.search(message)
    if group is None:
        return None
    option = f"--{group[1]}"
    if owner is not None:
        if found := _UNKNOWN.search(message):
            close = _close(found[1], option_names(owner[1]))
            hint = f"; did you mean {_joined([f'{option}.{name}' for name in close])}?" if close else "."
            return f"{owner[1]} has no option {option}.{found[1]}{hint} All are listed by {option}.help {owner[1]}"
        if found := _CHOICE.search(message):
            values = ", ".join(map(str, ast.literal_eval(found[2])))
            return f"{option}.{found[1]} must be one of {values}, got '{found[3]}'"
        if found := _MISSING.search(message):
            return f"{owner[1]} needs {option}.{found[1]}"
    if found := _NO_CLASS.search(message):
        close = _close(found[1], class_names(group[1]))
        hint = f"; did you mean {_joined(close)}?" if close else ""
        return f"{option} {found[1]}: there is no such class{hint}"
    if group[1] == "data" and (found := _NO_PATH.search(message)):
        return f"--data {found[1]}: only predict takes a folder; others take a data module, such as {FOLDER}"
    return None


def option_names(path: str) -> list[str]:
    """Names of the options of a class, by its full name; with those of its ``**options`` if these are typed."""
    module, _, name = path.rpartition(".")
    try:
        parameters = inspect.signature(getattr(import_module(module), name)).parameters.values()
    except (ImportError, AttributeError, TypeError, ValueError):
        return []
    names = []
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD:
            names += [key for kind in get_args(parameter.annotation) for key in getattr(kind, "__annotations__", ())]
        else:
            names.append(parameter.name)
    return names


def class_names(group: str) -> list[str]:
    """Names of the models or data modules that there are."""
    from anomalib.data import AnomalibDataModule
    from anomalib.models import AnomalibModule

    bases: dict[str, type[Any]] = {"model": AnomalibModule, "data": AnomalibDataModule}
    kinds = [bases[group]] if group in bases else []
    for kind in kinds:
        kinds += kind.__subclasses__()
    return sorted({kind.__name__ for kind in kinds[1:] if not kind.__name__.startswith("_")})


def _close(word: str, names: Sequence[str]) -> list[str]:
    """At most three names that are like a word, whatever their case and punctuation, the closest first."""
    plain = {re.sub(r"[^a-z0-9]", "", name.lower()): name for name in names}
    found = difflib.get_close_matches(re.sub(r"[^a-z0-9]", "", word.lower()), plain, n=3, cutoff=0.7)
    return [plain[name] for name in found]


def _joined(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

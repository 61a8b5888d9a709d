# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What a data folder holds besides the files that are used: dead links are refused, everything else is named."""

from __future__ import annotations

import logging
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from .image_files import is_image_name, require_file

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

logger = logging.getLogger(__name__)

NAMED = 5  # of the entries that are left out
Names = dict[str, set[str]]


def name_left_out(folder: str | Path, used: Iterable[str | Path] = (), known: Collection[str] = ()) -> None:
    """Warn of what is not used below a folder, once for each list; see :func:`find_left_out`.

    Raises:
        FileNotFoundError: If a link with the name of an image leads to nothing.
        ValueError: If a pipe or a device has the name of an image.
    """
    left_out = find_left_out(folder, used, known)
    for path in (Path(folder) / name for name in left_out if not name.endswith("/")):
        if is_image_name(path.name) and not path.name.startswith("."):
            require_file(path)
    if left_out:
        more = f" and {len(left_out) - NAMED} more" if len(left_out) > NAMED else ""
        _warn_once(f"{folder} holds what no data set uses and is left out: {', '.join(left_out[:NAMED])}{more}")


def find_left_out(folder: str | Path, used: Iterable[str | Path], known: Collection[str] = ()) -> list[str]:
    """List what is not used below a folder.

    Args:
        folder: Folder; need not exist.
        used: Files that are used.
        known: Names right below the folder that are not looked at.

    Returns:
        Paths from the folder, sorted. Folders end with ``/``; of those without a used file only the folder is listed.
    """
    if not Path(folder).is_dir():
        return []
    folder, names = os.path.realpath(folder), names_by_folder(used)
    parents = {str(parent) for path in names for parent in (Path(path), *Path(path).parents)}
    parents -= {str(parent) for parent in Path(folder).parents}  # to which links may lead back
    return sorted(_left_out(folder, "", names, parents, known))


def names_by_folder(files: Iterable[str | Path]) -> Names:
    """Names of files by the folder that holds them, whose path has no links."""
    folders: Names = {}
    for file in files:
        folder, name = os.path.split(file)
        folders.setdefault(folder, set()).add(name)
    names: Names = {}
    for folder in folders:  # few, so that links are looked up seldom
        names.setdefault(os.path.realpath(folder), set()).update(folders[folder])
    return names


def _left_out(folder: str, prefix: str, used: Names, parents: set[str], known: Collection[str]) -> Iterator[str]:
    names = used.get(folder, ())
    parents.discard(folder)  # visited
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name in names or entry.name in known:
                continue
            if not entry.is_dir():
                yield prefix + entry.name
            elif (path := os.path.realpath(entry.path)) in parents:
                yield from _left_out(path, f"{prefix}{entry.name}/", used, parents, ())
            else:
                yield f"{prefix}{entry.name}/"


@lru_cache
def _warn_once(message: str) -> None:
    logger.warning(message)

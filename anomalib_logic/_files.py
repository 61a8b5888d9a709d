# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Files that appear only when they are complete."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """Give the name of a temporary file, of the same type, which replaces a file at the end.

    Args:
        path: The file; its folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.tmp{path.suffix}")  # not longer than a name may be
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_folder(path: Path, argument: str) -> None:
    """Raise ``NotADirectoryError`` if what must be a folder, or not exist yet, is a file.

    Args:
        path: The folder.
        argument: Name of the argument that it was given as.
    """
    if path.exists() and not path.is_dir():
        msg = f"{argument} must be a folder or not exist, got the file {path}"
        raise NotADirectoryError(msg)


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8; characters that UTF-8 lacks (bytes of odd file names) are escaped.

    Args:
        path: The file, which is replaced; its folder is made.
        text: Its content.
    """
    with complete_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Anomaly maps as TIFF files in the layout of submissions to MVTec LOCO AD."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

from anomalib_logic._files import complete_file

MAP_SUFFIXES = (".tif", ".tiff")


def read_map(path: str | Path) -> np.ndarray:
    """Read a map.

    Returns:
        Finite scores, float32, shape ``(H, W)``.

    Raises:
        ValueError: If the file is no readable TIFF file, or its content no 2-D array of finite real numbers.
    """
    try:
        pixels = tifffile.imread(path)
    except Exception as error:  # tifffile and its codecs document no common class
        msg = f"{path} is not a readable TIFF file ({type(error).__name__}: {error}); write the map again"
        raise ValueError(msg) from error
    if pixels.ndim != 2 or pixels.dtype.kind not in "fiu":
        msg = f"anomaly map {path} must be 2-D (height, width) and real, got shape {pixels.shape}, {pixels.dtype}"
        raise ValueError(msg)
    with np.errstate(over="ignore"):
        scores = pixels.astype(np.float32, copy=False)
    if not np.isfinite(scores).all():
        msg = f"anomaly map {path} must have finite scores only, got NaN or infinity (as float32)"
        raise ValueError(msg)
    return scores


def write_map(path: Path, scores: np.ndarray) -> None:
    """Write a map as an uncompressed float32 TIFF file; the file appears only when it is complete.

    Args:
        path: The file; its folder is made.
        scores: Shape ``(H, W)``.
    """
    with complete_file(path) as temporary:
        tifffile.imwrite(temporary, scores.astype(np.float32, copy=False))


def find_maps(folder: Path) -> dict[str, Path]:
    """Return the map files right below a folder by their stem.

    Raises:
        ValueError: If two files are maps of the same image.
    """
    maps: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix.lower() not in MAP_SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in maps:
            msg = f"{maps[path.stem]} and {path} are maps of the same image; remove one"
            raise ValueError(msg)
        maps[path.stem] = path
    return maps

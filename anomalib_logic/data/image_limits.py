# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""How many pixels an image file may have: as many as memory holds, instead of Pillow's fixed number.

Pillow warns above ``Image.MAX_IMAGE_PIXELS`` and refuses twice as many. Line cameras write larger files.
"""

from __future__ import annotations

import math
import threading
from functools import lru_cache
from pathlib import Path

from PIL import Image

from anomalib_logic._memory import memory_gigabytes

BYTES_A_PIXEL = 20  # of memory: decoded, as bytes and as float32, 19 measured while Anomalib reads an image
UNKNOWN_MEMORY = 4.0  # gigabytes, where the system does not tell
PILLOWS_LIMIT = 178_956_970  # pixels; above it a header that claims so many is only believed after decoding
PNG_PIXELS_A_BYTE = 8 * 1032  # of a file at most: one bit a pixel, and deflate's largest ratio
_OPENING = threading.Lock()


def open_of_any_size(path: str | Path) -> Image.Image:
    """Open a file as ``Image.open`` does, without Pillow's limit of pixels."""
    with _OPENING:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def check_size(path: str | Path, image: Image.Image) -> None:
    """Refuse an open file with more pixels than it, or memory, can hold; no pixel is decoded.

    Raises:
        ValueError: If it has.
    """
    pixels = image.width * image.height
    size = f"{path} has {image.width} x {image.height} pixels by its header"
    if pixels > _most_pixels(path, image):
        msg = f"{size}, more than the file can hold: it is damaged; restore it or remove it from the data set"
        raise ValueError(msg)
    needed, memory = pixels * BYTES_A_PIXEL / 1e9, _memory()
    if needed > memory:
        msg = (
            f"{size}, and reading them takes {needed:.1f} GB of memory, of which this machine has {memory:.1f}; cut "
            "such images into parts, or make all images smaller by the same factor"
        )
        raise ValueError(msg)


def _most_pixels(path: str | Path, image: Image.Image) -> float:
    """Pixels that an open file can hold at most, as far as that can be told without decoding it."""
    if image.format == "PNG":
        return PNG_PIXELS_A_BYTE * Path(path).stat().st_size
    if image.format != "TIFF":
        return math.inf
    tags = image.tag_v2  # type: ignore[attr-defined]
    planes = tags.get(277, 1) if tags.get(284) == 2 else 1
    if 324 in tags:  # tiles
        return len(tags[324]) * tags.get(322, image.width) * tags.get(323, image.height) / planes
    return len(tags.get(273, ())) * tags.get(278, image.height) * tags.get(256, image.width) / planes


def allow_in_pillow(pixels: int) -> None:
    """Let this process, and those that it forks, open images of up to so many pixels with Pillow."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and pixels > limit:
        Image.MAX_IMAGE_PIXELS = pixels


@lru_cache
def _memory() -> float:
    return memory_gigabytes() or UNKNOWN_MEMORY

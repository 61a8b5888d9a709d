# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Mask files: where the defect's pixel value is, for each mode of image files.

* Grey: the value. One bit: 255. RGB (AutoVI): the value that all channels of the one colour that are not zero have.
* Palette: the index, whatever its colour.
* Alpha: where alpha is the same everywhere, as without it; where alpha varies and the colour does not, alpha; where
  both vary and mark the same pixels, the colour. Anything else has two readings and is refused.
* More than 8 bits, CMYK, YCbCr, Lab, and files with lossy compression are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .image_files import has_wide_channels, list_images, load_pixels, open_image

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

_MODES = ("1", "L", "P", "RGB", "LA", "RGBA")
_LOSSY_FORMATS = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF")
_LOSSY_COMPRESSIONS = ("jpeg", "tiff_jpeg", "webp")  # in TIFF files


def list_masks(folder: Path) -> list[Path]:
    """Return an image's mask files, sorted.

    Args:
        folder: The image's mask folder.

    Raises:
        FileNotFoundError: If there are none.
        ValueError: If two files differ only in their suffix.
    """
    files = list_images(folder)
    if not files:
        fault = "holds no image file" if folder.is_dir() else "does not exist"
        msg = f"mask folder {folder} {fault}; put the image's masks there, or remove the image"
        raise FileNotFoundError(msg)
    return files


def read_mask_size(path: Path) -> tuple[int, int]:
    """Read height and width in pixels from a mask file's header.

    Raises:
        ValueError: If the file is no image, has lossy compression, or a mode that no mask has.
    """
    with open_image(path) as image:
        _check_header(path, image)
        return image.height, image.width


def read_mask_values(path: Path) -> np.ndarray:
    """Read a mask.

    Args:
        path: Mask file.

    Returns:
        Value of each pixel, 0 where there is no defect; uint8, shape ``(H, W)``.

    Raises:
        ValueError: If the file cannot be decoded, or is refused (see the module's docstring).
    """
    with open_image(path) as image:
        _check_header(path, image)
        load_pixels(path, image)
        if image.mode == "P":
            return _palette_values(path, image)
        if image.has_transparency_data:
            return _values_beside_alpha(path, np.array(image.convert("RGBA")))
        if image.mode == "RGB":
            return _colour_values(path, np.array(image))
        return np.array(image.convert("L"))


def _check_header(path: Path, image: Image.Image) -> None:
    """Refuse a format or a mode that no mask has."""
    if image.format in _LOSSY_FORMATS or image.info.get("compression") in _LOSSY_COMPRESSIONS:
        msg = f"mask {path} is a file with lossy compression ({image.format}), which changes values; save it as PNG"
        raise ValueError(msg)
    if image.mode not in _MODES or has_wide_channels(image):
        msg = (
            f"mask {path} must be an 8-bit greyscale, palette, RGB or RGBA image, got mode {image.mode!r}"
            f"{' of 16 bits' if has_wide_channels(image) else ''}; save it as an 8-bit greyscale PNG"
        )
        raise ValueError(msg)


def _palette_values(path: Path, image: Image.Image) -> np.ndarray:
    """Return the indices; refuse those of defects that are drawn as background."""
    indices = np.array(image)
    colours = np.array(image.convert("RGBA")).reshape(-1, 4)
    defect = indices.ravel() != 0
    if (colours[defect, 3] == 0).any() or _inverted(colours, defect):
        msg = (
            f"mask {path} has a palette (mode 'P') that draws index 0 as defect or another index as background; "
            "save it as an 8-bit greyscale PNG with 0 for the background"
        )
        raise ValueError(msg)
    return indices


def _inverted(colours: np.ndarray, defect: np.ndarray) -> bool:
    """Tell whether index 0 is drawn brighter than black, and the other indices black."""
    return (
        bool(defect.any() and not defect.all()) and not colours[defect, :3].any() and bool(colours[~defect, :3].any())
    )


def _values_beside_alpha(path: Path, pixels: np.ndarray) -> np.ndarray:
    """Take a mask from alpha or colours, shape ``(H, W, 4)``, whichever holds it."""
    colours, alpha = pixels[..., :3], pixels[..., 3]
    if alpha.min() == alpha.max() > 0:
        return _colour_values(path, colours)
    if (colours == colours[0, 0]).all():
        return alpha
    values = _colour_values(path, colours)
    if ((values != 0) != (alpha != 0)).any():
        msg = (
            f"mask {path} has an alpha channel and colours (mode 'RGBA') that mark different pixels; "
            "save it as an 8-bit greyscale PNG"
        )
        raise ValueError(msg)
    return values


def _colour_values(path: Path, colours: np.ndarray) -> np.ndarray:
    """Reduce colours, shape ``(H, W, 3)``, to the value of their channels that are not zero."""
    values = colours.max(axis=-1)
    for channel in range(3):
        used = colours[..., channel]
        if used.any() and (used != values).any():
            msg = (
                f"mask {path} has several colours or one of unequal channels (mode 'RGB'), so that it has no one "
                "pixel value; save it as an 8-bit greyscale PNG"
            )
            raise ValueError(msg)
    return values

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Image files: which are read, and which are refused because Anomalib would misread them.

Anomalib's data sets, ``PredictDataset``, ``TorchInferencer`` and ``OpenVINOInferencer`` all read a file with Pillow's
``Image.open(path).convert("RGB")``. An image has one answer only if training reads it in that way, too. So a file is
either read exactly so, or refused:

* Read: 8-bit grey, RGB, CMYK, YCbCr and Lab, 1 bit, palettes. The conversion is a fixed formula for each pixel. Also an
  alpha channel or a transparent palette if every pixel is opaque, and TIFF files with an orientation, which Pillow
  applies. PPM files of more than 8 bits are scaled by the largest value, which they name.
* Refused: more than 8 bits a channel and float (values above 255 become white, those of float images below 1 black; of
  16-bit RGB the upper byte is kept, which is 15 of 255 at most for 12 bits); transparent pixels (their hidden colours
  show); an EXIF orientation outside TIFF (it is ignored); several pictures in a file (the first one is used). A scale
  that only this package applies would give training another image than an exported file.

An image may have as many pixels as memory allows (see :mod:`~.image_limits`), also above Pillow's limit.
"""

from __future__ import annotations

import re
import struct
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import ExifTags, Image

from .image_limits import PILLOWS_LIMIT, allow_in_pillow, check_size, open_of_any_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

# Those of Anomalib, which takes torchvision's
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

_MODES = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "LA", "PA", "RGBA")
_WIDE_CHANNELS = re.compile(r"[A-Za-z]+;16[BLN]")  # Pillow's names of 16-bit samples that it reads as 8 bits
END_MARKS = {".png": b"IEND", ".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9"}  # of files by their suffix
END_BYTES = 64  # at the end of a file, among which its mark must be
LENGTHS = {".bmp": (2, 0), ".webp": (4, 8)}  # where a file has its length, 4 bytes, and what that does not count
PARTS = ((273, 279), (324, 325))  # TIFF's tags of the places and lengths of strips, and of tiles
DECODED = 10  # of the files with an alpha channel, which only their pixels tell to be opaque
_READERS = "Anomalib's data sets and inferencers"
_BROKEN = (  # what Pillow raises for damaged files
    ArithmeticError,
    AssertionError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    Image.DecompressionBombError,
    struct.error,
)


def list_images(folder: Path) -> list[Path]:
    """Return the image files right below a folder, sorted; hidden files and other files are left out.

    Args:
        folder: Folder; need not exist.

    Raises:
        FileNotFoundError: If an image is a link to a file that does not exist.
        ValueError: If an image is no file, or two files differ only in their suffix: masks and maps are named by the
            stem.
    """
    if not folder.is_dir():
        return []
    images = sorted(path for path in folder.iterdir() if is_image_name(path.name) and not path.name.startswith("."))
    by_stem: dict[str, Path] = {}
    for path in images:
        require_file(path)
        if path.stem in by_stem:
            msg = (
                f"{by_stem[path.stem]} and {path} have the same stem, by which masks and maps are named; "
                "rename or remove one"
            )
            raise ValueError(msg)
        by_stem[path.stem] = path
    return images


def is_image_name(name: str) -> bool:
    """Tell whether a file's name has a suffix of Anomalib's image files."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def require_file(path: str | Path) -> None:
    """Refuse a link to nothing, and whatever cannot be read as a file.

    Raises:
        FileNotFoundError: If there is nothing at the path, or a link to nothing.
        ValueError: If there is a folder, a pipe or a device.
    """
    path = Path(path)
    if path.is_file():
        return
    if path.exists():
        msg = f"{path} has the name of an image file and is none, but a folder or a device; rename or remove it"
        raise ValueError(msg)
    if path.is_symlink():
        msg = f"{path} is a link to {path.readlink()}, which does not exist; restore that file or remove the link"
        raise FileNotFoundError(msg)
    msg = f"{path} does not exist; restore it"
    raise FileNotFoundError(msg)


def read_size(path: str | Path) -> tuple[int, int]:
    """Read height and width in pixels from an image file's header.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no image.
    """
    with open_image(path) as image:
        return image.height, image.width


def read_image(path: str | Path) -> torch.Tensor:
    """Read an image as Anomalib's ``read_image`` does, or refuse it.

    Args:
        path: Image file.

    Returns:
        Image, float32 in [0, 1], shape ``(3, H, W)``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be decoded, or Anomalib would misread it (see the module's docstring).
    """
    import torch
    from torchvision.transforms.v2.functional import to_dtype, to_image

    with open_image(path) as image:
        _check_header(path, image)
        _check_pixels(path, image)
        return to_dtype(to_image(image.convert("RGB")), torch.float32, scale=True)


def check_header(path: str | Path) -> None:
    """Refuse a file that Anomalib would misread, as far as its header tells; pixels are not decoded.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no image, or its mode, bits or orientation are those of a refused file.
    """
    with open_image(path) as image:
        _check_header(path, image)


def check_image_files(paths: Sequence[str | Path]) -> None:
    """Refuse files that Anomalib would misread, before a data set that reads them itself is used.

    Of all files the header is read, and how long they must be: those that are shorter, or lack the mark of their end,
    are decoded, and those above Pillow's limit of pixels, which is then raised to the largest of them for the process.
    Images with an alpha channel must be decoded to tell, so that only some ten of them are.

    Args:
        paths: Image files.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a file is no image, Anomalib would misread it (see the module's docstring), or memory does not
            suffice for it.
    """
    transparent: list[str | Path] = []

    def check(path: str | Path, image: Image.Image) -> None:
        _check_header(path, image)
        if image.has_transparency_data:
            transparent.append(path)

    check_files(paths, check)
    for path in transparent[:: max(1, len(transparent) // DECODED)]:
        with open_image(path) as image:
            _check_pixels(path, image)


def check_files(paths: Sequence[str | Path], check: Callable[[str | Path, Image.Image], None] | None = None) -> None:
    """Refuse files that cannot be read, have several pictures or too many pixels, see :func:`check_image_files`.

    Args:
        paths: Files of images or masks.
        check: Called with each path and its open file.
    """
    largest = 0
    for path in paths:
        with open_image(path) as image:
            if check is not None:
                check(path, image)
            largest = max(largest, image.width * image.height)
            if image.width * image.height > PILLOWS_LIMIT:
                load_pixels(path, image)
        if not _is_whole(path):
            with open_image(path) as image:
                load_pixels(path, image)
    allow_in_pillow(largest)


def _is_whole(path: str | Path) -> bool:
    """Whether a file has its end, as far as that can be told without decoding it."""
    suffix = Path(path).suffix.lower()
    with Path(path).open("rb") as file:
        length = file.seek(0, 2)
        if suffix in END_MARKS:
            file.seek(max(0, length - END_BYTES))
            return END_MARKS[suffix] in file.read()
        if suffix in LENGTHS:
            place, uncounted = LENGTHS[suffix]
            file.seek(place)
            return int.from_bytes(file.read(4), "little") + uncounted <= length
    with warnings.catch_warnings(record=True) as doubts:
        warnings.simplefilter("always")  # Pillow warns of tags of TIFF files that are not there, and drops them
        with open_image(path) as image:
            return _length(image) <= length and not doubts


def _length(image: Image.Image) -> int:
    """Least number of bytes that an open TIFF, PPM or PGM file can have; beyond all if its header does not tell."""
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        parts = [zip(tags[places], tags.get(lengths, ()), strict=False) for places, lengths in PARTS if places in tags]
        return max((place + length for part in parts for place, length in part), default=sys.maxsize)
    tile = image.tile[0] if image.tile else None  # type: ignore[attr-defined]
    if tile is None or tile[0] != "raw" or image.mode == "1":
        return sys.maxsize
    return int(tile[2]) + image.width * image.height * len(image.getbands())


def unreadable_image(path: str | Path, error: Exception) -> ValueError:
    """Build the error for a file that cannot be decoded."""
    return ValueError(f"{path} is not a readable image file ({error}); restore it or remove it from the data set")


def has_wide_channels(image: Image.Image) -> bool:
    """Tell whether an image that is not decoded yet has 16-bit channels that Pillow would cut to 8 bits."""
    for tile in image.tile:  # type: ignore[attr-defined]
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if any(isinstance(name, str) and _WIDE_CHANNELS.fullmatch(name) for name in arguments):
            return True
    return False


def open_image(path: str | Path) -> Image.Image:
    """Open a file of one picture without decoding its pixels.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no image, has several pictures, or more pixels than it or memory can hold.
    """
    require_file(path)
    try:
        image = open_of_any_size(path)
    except _BROKEN as error:
        raise unreadable_image(path, error) from error
    try:
        check_size(path, image)
        _check_single(path, image)
    except ValueError:
        image.close()
        raise
    return image


def _check_single(path: str | Path, image: Image.Image) -> None:
    """Refuse an open file of several pictures."""
    try:
        several = getattr(image, "n_frames", 1) > 1 or _has_another_behind(image)
    except _BROKEN as error:
        raise unreadable_image(path, error) from error
    if several:
        msg = f"{path} has several pictures, of which {_READERS} use the first; save each as a file of its own"
        raise ValueError(msg)


def _has_another_behind(image: Image.Image) -> bool:
    """Tell whether an open PGM or PPM file goes on with another picture, which Pillow does not look for."""
    if image.format != "PPM" or image.tile[0][0] == "ppm_plain":  # type: ignore[attr-defined]
        return False
    name, _, offset, arguments = image.tile[0]  # type: ignore[attr-defined]
    wide = arguments[1] > 255 if name == "ppm" else arguments == "I;16B"
    row = (image.width + 7) // 8 if image.mode == "1" else image.width * len(image.getbands()) * (1 + wide)
    image.fp.seek(offset + row * image.height)  # type: ignore[attr-defined]
    return re.match(rb"\s*P[1-7]\s", image.fp.read(END_BYTES)) is not None  # type: ignore[attr-defined]


def load_pixels(path: str | Path, image: Image.Image) -> None:
    """Decode the pixels of an open file; raise ``ValueError`` if that fails."""
    allow_in_pillow(image.width * image.height)
    try:
        image.load()
    except _BROKEN as error:
        raise unreadable_image(path, error) from error


def _check_header(path: str | Path, image: Image.Image) -> None:
    """Refuse a mode or an orientation that an open file's header shows."""
    if image.mode.startswith(("I", "F")) or has_wide_channels(image):
        msg = (
            f"{path} has more than 8 bits a channel (mode {image.mode!r}), which {_READERS} cut to 8 bits without "
            "scaling; multiply the values of all images by the same 255 / largest possible value (4095 for 12 bits) "
            "and save them as 8-bit grey or RGB images"
        )
        raise ValueError(msg)
    if image.mode not in _MODES:
        msg = f"{path} has the mode {image.mode!r}; save it as an 8-bit grey or RGB image"
        raise ValueError(msg)
    # Pillow turns TIFF files itself, and would decode a PNG file to look for an orientation after its pixels
    if image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info):
        _check_orientation(path, image)


def _check_pixels(path: str | Path, image: Image.Image) -> None:
    """Decode an open file; refuse transparent pixels and an orientation that is stored after the pixels."""
    load_pixels(path, image)
    if image.format == "PNG":
        _check_orientation(path, image)
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] < 255:  # type: ignore[operator]
        msg = (
            f"{path} has transparent pixels (mode {image.mode!r}), of which {_READERS} show the hidden colours; draw "
            "it on a background, for example Image.alpha_composite(Image.new('RGBA', image.size, 'black'), "
            "image.convert('RGBA')).convert('RGB'), and save that"
        )
        raise ValueError(msg)


def _check_orientation(path: str | Path, image: Image.Image) -> None:
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation not in (0, 1):
        msg = (
            f"{path} is stored turned or mirrored (mode {image.mode!r}, EXIF orientation {orientation}), which "
            f"{_READERS} ignore; save it upright, for example ImageOps.exif_transpose(image).save(path)"
        )
        raise ValueError(msg)

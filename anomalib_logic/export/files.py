# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Image files as exported models take them, with the answer that Anomalib's engine gives for the file."""

from pathlib import Path

import numpy as np
import torch
from anomalib.data.utils import read_image
from PIL import Image

from .images import NamedImage, Size, as_batch

ORIENTATION = 0x0112  # of EXIF
UPRIGHT = (None, 0, 1)


def read(path: str | Path) -> NamedImage:
    """Read an image file: values in [0, 1], shape ``(3, H, W)``.

    Raises:
        ValueError: If Anomalib reads something else than the image; see :func:`check_readable`.
    """
    with Image.open(path) as image:
        check_readable(image, path)
    path = Path(path)
    return NamedImage(f"{path.parent.name}/{path.name}", read_image(path, as_tensor=True).as_subclass(torch.Tensor))


def check_readable(image: Image.Image, path: str | Path) -> None:
    """Refuse files of which Pillow's conversion to RGB, which Anomalib uses, makes another image.

    Args:
        image: The opened file.
        path: Its path, for the message.

    Raises:
        ValueError: If values have more than 8 bits (they would be cut off at 255), pixels are transparent (what is
            behind them would be seen), or EXIF says that the image is turned (it would not be).
    """
    reason = None
    if image.mode.startswith(("I", "F")):
        reason = "has more than 8 bits a value, and values above 255 would be cut off: save it with 8 bits"
    elif _transparent(image):
        reason = "has transparent pixels, and their hidden colours would be seen: save it as RGB without transparency"
    elif image.getexif().get(ORIENTATION) not in UPRIGHT:
        reason = "is turned by its EXIF orientation, which would be ignored: save it upright"
    if reason is not None:
        msg = f"{path} (mode {image.mode}) {reason}"
        raise ValueError(msg)


def _transparent(image: Image.Image) -> bool:
    if "transparency" not in image.info and image.mode not in ("RGBA", "LA", "PA", "RGBa", "La"):
        return False
    return image.convert("RGBA").getchannel("A").getextrema()[0] < 255


def fit(image: NamedImage, input_size: Size | None, image_size: Size | None) -> np.ndarray:
    """Make the batch of one image that a file takes for it.

    Args:
        image: The image.
        input_size: Height and width in pixels that the file is fixed to; ``None`` if it takes any.
        image_size: Height and width to which the engine resizes, where the file says it.

    Returns:
        Single precision, shape ``(1, 3, H, W)``.

    Raises:
        ValueError: If the file cannot give the engine's answer for an image of this size.
    """
    if input_size is None or image.size == input_size:
        return as_batch([image])
    if input_size == image_size:
        return as_batch([image], input_size)
    msg = (
        f"{image.name} has {_text(image.size)} pixels, and the exported file takes {_text(input_size)} only, which is "
        f"not the size of the model ({'unknown' if image_size is None else _text(image_size)}): resized twice, the "
        "image would get another answer than the engine's. Export without an input size, or with the model's"
    )
    raise ValueError(msg)


def _text(size: Size) -> str:
    return f"{size[0]} x {size[1]}"

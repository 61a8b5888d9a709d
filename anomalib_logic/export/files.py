# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Image files as exported models take them, with the answer that Anomalib's engine gives for the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from anomalib_logic.data.image_files import read_image

from .images import NamedImage, Size, as_batch


@contextmanager
def replacing(folder: str | Path) -> Iterator[Path]:
    """Write files beside a folder's own and let them take their places when all are complete.

    An export that is killed leaves the former files whole, and a hidden folder ``.export-*`` that can be deleted.

    Args:
        folder: Output folder.

    Yields:
        Folder to write to; its sub-folders are those of the output folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".export-", dir=folder) as name:
        yield Path(name)
        written = [path for path in Path(name).rglob("*") if path.is_file()]
        for path in sorted(written, key=lambda path: path.suffix in (".onnx", ".xml")):  # weights come first
            target = folder / path.relative_to(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)


def read(path: str | Path) -> NamedImage:
    """Read an image file: values in [0, 1], shape ``(3, H, W)``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no image, or Anomalib would misread it, see :mod:`anomalib_logic.data.image_files`.
    """
    path = Path(path)
    return NamedImage(f"{path.parent.name}/{path.name}", read_image(path).as_subclass(torch.Tensor))


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

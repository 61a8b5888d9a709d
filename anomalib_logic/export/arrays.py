# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Arrays that a model takes and gives: made of what the caller has, or refused, and never a wrong answer."""

from typing import Any

import numpy as np
import torch

from .images import Size

OUTPUTS = ("pred_score", "pred_label", "anomaly_map", "pred_mask")
EXCESS = 1e-3  # beyond [0, 1]: rounding after a resize, up to half precision's; a quarter of an 8-bit step
EIGHT_BITS = np.float32(1 / 255)  # as torchvision scales, which a division does not do to the last bit


def as_images(images: Any, input_size: Size | None = None) -> np.ndarray:
    """Make of images what every model takes.

    Args:
        images: Array, tensor or nested lists of shape ``(N, 3, H, W)`` in any memory layout: 8-bit values (``uint8``),
            which are divided by 255, or floating point of any width in [0, 1]. Values that exceed this range by
            ``EXCESS`` or less are clipped.
        input_size: Height and width in pixels that the model is fixed to; ``None`` if it takes any.

    Returns:
        Values in [0, 1], single precision, contiguous and writable, shape ``(N, 3, H, W)``.

    Raises:
        ValueError: If the images have another type, shape, size or range, or values that are no numbers.
    """
    array = _as_array(images)
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        kind = array.dtype.name if array.dtype.kind in "biuc" else type(images).__name__
        msg = (
            f"images must be an array of uint8 or of floating point in [0, 1], got {kind}: give 8-bit values as "
            "images.astype('uint8'), divide others by their largest possible value (4095 for 12 bits), and give the "
            "path of an image file to predict()"
        )
        raise ValueError(msg)
    _check_shape(array.shape, input_size)
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array, np.float32) * EIGHT_BITS
    low, high = float(array.min()), float(array.max())
    if not (low >= -EXCESS and high <= 1 + EXCESS):  # nor if they are NaN
        got = f"{low:.6g} to {high:.6g}" if np.isfinite([low, high]).all() else "values that are NaN or infinite"
        msg = (
            f"images must have values in [0, 1], got {got}: divide 8-bit values by 255 or give them as uint8, and do "
            "not normalise them, which the model does itself"
        )
        raise ValueError(msg)
    single = np.require(array, np.float32, ["C", "W", "A"])
    return single if low >= 0 and high <= 1 else single.clip(0, 1)


def _as_array(images: Any) -> np.ndarray:
    """Make an array of any kind."""
    try:
        if isinstance(images, torch.Tensor):
            images = images.detach().cpu()
            images = (images.float() if images.is_floating_point() else images).numpy()
        if np.ma.is_masked(images):
            msg = "it has masked values"
            raise ValueError(msg)
        return np.asarray(images)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        msg = f"images must be one array of shape (N, 3, H, W); images of several sizes go one by one ({reason})"
        raise ValueError(msg) from error


def _check_shape(shape: tuple[int, ...], input_size: Size | None) -> None:
    if len(shape) != 4 or shape[1] != 3 or 0 in shape:
        msg = f"images must have the shape (N, 3, H, W), none of them 0, got {shape}{_remedy(shape)}"
        raise ValueError(msg)
    if input_size is not None and shape[2:] != tuple(input_size):
        msg = (
            f"images must have {input_size[0]} x {input_size[1]} pixels, all that the exported file takes, got "
            f"{shape[2]} x {shape[3]}: give image files to predict(), which resizes them as the engine does where the "
            "file's size is the model's, or export without an input size"
        )
        raise ValueError(msg)


def _remedy(shape: tuple[int, ...]) -> str:
    """What makes the images of a frequent other layout right, or as the next error asks for."""
    if 0 in shape:
        return ""
    if len(shape) == 2:
        return ": one grey image is numpy.stack([images] * 3)[None]"
    if len(shape) == 3 and shape[0] in (1, 3, 4):
        return ": one image is images[None]"
    if len(shape) == 3 and shape[2] in (1, 3, 4):
        return ": one image with its colours last is numpy.moveaxis(images, -1, 0)[None]"
    if len(shape) == 4 and shape[3] in (1, 3, 4) and (shape[3] == 3 or shape[1] not in (1, 4)):
        return ": images with their colours last are numpy.moveaxis(images, -1, 1)"
    if len(shape) == 4 and shape[1] == 1:
        return ": grey images are numpy.repeat(images, 3, axis=1)"
    if len(shape) == 4 and shape[1] == 4:
        return ": images with an alpha channel are images[:, :3] if no pixel is transparent"
    return ""


def as_predictions(results: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Known outputs only; scores and labels as vectors, maps and masks with one channel.

    Raises:
        ValueError: If a score or a map is not a finite number, whose label would mean nothing.
    """
    known = {name: np.asarray(results[name]) for name in OUTPUTS if name in results}
    for name in ("pred_score", "anomaly_map"):
        if name in known and not np.isfinite(known[name]).all():
            msg = (
                f"the model's own answer has NaN or infinite values in {name}: if it computes in half precision, take "
                "single precision (precision='f32'); else its weights or thresholds are damaged"
            )
            raise ValueError(msg)
    return {
        name: value.reshape(-1) if name in ("pred_score", "pred_label") else value.reshape(-1, 1, *value.shape[-2:])
        for name, value in known.items()
    }

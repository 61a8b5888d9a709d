# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""A small category in the LOCO layout and small MNIST IDX files."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SIZE = (40, 48)  # height and width; Anomalib's synthetic anomalies need at least 32
CONFIG = [
    {"defect_name": "missing", "pixel_value": 255, "saturation_threshold": 1.0, "relative_saturation": True},
    {"defect_name": "scratch", "pixel_value": 254, "saturation_threshold": 20, "relative_saturation": False},
]


def write_image(path: Path, level: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*SIZE, 3), level, np.uint8)).save(path)


def write_mask(path: Path, row: int, value: int) -> None:
    """Mark one row of pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(SIZE, np.uint8)
    pixels[row] = value
    Image.fromarray(pixels).save(path)


@pytest.fixture
def category(tmp_path: Path) -> Path:
    """A category: 4 training, 2 validation, 4 good, 2 logical (the second with two masks), 2 structural images."""
    folder = tmp_path / "scenes" / "tray"
    for split, count in (("train", 4), ("validation", 2), ("test", 4)):
        for index in range(count):
            write_image(folder / split / "good" / f"{index:03d}.png")
    for kind, value in (("logical_anomalies", 255), ("structural_anomalies", 254)):
        for index in range(2):
            write_image(folder / "test" / kind / f"{index:03d}.png")
            write_mask(folder / "ground_truth" / kind / f"{index:03d}" / "000.png", row=2 + index, value=value)
    write_mask(folder / "ground_truth" / "logical_anomalies" / "001" / "001.png", row=9, value=254)
    (folder / "defects_config.json").write_text(json.dumps(CONFIG))
    return folder


@pytest.fixture
def autovi_category(tmp_path: Path) -> Path:
    """A category in AutoVI's layout: 10 training images, 3 good, 2 with a broken fastener, 1 unclipped; RGB masks."""
    folder = tmp_path / "autovi" / "pipe clip"
    for split, count in (("train", 10), ("test", 3)):
        for index in range(count):
            write_image(folder / split / "good" / f"{index:04d}.png")
    for kind, count, value in (("broken fastener", 2, 255), ("unclipped", 1, 254)):
        for index in range(count):
            write_image(folder / "test" / kind / f"{index:04d}.png")
            path = folder / "ground_truth" / kind / f"{index:04d}" / "0000.png"
            write_mask(path, row=2 + index, value=value)
            with Image.open(path) as mask:
                mask.convert("RGB").save(path)
    (folder / "defects_config.json").write_text(json.dumps(CONFIG))
    return folder


def idx_images(images: np.ndarray) -> bytes:
    return struct.pack(">4I", 2051, *images.shape) + images.astype(np.uint8).tobytes()


def idx_labels(labels: np.ndarray) -> bytes:
    return struct.pack(">2I", 2049, len(labels)) + labels.astype(np.uint8).tobytes()


WriteIdx = Callable[..., Path]


@pytest.fixture
def write_idx(tmp_path: Path) -> WriteIdx:
    """Write one pair of IDX files with ``per_digit`` different images of each digit; return their folder."""

    def write(
        images_name: str = "train-images-idx3-ubyte",
        labels_name: str = "train-labels-idx1-ubyte",
        per_digit: int = 6,
        seed: int = 0,
    ) -> Path:
        folder = tmp_path / "idx"
        folder.mkdir(exist_ok=True)
        labels = np.repeat(np.arange(10), per_digit)
        images = np.random.default_rng(seed).integers(1, 256, size=(len(labels), 9, 7))
        for name, content in ((images_name, idx_images(images)), (labels_name, idx_labels(labels))):
            (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return folder

    return write

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from anomalib.data import AnomalibDataModule
from anomalib_logic.data import DigitAnatomy, anomaly_kinds, digit_anatomy, read_defect_channels, read_defects_config
from anomalib_logic.data._digit_grid import DEFECT_NAMES, FLIPS, draw_grid, flip_glyph, scale_glyph
from jsonargparse import ArgumentParser
from PIL import Image

SMALL = {"image_size": 64, "train_images": 5, "val_images": 2, "test_images": 3, "anomalies_per_defect": 2}


def make_datamodule(root: Path, **arguments) -> DigitAnatomy:
    datamodule = DigitAnatomy(root=root, **(SMALL | arguments))
    datamodule.prepare_data()
    return datamodule


def folder_of(datamodule: DigitAnatomy) -> Path:
    return datamodule.root / datamodule.category


def read_files(datamodule: DigitAnatomy) -> dict[str, bytes]:
    folder = folder_of(datamodule)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}


def flat_pool(size: int = 8) -> list[list[np.ndarray]]:
    """One glyph for each digit: a filled square whose grey names the digit."""
    return [[np.full((size, size), 105 + 15 * digit, np.uint8)] for digit in range(10)]


# what is drawn


def marked_pool() -> list[list[np.ndarray]]:
    """One glyph for each digit: as many separate dots as the digit says, and a ring for zero."""
    pool = []
    for digit in range(10):
        glyph = np.zeros((9, 9), np.uint8)
        if digit == 0:
            glyph[:] = 255
            glyph[2:7, 2:7] = 0
        for dot in range(digit):
            row, column = divmod(dot, 3)
            glyph[3 * row + 1, 3 * column + 1] = 255
        pool.append([glyph])
    return pool


def cells_of(mask: np.ndarray) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


@pytest.mark.parametrize("defect", DEFECT_NAMES)
def test_defect_changes_only_the_marked_cells(defect):
    # the same random stream draws the same normal grid wherever the defect takes no draw of its own; comparing ink
    # outside the mask with the number of intact cells needs no stream
    pool = flat_pool()
    for seed in range(20):
        image, mask = draw_grid(pool, defect, 96, np.random.default_rng(seed))
        greys = {int(image[component].max()) for component in components(image * ~mask)}
        assert len(greys) == (7 if defect == "wrong_order" else 8)


def components(image: np.ndarray) -> list[np.ndarray]:
    from scipy.ndimage import label

    labels, number = label(image > 0)
    return [labels == index for index in range(1, number + 1)]

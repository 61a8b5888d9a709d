# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Draw 3 x 3 grids of handwritten digits, normal or with one logical defect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from ._digit_source import DigitPool

MISSING_DIGIT = "missing_digit"
WRONG_ORDER = "wrong_order"
FLIPPED_DIGIT = "flipped_digit"
ZERO_DIGIT = "zero_digit"
DEFECT_NAMES = (MISSING_DIGIT, WRONG_ORDER, FLIPPED_DIGIT, ZERO_DIGIT)

MIN_IMAGE_SIZE = 48

# Flip of each digit that shows: of digits flipped so, a support vector machine trained on upright ones takes less than
# a fifth for the same digit, for scikit-learn's digits and for MNIST. 0, 1, 4 and 8 are left out: with either flip,
# many of them still pass for themselves. "vertical" turns upside down, "horizontal" swaps left and right.
FLIPS = {2: "vertical", 3: "horizontal", 5: "vertical", 6: "vertical", 7: "vertical", 9: "vertical"}

_GRID_SHARE = (0.75, 1.0)  # side of the grid over side of the image
_GLYPH_SHARE = (0.75, 0.95)  # side of a digit's box over side of its cell
_STROKE_EDGE = (0.1, 0.6)  # ink below the first is background, above the second is full


def draw_grid(
    pool: DigitPool, defect: str | None, image_size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one image.

    Args:
        pool: Glyphs by digit.
        defect: One of ``DEFECT_NAMES``, or ``None`` for a normal image.
        image_size: Height and width in pixels.
        rng: Source of all chance.

    Returns:
        Image, uint8, and mask of the wrong cells, bool, both ``(image_size, image_size)``.
    """
    digits: list[int | None] = list(range(1, 10))
    wrong = _spoil(digits, defect, rng)
    side = image_size * rng.uniform(*_GRID_SHARE)
    top, left = rng.uniform(0, image_size - side, size=2)
    rows, columns = (np.round(start + side * np.arange(4) / 3).astype(int) for start in (top, left))
    image = np.zeros((image_size, image_size), np.uint8)
    mask = np.zeros((image_size, image_size), bool)
    for cell, digit in enumerate(digits):
        row, column = divmod(cell, 3)
        area = (slice(rows[row], rows[row + 1]), slice(columns[column], columns[column + 1]))
        mask[area] = cell in wrong
        if digit is not None:
            glyph = pool[digit][rng.integers(len(pool[digit]))]
            if defect == FLIPPED_DIGIT and cell in wrong:
                glyph = flip_glyph(glyph, digit)
            _place(image[area], glyph, rng)
    return image, mask


def flip_glyph(glyph: np.ndarray, digit: int) -> np.ndarray:
    """Flip a glyph of shape ``(h, w)`` the way that shows for its digit."""
    return glyph[::-1] if FLIPS[digit] == "vertical" else glyph[:, ::-1]


def _spoil(digits: list[int | None], defect: str | None, rng: np.random.Generator) -> tuple[int, ...]:
    """Change the digits in place as the defect asks; return the cells that are then wrong."""
    if defect is None:
        return ()
    if defect == WRONG_ORDER:
        first, second = (int(cell) for cell in rng.choice(9, size=2, replace=False))
        digits[first], digits[second] = digits[second], digits[first]
        return first, second
    if defect == FLIPPED_DIGIT:
        return (int(rng.choice(sorted(FLIPS))) - 1,)
    cell = int(rng.integers(9))
    digits[cell] = {MISSING_DIGIT: None, ZERO_DIGIT: 0}[defect]
    return (cell,)


def _place(cell: np.ndarray, glyph: np.ndarray, rng: np.random.Generator) -> None:
    """Draw a glyph into a cell, a view of shape ``(h, w)``, at a random scale and position inside it."""
    size = round(min(cell.shape) * rng.uniform(*_GLYPH_SHARE))
    top, left = (int(rng.integers(room - size + 1)) for room in cell.shape)
    cell[top : top + size, left : left + size] = scale_glyph(glyph, size)


def scale_glyph(glyph: np.ndarray, size: int) -> np.ndarray:
    """Scale the inked part of a glyph, uint8 ``(h, w)``, to ``(size, size)``, keeping its aspect, with firm strokes."""
    rows, columns = np.flatnonzero(glyph.any(axis=1)), np.flatnonzero(glyph.any(axis=0))
    ink = glyph[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    side = max(ink.shape) + 2  # a rim of one pixel lets strokes at the edge fade out
    padded = np.zeros((side, side), np.uint8)
    top, left = (side - ink.shape[0]) // 2, (side - ink.shape[1]) // 2
    padded[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    smooth = np.asarray(Image.fromarray(padded).resize((size, size), Image.Resampling.BICUBIC), np.float64) / 255
    low, high = _STROKE_EDGE
    level = np.clip((smooth - low) / (high - low), 0, 1)
    return np.round(255 * level * level * (3 - 2 * level)).astype(np.uint8)

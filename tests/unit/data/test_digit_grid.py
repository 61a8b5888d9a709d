# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Grids are drawn from squares whose grey tells the digit and whose top left corner is cut off, and read back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.ndimage import find_objects, label

from anomalib_logic.data._digit_grid import FLIPS, draw_grid, flip_glyph

SIZE = 120
SEEDS = range(12)
IN_ORDER = list(range(1, 10))


@dataclass
class Found:
    """A square that was found in an image."""

    digit: int
    box: tuple[slice, slice]
    corner: str  # the one that is cut off
    marked: bool  # wholly covered by the mask


def make_pool() -> list[list[np.ndarray]]:
    pool = []
    for digit in range(10):
        glyph = np.full((8, 8), 60 + 10 * digit, np.uint8)
        glyph[:3, :3] = 0
        pool.append([glyph])
    return pool


def draw(defect: str | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    return draw_grid(make_pool(), defect, SIZE, np.random.default_rng(seed))


def read(image: np.ndarray, mask: np.ndarray) -> list[Found]:
    """Find the squares in reading order."""
    boxes = sorted(find_objects(label(image)[0]), key=lambda box: box[0].start + box[0].stop)
    # the ink curve keeps the order of greys, so the middle of a square tells the digit
    level = (np.clip((np.arange(60, 160, 10) / 255 - 0.1) / 0.5, 0, 1)) ** 2
    greys = 255 * level * (3 - 2 * np.sqrt(level))
    squares = []
    for box in boxes:
        ink = image[box]
        height, width = ink.shape
        corners = {
            "top left": ink[1, 1],
            "top right": ink[1, -2],
            "bottom left": ink[-2, 1],
            "bottom right": ink[-2, -2],
        }
        digit = int(np.abs(greys - float(ink[int(0.6 * height), int(0.6 * width)])).argmin())
        marked = mask[box]
        assert marked.all() or not marked.any()
        squares.append(Found(digit, box, min(corners, key=corners.get), bool(marked.all())))
    if len(squares) == 9:
        rows = [sorted(squares[start : start + 3], key=lambda square: square.box[1].start) for start in (0, 3, 6)]
        return [square for row in rows for square in row]
    return squares


@pytest.mark.parametrize("seed", SEEDS)
def test_normal_grid_reads_1_to_9(seed):
    assert [square.digit for square in read(*draw(None, seed))] == IN_ORDER


@pytest.mark.parametrize("seed", SEEDS)
def test_normal_grid_has_an_empty_mask(seed):
    assert not draw(None, seed)[1].any()


@pytest.mark.parametrize("seed", SEEDS)
def test_missing_digit_leaves_the_marked_cell_blank(seed):
    image, mask = draw("missing_digit", seed)
    assert mask.any()
    assert not image[mask].any()


@pytest.mark.parametrize("seed", SEEDS)
def test_missing_digit_leaves_the_eight_others(seed):
    digits = {square.digit for square in read(*draw("missing_digit", seed))}
    assert len(digits) == 8
    assert digits < set(IN_ORDER)


@pytest.mark.parametrize("seed", SEEDS)
def test_wrong_order_swaps_the_two_marked_digits(seed):
    squares = read(*draw("wrong_order", seed))
    first, second = (position for position, square in enumerate(squares) if square.marked)
    digits = [square.digit for square in squares]
    digits[first], digits[second] = digits[second], digits[first]
    assert digits == IN_ORDER


@pytest.mark.parametrize("seed", SEEDS)
def test_zero_takes_the_place_of_the_marked_digit(seed):
    squares = read(*draw("zero_digit", seed))
    expected = [0 if square.marked else digit for square, digit in zip(squares, IN_ORDER, strict=True)]
    assert expected.count(0) == 1
    assert [square.digit for square in squares] == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_only_the_marked_digit_is_flipped(seed):
    squares = read(*draw("flipped_digit", seed))
    flipped = {"vertical": "bottom left", "horizontal": "top right"}
    expected = [flipped[FLIPS[square.digit]] if square.marked else "top left" for square in squares]
    assert expected.count("top left") == 8
    assert [square.corner for square in squares] == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_flipped_digit_stays_in_order(seed):
    assert [square.digit for square in read(*draw("flipped_digit", seed))] == IN_ORDER


@pytest.mark.parametrize("defect", ["missing_digit", "zero_digit", "flipped_digit"])
def test_mask_is_one_cell(defect):
    for seed in SEEDS:
        _, mask = draw(defect, seed)
        height, width = (np.ptp(indices) + 1 for indices in mask.nonzero())
        assert mask.sum() == height * width
        assert 0.75 * SIZE / 3 - 1 <= height <= SIZE / 3 + 1


def test_every_digit_is_missing_in_some_image():
    missing = [set(IN_ORDER) - {square.digit for square in read(*draw("missing_digit", seed))} for seed in range(100)]
    assert set().union(*missing) == set(IN_ORDER)


def ink_boxes() -> list[tuple[slice, slice]]:
    return [find_objects((draw(None, seed)[0] > 0).astype(int))[0] for seed in SEEDS]


def test_scale_of_the_grid_varies():
    heights = [rows.stop - rows.start for rows, _ in ink_boxes()]
    assert max(heights) > 1.15 * min(heights)


def grid_origin(seed: int) -> np.ndarray:
    """Find the grid's top left corner from the place of a blank cell and the digit that is missing there."""
    image, mask = draw("missing_digit", seed)
    (missing,) = set(IN_ORDER) - {square.digit for square in read(image, mask)}
    cell = np.ptp(mask.nonzero(), axis=1) + 1
    return np.min(mask.nonzero(), axis=1) - cell * divmod(missing - 1, 3)


def test_position_of_the_grid_varies():
    origins = np.stack([grid_origin(seed) for seed in SEEDS])
    assert (np.ptp(origins, axis=0) > 0.1 * SIZE).all()


def test_scale_of_the_digits_varies_within_an_image():
    for seed in SEEDS:
        heights = [square.box[0].stop - square.box[0].start for square in read(*draw(None, seed))]
        assert max(heights) > min(heights)


def test_flipped_bundled_digits_no_longer_pass_for_themselves():
    from sklearn.datasets import load_digits
    from sklearn.neighbors import KNeighborsClassifier

    bundled = load_digits()
    classifier = KNeighborsClassifier(3).fit(bundled.images.reshape(-1, 64), bundled.target)
    for digit in FLIPS:
        glyphs = bundled.images[bundled.target == digit]
        flipped = np.stack([flip_glyph(glyph, digit) for glyph in glyphs]).reshape(-1, 64)
        assert (classifier.predict(flipped) == digit).mean() < 0.2

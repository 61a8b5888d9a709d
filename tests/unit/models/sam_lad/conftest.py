# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
from PIL import Image

SMALL = {
    "backbone": "mobilenetv2_035",
    "pre_trained": False,
    "objects": "cluster",
    "image_size": (64, 96),
    "scene_size": 16,
    "object_size": 8,
}
SQUARES = ((8, 10, 200), (10, 60, 120), (40, 12, 120), (38, 62, 200))  # top, left and brightness


@pytest.fixture
def small() -> dict:
    """Constructor arguments of a model small enough for a test."""
    return dict(SMALL)


def draw(generator: np.random.Generator, squares) -> Image.Image:
    image = generator.integers(0, 40, (64, 96, 3), dtype=np.uint8)
    for top, left, brightness in squares:
        top, left = top + generator.integers(-2, 3), left + generator.integers(-2, 3)
        image[top : top + 14, left : left + 14] = brightness
    return Image.fromarray(image)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Normal images of four squares on noise, and bad ones: a square less, or one more."""
    root = tmp_path_factory.mktemp("four_squares")
    generator = np.random.default_rng(0)
    more = (*SQUARES, (24, 36, 160))
    for kind, contents in (("good", [SQUARES] * 16), ("bad", [SQUARES[:3], SQUARES[1:], more, more])):
        (root / kind).mkdir()
        for i, squares in enumerate(contents):
            draw(generator, squares).save(root / kind / f"{i:02}.png")
    return root

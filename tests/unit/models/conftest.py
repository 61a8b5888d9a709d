# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
from PIL import Image

SMALL = {
    "backbone": "mobilenetv2_035",
    "pre_trained": False,
    "image_size": (64, 96),
    "width": 48,
    "depth": 1,
    "heads": 4,
}


@pytest.fixture
def small() -> dict:
    """Constructor arguments of a GLCF network small enough to train in a test."""
    return dict(SMALL)


@pytest.fixture(scope="session")
def squares(tmp_path_factory):
    """Six normal images, bright squares on noise, and three without their square."""
    root = tmp_path_factory.mktemp("squares")
    generator = np.random.default_rng(0)
    for kind, count in (("good", 6), ("bad", 3)):
        (root / kind).mkdir()
        for i in range(count):
            image = generator.integers(0, 60, (64, 96, 3), dtype=np.uint8)
            if kind == "good":
                image[20:40, 30:60] = 230
            Image.fromarray(image).save(root / kind / f"{i}.png")
    return root

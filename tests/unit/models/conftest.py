# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import pytest

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

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

SMALL = {
    "backbone": "test_efficientnet",  # timm's smallest pyramid
    "pre_trained": False,
    "image_size": (64, 96),
    "width": 48,
    "depth": 1,
    "heads": 4,
    "decoder_depths": (1, 1, 1, 1),
}


@pytest.fixture
def small() -> dict:
    """Constructor arguments of a GLCF network small enough to train in a test."""
    return dict(SMALL)


def check_training(model, engine, datamodule) -> None:
    """Train and test a model: each of its networks learns, and two images get finite maps and scores of their own."""
    before = {name: value.clone() for name, value in model.named_parameters() if value.requires_grad}
    engine.train(model, datamodule=datamodule)
    trained = {name for name, value in model.named_parameters() if name in before and not value.equal(before[name])}
    assert {name.split(".")[1] for name in trained} == {name.split(".")[1] for name in before}
    result = model.eval()(torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)))
    assert torch.isfinite(result.anomaly_map).all()
    assert result.pred_score[0] != result.pred_score[1]


def write_squares(root: Path, good: int, bad: int = 3) -> Path:
    """Write normal images, bright squares on noise, and images without their square."""
    generator = np.random.default_rng(0)
    for kind, count in (("good", good), ("bad", bad)):
        (root / kind).mkdir()
        for i in range(count):
            image = generator.integers(0, 60, (64, 96, 3), dtype=np.uint8)
            if kind == "good":
                image[20:40, 30:60] = 230
            Image.fromarray(image).save(root / kind / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def squares(tmp_path_factory):
    """Six normal images and three anomalous ones."""
    return write_squares(tmp_path_factory.mktemp("squares"), 6)

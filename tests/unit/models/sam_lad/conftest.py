# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_logic.models.components.options import take_groups
from anomalib_logic.models.sam_lad.options import SamLadBank, SamLadMatching, SamLadScoring, SamLadSegmentation
from anomalib_logic.models.sam_lad.torch_model import SamLadModel

GROUPS = (SamLadSegmentation, SamLadMatching, SamLadBank, SamLadScoring)

SMALL = {
    "backbone": "test_efficientnet",  # timm's smallest pyramid
    "pre_trained": False,
    "objects": "cluster",
    "clusters": 8,
    "image_size": (64, 96),
    "scene_size": 16,
    "object_size": 8,
}
TELLING = {"backbone": "mobilenetv2_035", "clusters": None}  # whose random features tell objects apart
SQUARES = ((8, 10, 200), (10, 60, 120), (40, 12, 120), (38, 62, 200))  # top, left and brightness


@pytest.fixture
def small() -> dict:
    """Constructor arguments of a model small enough for a test."""
    return dict(SMALL)


def build_model(**arguments) -> SamLadModel:
    """A network of arguments that :class:`.SamLad` takes, groups' fields by themselves."""
    options, others = {}, {}
    for name, value in {**SMALL, **arguments}.items():
        own = any(name in group.__dataclass_fields__ for group in GROUPS)
        (options if own else others)[name] = value
    torch.manual_seed(0)
    image_size = others.pop("image_size")
    return SamLadModel(image_size, *take_groups("SamLad", options, *((g, None) for g in GROUPS)), **others).eval()


@torch.no_grad()
def fit_encoder(model: SamLadModel, images: torch.Tensor) -> None:
    """Learn the features' statistics, objects and clusters, as :meth:`.SamLad.fit` does."""
    features = model.encoder.features(images)
    model.encoder.standardization.update(features)
    model.fit_encoder(images, features)


@torch.no_grad()
def fill(model: SamLadModel, images: torch.Tensor) -> SamLadModel:
    """Fit everything to normal images."""
    fit_encoder(model, images)
    model.fit((model.represent(part) for part in images.split(4)), len(images))
    return model


def draw(generator: np.random.Generator, squares) -> Image.Image:
    image = generator.integers(0, 40, (64, 96, 3), dtype=np.uint8)
    for top, left, brightness in squares:
        top, left = top + generator.integers(-2, 3), left + generator.integers(-2, 3)
        image[top : top + 14, left : left + 14] = brightness
    return Image.fromarray(image)


def write_images(root: Path, **contents) -> Path:
    """Write folders of images, each of which shows some squares."""
    generator = np.random.default_rng(0)
    for kind, images in contents.items():
        (root / kind).mkdir()
        for i, squares in enumerate(images):
            draw(generator, squares).save(root / kind / f"{i:02}.png")
    return root


MORE = (*SQUARES, (24, 36, 160))


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Normal images of four squares on noise, and bad ones: a square less, or one more."""
    root = tmp_path_factory.mktemp("four_squares")
    return write_images(root, good=[SQUARES] * 16, bad=[SQUARES[:3], SQUARES[1:], MORE, MORE])


@pytest.fixture(scope="session")
def few(tmp_path_factory):
    """The same with as few images as train and test a model: six normal ones are for training."""
    return write_images(tmp_path_factory.mktemp("few_squares"), good=[SQUARES] * 8, bad=[SQUARES[:3], MORE])

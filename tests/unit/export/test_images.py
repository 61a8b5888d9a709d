# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch
from anomalib.data import Folder
from PIL import Image

from anomalib_logic.export.images import NamedImage, as_batch, from_bytes, from_datamodule, generate, spread, to_bytes


@pytest.fixture
def data(tmp_path):
    """Six normal images and two anomalous ones, of different brightness."""
    for kind, count in (("good", 6), ("bad", 2)):
        (tmp_path / kind).mkdir()
        for i in range(count):
            Image.fromarray(np.full((16, 20, 3), 10 * i, np.uint8)).save(tmp_path / kind / f"{i}.png")
    return Folder("squares", "good", tmp_path, "bad", num_workers=0, val_split_mode="same_as_test", seed=0)


def test_images_come_from_validation_and_test_set_with_their_names(data):
    images = from_datamodule(data, 4)
    known = set(data.val_data.samples.image_path) | set(data.test_data.samples.image_path)
    assert len(images) == 4
    assert all(any(path.endswith(image.name) for path in known) for image in images)
    assert images[0].image.shape == (3, 16, 20)


def test_images_are_spread_over_the_whole_set_with_their_labels(data):
    data.setup()
    images = list(spread([data.test_data], 1000))
    assert [image.anomalous for image in images] == data.test_data.samples.label_index.astype(bool).tolist()


def test_kept_images_are_small_bytes_and_come_back(data):
    images = [NamedImage("good/0.png", torch.rand(3, 16, 20)), NamedImage("good/1.png", torch.rand(3, 600, 1024))]
    kept = to_bytes(images)
    assert {value.dtype for value in kept.values()} == {torch.uint8}
    restored = from_bytes(kept)
    torch.testing.assert_close(restored[0].image, images[0].image, atol=0.5 / 255 + 1e-6, rtol=0)
    assert restored[1].image.shape == (3, 300, 512)


def test_generated_images_are_always_the_same_and_not_flat():
    first, second = generate(2, (32, 48)), generate(2, (32, 48))
    assert all(torch.equal(a.image, b.image) for a, b in zip(first, second, strict=True))
    assert first[0].image.shape == (3, 32, 48)
    assert first[0].image.std() > 0.05
    assert not torch.equal(first[0].image, first[1].image)


def test_batch_has_one_size():
    images = [NamedImage("a", torch.rand(3, 16, 20)), NamedImage("b", torch.rand(3, 8, 9))]
    assert as_batch(images).shape == (2, 3, 16, 20)
    assert as_batch(images, (5, 7)).shape == (2, 3, 5, 7)

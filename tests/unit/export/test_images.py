# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import Folder
from PIL import Image
from torchvision.transforms.v2 import Resize
from torchvision.transforms.v2.functional import resize

from anomalib_logic.export.images import (
    NamedImage,
    as_batch,
    batches_of,
    from_bytes,
    from_datamodule,
    generate,
    sizes_around,
    spread,
    to_bytes,
)


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
    levels = [10 * int(Path(image.name).stem) / 255 for image in images]  # as the fixture writes them
    for image, level in zip(images, levels, strict=True):
        torch.testing.assert_close(image.image, torch.full((3, 16, 20), level))
    assert len(set(levels)) > 1


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


def test_images_have_their_files_size_and_not_that_to_which_the_data_set_resizes(data):
    data.setup()
    data.val_data.augmentations = Resize((8, 8))
    assert next(spread([data.val_data], 1)).size == (16, 20)


def test_generated_images_are_always_the_same_and_of_the_sizes_that_are_asked_for():
    first, second = generate([(32, 48), (61, 30)]), generate([(32, 48), (61, 30)])
    assert all(torch.equal(a.image, b.image) for a, b in zip(first, second, strict=True))
    assert [image.size for image in first] == [(32, 48), (61, 30)]


def test_generated_images_have_bytes_and_texture_that_resizing_without_antialiasing_shows():
    (image,) = generate([(400, 300)])
    torch.testing.assert_close(image.image * 255, (image.image * 255).round(), atol=1e-4, rtol=0)
    exact, coarse = (resize(image.image, [50, 40], antialias=antialias) for antialias in (True, False))
    assert (exact - coarse).abs().mean() > 0.05


def test_generated_sizes_are_smaller_than_equal_to_and_larger_than_the_models():
    ratios = {(height / 64, width / 96) for height, width in sizes_around((64, 96))}
    assert (1, 1) in ratios
    assert any(max(ratio) < 1 for ratio in ratios)
    assert any(min(ratio) > 3 and ratio[0] != ratio[1] for ratio in ratios)


def test_batches_have_images_of_one_size():
    images = [NamedImage(str(i), torch.rand(3, 4 + i % 2, 5)) for i in range(5)]
    assert [[image.name for image in batch] for batch in batches_of(images, 2)] == [["0", "2"], ["1", "3"]]


def test_batches_are_filled_with_mirrored_images_where_no_size_has_enough():
    images = [NamedImage("a", torch.rand(3, 4, 5)), NamedImage("b", torch.rand(3, 6, 5))]
    (batch,) = batches_of(images, 3)
    assert [image.name for image in batch] == ["a", "a, mirrored", "a, mirrored"]
    assert len({image.image.numpy().tobytes() for image in batch}) == 3


@pytest.mark.parametrize("size", [None, (5, 7)], ids=str)
def test_images_of_a_batch_are_resized_as_the_engine_does_to_one_size_or_the_firsts(size):
    images = [NamedImage("a", torch.rand(3, 16, 20)), NamedImage("b", torch.rand(3, 8, 9))]
    expected = torch.stack([resize(image.image, size or [16, 20], antialias=True) for image in images])
    np.testing.assert_array_equal(as_batch(images, size), expected.numpy())

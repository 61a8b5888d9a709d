# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Changes of normal images that scores should notice."""

import pytest
import torch

from anomalib_logic.models.sam_lad.changes import CHANGES, exchange_window, fill_window, spot


@pytest.fixture
def images():
    return torch.randn(2, 3, 80, 120, generator=torch.Generator().manual_seed(0))


def changed(change, images, seed=0):
    return change(images[0], images[1], torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_part_of_the_image_changes_and_the_image_itself_does_not(change, images):
    before = images.clone()
    for seed in range(20):
        result = changed(change, images, seed)
        share = (result != before[0]).any(dim=0).float().mean()
        assert 0 < share < (0.17 if change is exchange_window else 0.1)
        assert torch.isfinite(result).all()
    assert torch.equal(images, before)
    assert torch.equal(changed(change, images, 3), changed(change, images, 3))
    assert not torch.equal(changed(change, images, 3), changed(change, images, 4))


def test_spot_has_one_colour_in_its_middle(images):
    image = torch.zeros_like(images[0])
    result = spot(image, image, torch.Generator().manual_seed(0))
    assert (result.flatten(1).abs().amax(dim=1) > 0).all()
    strongest = result.abs().sum(dim=0).argmax()
    colour = result.flatten(1)[:, strongest]
    inside = (result.flatten(1) == colour.unsqueeze(1)).all(dim=0)
    assert inside.sum() >= 1


def test_exchanged_window_is_the_same_place_of_the_other_image(images):
    result = changed(exchange_window, images)
    same_as_other = (result == images[1]).all(dim=0)
    assert same_as_other.sum() >= 2
    itself = exchange_window(images[0], images[0], torch.Generator().manual_seed(0))
    torch.testing.assert_close(itself, images[0])


def test_filled_window_hides_a_part(images):
    ground = torch.tensor([0.2, -0.4, 0.9]).view(3, 1, 1)
    image = ground.expand(3, 40, 40).clone()
    image[:, 20:22, 24:26] = images[0, :, :2, :2]
    filled = [fill_window(image, image, torch.Generator().manual_seed(i)) for i in range(60)]
    hidden = [torch.allclose(one, ground.expand_as(one), atol=1e-5) for one in filled]
    assert sum(hidden) >= 3  # the other windows were too far away, or the part lay on their borders


@pytest.mark.parametrize("size", [(16, 16), (5, 40), (1, 1)])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_small_images_can_be_changed(change, size):
    images = torch.randn(2, 3, *size)
    assert changed(change, images).shape == (3, *size)

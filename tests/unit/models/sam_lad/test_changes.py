# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Changes of normal images that scores should notice."""

import pytest
import torch

from anomalib_logic.models.sam_lad.changes import CHANGES, exchange_window, fill_window, spot


@pytest.fixture
def images():
    return torch.rand(2, 3, 80, 120, generator=torch.Generator().manual_seed(0))


def changed(change, images, seed=0):
    return change(images[0], images[1], torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_part_of_the_image_changes_and_the_image_itself_does_not(change, images):
    before = images.clone()
    for seed in range(20):
        result = changed(change, images, seed)
        share = (result != before[0]).any(dim=0).float().mean()
        assert 0 < share < (0.17 if change is exchange_window else 0.1)
        assert 0 <= result.min() <= result.max() <= 1  # what a camera can see
    assert torch.equal(images, before)
    assert torch.equal(changed(change, images, 3), changed(change, images, 3))
    assert not torch.equal(changed(change, images, 3), changed(change, images, 4))


def extent(mask):
    """Top, left, bottom and right of the true values."""
    rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


@pytest.mark.parametrize("seed", range(5))
def test_spot_has_one_colour_that_is_weaker_towards_its_borders(seed):
    on_black, on_white = (
        spot(image, image, torch.Generator().manual_seed(seed))
        for image in (torch.zeros(3, 100, 200), torch.ones(3, 100, 200))
    )
    weight = 1 - (on_white - on_black)  # the same in all channels
    top, left, bottom, right = extent(weight[0] > 1e-6)
    assert 3 <= bottom - top <= 10
    assert 6 <= right - left <= 20
    assert weight.max().item() == pytest.approx(0.7)
    spots = (on_black / weight)[:, top:bottom, left:right].flatten(1)
    torch.testing.assert_close(spots, spots[:, :1].expand_as(spots), rtol=1e-3, atol=1e-4)
    assert weight[0, top, left] < 0.5 * weight.max()


@pytest.mark.parametrize("seed", range(5))
def test_exchanged_window_is_the_same_place_of_the_other_image(images, seed):
    result = changed(exchange_window, images, seed)
    top, left, bottom, right = extent((result != images[0]).any(dim=0))
    assert 0.25 * 80 <= bottom - top == right - left <= 0.5 * 80
    inside = (slice(None), slice(top + 2, bottom - 2), slice(left + 2, right - 2))  # its border is blended
    assert torch.equal(result[inside], images[1][inside])
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
    torch.manual_seed(0)
    images = torch.randn(2, 3, *size)
    result = changed(change, images)
    assert result.shape == (3, *size)
    assert torch.isfinite(result).all()
    assert torch.equal(result, images[0]) == (change is fill_window and size == (1, 1))  # it is its own border

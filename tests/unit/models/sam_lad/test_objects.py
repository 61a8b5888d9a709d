# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from scipy import ndimage
from torch.utils._python_dispatch import TorchDispatchMode

from anomalib_logic.models.sam_lad.objects import (
    ClusterSegments,
    calibrate_areas,
    connected_regions,
    largest_regions,
)


def spiral(size: int) -> np.ndarray:
    """One region as long as it can be: a spiral of one pixel's width."""
    mask = np.zeros((size, size), bool)
    top, left, bottom, right = 0, 0, size - 1, size - 1
    mask[top, :] = True
    while bottom - top > 2:
        mask[top : bottom + 1, right] = True
        mask[bottom, left : right + 1] = True
        mask[top + 2 : bottom + 1, left] = True
        mask[top + 2, left : right - 1] = True
        top, left, bottom, right = top + 2, left + 2, bottom - 2, right - 2
    return mask


@pytest.mark.parametrize("density", [0.1, 0.3, 0.4, 0.5, 0.9])
def test_regions_are_scipys(density):
    masks = np.random.default_rng(0).random((4, 48, 40)) < density
    labels = connected_regions(torch.from_numpy(masks)).numpy()
    for mask, label in zip(masks, labels, strict=True):
        expected, number = ndimage.label(mask, np.ones((3, 3)))
        pairs = set(zip(expected.ravel(), label.ravel(), strict=True))
        assert len(pairs) == number + 1


def test_long_winding_region_is_one():
    mask = spiral(64)
    assert ndimage.label(mask, np.ones((3, 3)))[1] == 1
    labels = connected_regions(torch.from_numpy(mask)[None])
    assert len(labels[labels > 0].unique()) == 1


def test_largest_regions_come_first_with_their_areas():
    mask = torch.zeros(1, 20, 20, dtype=torch.bool)
    mask[0, :2, :2] = mask[0, 5:10, 5:10] = mask[0, 15:18, 0:3] = True
    masks, areas = largest_regions(connected_regions(mask), 4)
    torch.testing.assert_close(areas, torch.tensor([[25.0, 9, 4, 0]]) / 400)
    assert masks[0, 0, 5:10, 5:10].all()
    assert masks[0, 3].sum() == 0
    assert torch.equal(masks.sum(dim=1) > 0, mask)


def equal_squares(number: int) -> torch.Tensor:
    """An image with equal squares in rows of eight."""
    mask = torch.zeros(1, 48, 64, dtype=torch.bool)
    for i in range(number):
        top, left = 8 * (i // 8), 8 * (i % 8)
        mask[0, top : top + 5, left : left + 5] = True
    return mask


def test_of_equal_regions_those_of_the_least_labels_are_kept():
    labels = connected_regions(equal_squares(40))
    masks, areas = largest_regions(labels, 20)
    assert (areas == 25 / labels[0].numel()).all()
    kept = (masks * labels.unsqueeze(1)).flatten(2).amax(dim=2)[0]
    assert kept.tolist() == labels.unique()[1:21].tolist()  # without what is outside


def test_largest_of_two_regions_comes_first_where_areas_times_positions_exceed_32_bits():
    labels = torch.zeros(1, 512, 600, dtype=torch.int)
    labels[0, :200], labels[0, 200:] = 7, 9
    _, areas = largest_regions(labels, 2)
    assert areas.sum() == 1
    labels[0, 4:], labels[0, :4] = 7, 9
    _, areas = largest_regions(labels, 2)
    assert areas[0, 1] == pytest.approx(4 / 512)


@pytest.mark.parametrize(
    ("squares", "slots"),
    [(40, 20), pytest.param(48, 10, marks=pytest.mark.slow), pytest.param(24, 20, marks=pytest.mark.slow)],
)
def test_every_runtime_keeps_the_same_of_equal_objects(squares, slots, tmp_path):
    segments = ClusterSegments(1, slots, clusters=2).eval()
    segments.centroids.copy_(torch.tensor([[0.0], [1.0]]))
    segments.foreground.copy_(torch.tensor([0.0, 1.0]))
    features = equal_squares(squares)[None].float()
    found = segments(features, features)
    assert (found.valid.all(), int(found.found)) == (True, min(squares, 2 * slots))
    file = tmp_path / "segments.onnx"
    torch.onnx.export(Masks(segments), (features,), file, dynamo=True, verbose=False)
    (masks,) = onnxruntime.InferenceSession(file).run(None, {"features": features.numpy()})
    assert torch.equal(torch.from_numpy(masks), found.masks)
    compiled = openvino.compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert torch.equal(torch.from_numpy(compiled(features.numpy())[0].copy()), found.masks)


class Masks(torch.nn.Module):
    """The masks that a segmentation finds."""

    def __init__(self, segments: ClusterSegments) -> None:
        super().__init__()
        self.segments = segments

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.segments(features, features).masks


def test_number_of_clusters_suits_a_given_range_of_areas():
    areas = torch.tensor([[0.1, 0.03, 0.0], [0.1, 0.03, 0.03], [0.1, 0.0, 0.0]])
    assert calibrate_areas(areas, (0.05, 0.2)) == pytest.approx((0.05, 0.2, 0.5))  # one object in each image
    assert calibrate_areas(areas, (0.02, 0.2))[2] > 0.5
    assert calibrate_areas(areas, (0.5, 0.6)) == (0.5, 0.6, float("inf"))


def test_calibrated_areas_leave_out_what_comes_and_goes():
    generator = torch.Generator().manual_seed(0)
    areas = torch.zeros(30, 12)
    areas[:, :5] = 0.01 + 0.002 * torch.rand(30, 5, generator=generator)  # five objects
    areas[:, 5:9] = 0.0012 * (torch.rand(30, 4, generator=generator) > 0.5)  # crumbs
    areas[:, 9] = 0.41 * (torch.rand(30, generator=generator) > 0.5)  # two objects' shadow, now and then
    least, largest, variation = calibrate_areas(areas)
    assert 0.0012 < least <= 0.01
    assert 0.012 <= largest <= 0.4
    assert variation == pytest.approx(0.5 / 5)


def scenes(number: int, objects: int, generator) -> tuple[torch.Tensor, list[np.ndarray]]:
    """Features of a background with some noise, and square objects of another kind of features on it."""
    features = 0.3 * torch.randn(number, 8, 48, 48, generator=generator)
    masks = []
    for image in features:
        mask = np.zeros((48, 48), bool)
        for cell in torch.randperm(9, generator=generator)[:objects].tolist():
            top, left = 16 * (cell // 3) + 4, 16 * (cell % 3) + 3
            mask[top : top + 8, left : left + 8] = True
        image[:, torch.from_numpy(mask)] += torch.tensor([3.0, -2, 2, 0, 0, 1, 0, 3])[:, None]
        masks.append(mask)
    return features, masks


def test_segments_find_the_objects_on_the_background():
    generator = torch.Generator().manual_seed(0)
    features, masks = scenes(12, 4, generator)
    segments = ClusterSegments(8, slots=6)
    segments.fit(features[:10], features[:10])
    result = segments(features[10:], features[10:])
    assert result.valid.sum(dim=1).tolist() == [4, 4]
    for found, expected in zip(result.masks, masks[10:], strict=True):
        assert torch.equal(found.sum(dim=0) > 0, torch.from_numpy(expected))


def test_missing_object_leaves_an_empty_slot_of_zeros():
    generator = torch.Generator().manual_seed(0)
    segments = ClusterSegments(8, slots=6, clusters=2)
    segments.fit(*[scenes(10, 4, generator)[0]] * 2)
    result = segments(*[scenes(1, 3, generator)[0]] * 2)
    assert result.valid.tolist() == [[True] * 3 + [False] * 3]
    assert result.masks[0, 3:].sum() == 0
    assert result.scores[0, 3:].sum() == 0


def test_more_objects_than_slots_are_counted_and_the_largest_kept():
    generator = torch.Generator().manual_seed(0)
    segments = ClusterSegments(8, slots=3, clusters=2, area_range=(0.01, 0.5))
    features = scenes(10, 5, generator)[0]
    segments.fit(features, features)
    result = segments(features, features)
    assert result.found.tolist() == [5] * 10
    assert result.valid.all()


class Rounded(TorchDispatchMode):
    """Round the floating-point results of all operations to a coarser format."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        floating = isinstance(result, torch.Tensor) and result.is_floating_point()
        return result.to(self.dtype).to(result.dtype) if floating else result


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half], ids=str)
def test_regions_of_a_large_mask_are_scipys_in_half_precision(dtype):
    mask = np.random.default_rng(0).random((280, 300)) < 0.3  # 84,000 pixels
    expected, number = ndimage.label(mask, np.ones((3, 3)))
    areas = np.sort(np.bincount(expected.ravel())[1:])[::-1][:6]
    with Rounded(dtype):
        labels = connected_regions(torch.from_numpy(mask)[None])
        masks, _ = largest_regions(labels, 6)
    assert len(set(zip(expected.ravel(), labels[0].numpy().ravel(), strict=True))) == number + 1
    assert masks[0].flatten(1).sum(dim=1).tolist() == areas.tolist()


def test_maximum_of_labels_is_not_refused_where_algorithms_must_be_deterministic():
    """On CUDA torch would refuse it, though the maximum of integers depends on no order."""
    strict = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if "scatter_reduce" in str(function):
                strict.append(torch.are_deterministic_algorithms_enabled())
            return function(*args, **(kwargs or {}))

    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with Watch():
            connected_regions(torch.ones(1, 4, 4, dtype=torch.bool))
        assert strict
        assert not any(strict)
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)

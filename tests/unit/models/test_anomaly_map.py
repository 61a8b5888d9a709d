# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from anomalib_logic.models.components.error_maps import position_distance
from anomalib_logic.models.glcf.anomaly_map import AnomalyMapGenerator

SIZE = (64, 96)
SCALES = [(16, 24), (8, 12), (4, 6)]


def random_errors(seed=0, batch=2):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(batch, 1, *scale, generator=generator) for scale in SCALES * 2]


def generator_without_blur(**arguments):
    return AnomalyMapGenerator(SIZE, sigma=0, **arguments)


def constant_errors(values, used=range(6)):
    """Of local and global errors at strides 4, 8 and 16, those that are used."""
    errors = [torch.full((1, 1, *scale), float(v)) for scale, v in zip(SCALES * 2, values, strict=True)]
    return [errors[i] for i in used]


def test_squared_distance_is_summed_over_channels():
    first, second = torch.zeros(1, 3, 1, 2), torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1).expand(1, 3, 1, 2)
    assert position_distance(first, second, "mse").tolist() == [[[[14.0, 14.0]]]]


def test_cosine_distance_of_opposite_vectors_is_two():
    vector = torch.randn(1, 3, 1, 1)
    assert position_distance(vector, -vector, "cosine").item() == pytest.approx(2)


def test_scales_weigh_one_two_three_and_branches_five_to_one():
    anomaly_map, _ = generator_without_blur()(constant_errors([1, 10, 100, 1000, 10000, 100000]))
    expected = 1 * (5 * 1 + 1000) + 2 * (5 * 10 + 10000) + 3 * (5 * 100 + 100000)
    assert anomaly_map.shape == (1, 1, *SIZE)
    assert anomaly_map[0, 0, 30, 40].item() == pytest.approx(expected)


@pytest.mark.parametrize(("branch", "expected"), [("local", 1 + 2 + 3), ("global", 7 * (1 + 2 + 3))])
def test_single_branch_ignores_the_other(branch, expected):
    generator = generator_without_blur(branch=branch)
    anomaly_map, _ = generator(constant_errors([1, 1, 1, 7, 7, 7], generator.used))
    assert anomaly_map.mean().item() == pytest.approx(expected)


def test_each_error_map_is_normalised_by_its_own_statistics():
    generator = generator_without_blur(scale_weights=(1, 0, 0), branch_weights=(1, 1))
    generator.normalization.mean[:] = torch.tensor([1.0, 0, 0, 5.0, 0, 0])
    generator.normalization.std[:] = torch.tensor([2.0, 1, 1, 10.0, 1, 1])
    anomaly_map, _ = generator(constant_errors([7, 0, 0, 25, 0, 0], [0, 3]))
    assert anomaly_map.mean().item() == pytest.approx((7 - 1) / 2 + (25 - 5) / 10)


def test_map_is_smoothed_as_by_an_independent_gaussian_filter():
    errors = random_errors()
    raw, _ = generator_without_blur()(errors)
    smooth, _ = AnomalyMapGenerator(SIZE, sigma=4)(errors)
    expected = gaussian_filter(raw[1, 0].double().numpy(), 4, mode="mirror", truncate=4)
    np.testing.assert_allclose(smooth[1, 0].numpy(), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("image_score", "reference"),
    [
        ("std", lambda m: m.std(ddof=1)),
        ("max", np.max),
        ("top", lambda m: np.sort(m.ravel())[-round(0.02 * m.size) :].mean()),
    ],
)
def test_image_score_is_the_chosen_statistic_of_the_map(image_score, reference):
    anomaly_map, score = AnomalyMapGenerator(SIZE, image_score=image_score)(random_errors())
    expected = [reference(m.double().numpy()) for m in anomaly_map]
    np.testing.assert_allclose(score.numpy(), expected, rtol=1e-4)


def test_global_errors_compare_with_estimates_or_with_the_backbone():
    shapes = [(1, c, *scale) for c, scale in zip((2, 3, 4), SCALES, strict=True)]
    features, correspondence, local, global_ = ([torch.randn(s) for s in shapes] for _ in range(4))
    maps = (features, correspondence, local, global_)
    estimation = generator_without_blur().errors(*maps)[3]
    against_backbone = generator_without_blur(criterion="correspondence").errors(*maps)[3]
    torch.testing.assert_close(estimation, (correspondence[0] - global_[0]).square().sum(1, keepdim=True))
    torch.testing.assert_close(against_backbone, (correspondence[0] - features[0]).square().sum(1, keepdim=True))


@pytest.mark.parametrize(
    ("arguments", "used"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"branch": "local"}, [0, 1, 2]),
        ({"branch": "global", "scale_weights": (0, 1, 2)}, [4, 5]),
        ({"scale_weights": (1, 0, 0)}, [0, 3]),
        ({"branch_weights": (1, 0), "scale_weights": (0, 0, 1)}, [2]),
    ],
    ids=str,
)
def test_errors_without_weight_are_neither_computed_nor_measured(arguments, used):
    shapes = [(1, c, *scale) for c, scale in zip((2, 3, 4), SCALES, strict=True)]
    maps = [[torch.randn(s) for s in shapes] for _ in range(4)]
    generator = generator_without_blur(**arguments)
    errors = generator.errors(*maps)
    generator.normalization.update(errors)
    generator.normalization.finalize()
    assert generator.used == used
    assert generator.normalization.std.ne(1).nonzero().flatten().tolist() == used
    for i, error in zip(used, errors, strict=True):
        first, second = ((maps[0], maps[2]), (maps[1], maps[3]))[i // 3]
        torch.testing.assert_close(error, (first[i % 3] - second[i % 3]).square().sum(1, keepdim=True))


def test_mixed_precision_does_not_coarsen_the_score():
    generator, errors = AnomalyMapGenerator(SIZE), random_errors()
    expected = generator(errors)[1]
    with torch.autocast("cpu", torch.bfloat16):
        score = generator(errors)[1]
    assert torch.equal(score, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"branch": "middle"}, r"branch must be one of \('both', 'local', 'global'\), got 'middle'"),
        ({"criterion": "x"}, r"criterion must be one of \('estimation', 'correspondence'\), got 'x'"),
        ({"distance": "x"}, r"distance must be one of \('mse', 'cosine'\), got 'x'"),
        ({"image_score": "x"}, r"image_score must be one of \('std', 'max', 'top'\), got 'x'"),
        ({"scale_weights": (1, 2)}, r"scale_weights must be 3 numbers.*got \[1, 2\]"),
        ({"branch_weights": (0, 0)}, r"branch_weights must be 2 numbers.*not all zero.*got \[0, 0\]"),
        ({"scale_weights": (1, 2, -3)}, r"scale_weights must be 3 numbers, none negative"),
    ],
)
def test_argument_out_of_range_is_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        AnomalyMapGenerator(SIZE, **arguments)

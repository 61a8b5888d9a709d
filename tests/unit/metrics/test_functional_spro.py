# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Curves and areas against cases with known answers, the definition, and properties."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from anomalib_logic.metrics.functional import (
    ScoreCounts,
    au_spro,
    count_scores,
    resize_anomaly_map,
    saturation_area,
    spro_curve,
)

from .reference import reference_area, reference_curve

LIMITS = (0.01, 0.05, 0.1, 0.3, 1.0)


def curve_of(maps, channels, saturations):
    """Curve of dense maps of original size."""
    free = []
    for scores, masks in zip(maps, channels, strict=True):
        defective = torch.stack([torch.zeros_like(scores, dtype=torch.bool), *masks]).any(dim=0)
        free.append(count_scores(scores[~defective]))
    regions = [count_scores(s[mask]) for s, masks in zip(maps, channels, strict=True) for mask in masks]
    return spro_curve(free, regions, [area for areas in saturations for area in areas])


def one_image(scores, defects, saturation):
    scores = torch.tensor(scores, dtype=torch.float32)
    masks = [torch.tensor(defect, dtype=torch.bool) for defect in defects]
    return curve_of([scores], [masks], [saturation])


# known answers


def test_defect_of_one_pixel_above_all_others_is_found_at_no_false_positive():
    curve = one_image([[9.0, 1.0], [2.0, 3.0]], [[[1, 0], [0, 0]]], [1])
    assert [au_spro(curve.fpr, curve.spro, limit).item() for limit in LIMITS] == pytest.approx([1.0] * 5)


def test_defect_of_one_pixel_below_all_others_is_found_last():
    curve = one_image([[0.0, 1.0], [2.0, 3.0]], [[[1, 0], [0, 0]]], [1])
    assert curve.fpr.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])
    assert curve.spro.tolist() == [0, 0, 0, 0, 1]
    assert au_spro(curve.fpr, curve.spro, 1.0) == 0


def test_overlap_beyond_the_saturation_area_counts_no_more():
    curve = one_image([[9.0, 8.0, 1.0], [7.0, 6.0, 0.0]], [[[1, 1, 0], [1, 1, 0]]], [2])
    assert curve.spro.tolist() == [0, 0.5, 1, 1, 1, 1, 1]


def test_overlapping_channels_count_once_each_and_their_union_is_not_defect_free():
    curve = one_image([[5.0, 4.0, 3.0, 2.0]], [[[1, 1, 0, 0]], [[0, 1, 1, 0]]], [2, 2])
    assert curve.spro.tolist() == [0, 0.25, 0.75, 1, 1]
    assert curve.fpr.tolist() == [0, 0, 0, 0, 1]


def test_tied_scores_are_one_step_of_the_curve_and_the_limit_cuts_it_linearly():
    curve = one_image([[1.0, 1.0, 1.0, 1.0, 0.0]], [[[1, 1, 0, 0, 0]]], [2])
    assert (curve.fpr.tolist(), curve.spro.tolist()) == ([0, 2 / 3, 1], [0, 1, 1])
    assert au_spro(curve.fpr, curve.spro, 1 / 3).item() == pytest.approx(0.25)


@pytest.mark.parametrize("limit", LIMITS)
def test_constant_map_gives_half_the_limit(limit):
    curve = one_image([[2.0] * 6], [[[1, 0, 0, 0, 0, 0]]], [1])
    assert (curve.fpr.tolist(), curve.spro.tolist()) == ([0, 1], [0, 1])
    assert au_spro(curve.fpr, curve.spro, limit).item() == pytest.approx(limit / 2)


def test_score_equal_to_the_threshold_is_not_above_it():
    curve = one_image([[3.0, 2.0]], [[[1, 0]]], [1])
    assert curve.thresholds.tolist() == [3, 2, -torch.inf]
    assert curve.spro.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("area", "threshold", "relative", "expected"),
    [
        (10, 0.55, True, 5),
        (10, 1.0, True, 10),
        (1, 0.3, True, 1),
        (100, 0.29, True, 28),  # 0.29 * 100 is 28.999999999999996, in MVTec's script as here
        (10, 4, False, 4),
        (10, 400, False, 10),
        (10, 2.5, False, 2.5),
    ],
)
def test_saturation_area(area, threshold, relative, expected):
    assert saturation_area(area, threshold, relative) == expected


@pytest.mark.parametrize(
    ("area", "threshold", "relative"), [(10, 1.01, True), (10, 0, True), (0, 0.5, True), (10, -1, False)]
)
def test_saturation_threshold_out_of_range_is_refused(area, threshold, relative):
    with pytest.raises(ValueError, match="threshold"):
        saturation_area(area, threshold, relative)


@pytest.mark.parametrize("limit", [0, -0.1, 1.5, float("nan")])
def test_limit_out_of_range_is_refused(limit):
    with pytest.raises(ValueError, match=r"limit must be a false positive rate in \(0, 1\]"):
        au_spro(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0]), limit)


def test_curve_that_ends_below_the_limit_is_refused():
    with pytest.raises(ValueError, match=r"must reach the limit 0\.3"):
        au_spro(torch.tensor([0.0, 0.2]), torch.tensor([0.0, 1.0]), 0.3)


def test_curve_without_defect_free_pixels_or_regions_is_refused():
    some, none = count_scores(torch.ones(3)), count_scores(torch.ones(0))
    with pytest.raises(ValueError, match="got 0 pixels and 1 regions"):
        spro_curve([none], [some], [1])
    with pytest.raises(ValueError, match="got 3 pixels and 0 regions"):
        spro_curve([some], [], [])


# resizing


def test_map_of_the_images_size_stays_as_it_is():
    scores = torch.tensor([[-5.0, 300.0], [0.0, 1e-9]])
    assert torch.equal(resize_anomaly_map(scores, (2, 2)), scores)


def test_map_is_resized_bilinearly_with_its_range():
    resized = resize_anomaly_map(torch.tensor([[0.0, 40.0]]), (1, 4))
    assert resized.tolist() == [[0.0, 10.0, 30.0, 40.0]]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_map_that_is_not_finite_is_refused(value):
    with pytest.raises(ValueError, match="NaN or infinity"):
        resize_anomaly_map(torch.tensor([[0.0, value]]), (4, 4))


def test_infinities_of_both_signs_do_not_cancel():
    with pytest.raises(ValueError, match="NaN or infinity"):
        resize_anomaly_map(torch.tensor([[float("inf"), -float("inf")]]), (4, 4))


def test_largest_finite_scores_are_accepted():
    largest = torch.finfo(torch.float32).max
    assert torch.equal(resize_anomaly_map(torch.full((2, 2), largest), (2, 2)), torch.full((2, 2), largest))


@pytest.mark.parametrize("shape", [(4,), (1, 4, 4), (0, 4)])
def test_map_that_is_not_two_dimensional_is_refused(shape):
    with pytest.raises(ValueError, match="must be 2-D"):
        resize_anomaly_map(torch.zeros(shape), (4, 4))


# against the definition, and properties

few_values = st.integers(-3, 3).map(float)
many_values = st.floats(-1e6, 1e6, width=32)


@st.composite
def data_sets(draw, values=few_values | many_values):
    """One to three small maps with up to two channels each, at least one channel and one defect-free pixel in all."""
    maps, channels, saturations = [], [], []
    for _ in range(draw(st.integers(1, 3))):
        maps.append(torch.from_numpy(draw(arrays("float32", (3, 4), elements=values))))
        channels.append([])
        saturations.append([])
        for _ in range(draw(st.integers(0, 2))):
            mask = torch.from_numpy(draw(arrays("bool", (3, 4))))
            mask[0, 0], mask[2, 3] = True, False
            channels[-1].append(mask)
            saturations[-1].append(draw(st.integers(1, int(mask.sum()))))
    if not any(channels):
        channels[0].append(torch.arange(12).view(3, 4) < 5)
        saturations[0].append(3)
    return maps, channels, saturations


@settings(max_examples=150, deadline=None)
@given(data_sets(), st.sampled_from((*LIMITS, 0.37)))
def test_curve_and_area_are_those_of_the_definition(data_set, limit):
    curve = curve_of(*data_set)
    fpr, spro = reference_curve(*data_set, curve.thresholds)
    torch.testing.assert_close(curve.fpr, fpr, atol=1e-6, rtol=0)
    torch.testing.assert_close(curve.spro, spro, atol=1e-6, rtol=0)
    area = au_spro(curve.fpr, curve.spro, limit).item()
    assert area == pytest.approx(reference_area(fpr.tolist(), spro.tolist(), limit), abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(data_sets())
def test_curve_is_monotone_and_bounded(data_set):
    thresholds, fpr, spro = curve_of(*data_set)
    assert (thresholds.diff() < 0).all()
    assert (fpr.diff() >= 0).all()
    assert (spro.diff() >= 0).all()
    assert (fpr[0], spro[0], fpr[-1]) == (0, 0, 1)
    assert spro[-1].item() == pytest.approx(1)
    assert spro.max() <= 1
    areas = [au_spro(fpr, spro, limit).item() for limit in LIMITS]
    assert all(0 <= area <= 1 for area in areas)
    # the mean of a rising function over a longer interval
    assert all(short <= long + 1e-12 for short, long in pairwise(areas))


@settings(max_examples=50, deadline=None)
@given(data_sets(values=few_values))
def test_only_the_order_of_scores_counts(data_set):
    maps, *rest = data_set
    before, after = curve_of(maps, *rest), curve_of([m.exp() * 1e-3 + 5 for m in maps], *rest)
    assert torch.equal(before.fpr, after.fpr)
    assert torch.equal(before.spro, after.spro)


# counting scores with bounded memory

DISTRIBUTIONS = {
    "normal": lambda n, g: torch.randn(n, generator=g),
    "heavy tail": lambda n, g: torch.randn(n, generator=g).abs().pow(-3),
    "few values": lambda n, g: torch.randint(0, 9, (n,), generator=g).float(),
    "constant but for few": lambda n, g: torch.where(torch.arange(n) % 997 == 0, torch.rand(n, generator=g), 0.5),
    "narrow": lambda n, g: 1000 + 1e-3 * torch.rand(n, generator=g),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_counted_scores_exceed_the_true_number_by_a_twentieth_of_a_percent_at_most(name):
    scores = DISTRIBUTIONS[name](300_000, torch.Generator().manual_seed(0))
    values, counts = count_scores(scores)
    assert counts.sum() == len(scores)
    assert len(values) < 13_000
    thresholds = torch.cat([scores[::31], values]).unique()
    true = len(scores) - torch.searchsorted(scores.sort().values, thresholds, right=True)
    cumulative = torch.cat([torch.zeros(1), counts.cumsum(0)])
    counted = len(scores) - cumulative[torch.searchsorted(values, thresholds, right=True)]
    assert (counted >= true).all()
    assert (counted <= true * 1.0005).all()


@pytest.mark.parametrize("total", [0, 1, 2, 2047, 2048, 2049, 2051, 20_000])
def test_all_of_few_scores_and_the_extremes_of_many_are_kept(total):
    scores = torch.randperm(total, generator=torch.Generator().manual_seed(0)).float()
    values, counts = count_scores(scores)
    assert counts.sum() == total
    top = min(total, 2048)
    assert values[len(values) - top :].tolist() == list(range(total - top, total))
    assert total == 0 or values[0] == 0


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_area_of_large_maps_is_exact_to_a_thousandth_of_the_limit(name):
    generator = torch.Generator().manual_seed(1)
    free = [DISTRIBUTIONS[name](200_000, generator) for _ in range(3)]
    regions = [DISTRIBUTIONS[name](size, generator) * 1.0001 for size in (9, 3_000, 60_000)]
    areas = [5, 3_000, 20_000]

    def exact(scores):
        values, counts = scores.unique(return_counts=True)
        return ScoreCounts(values, counts)

    ours = spro_curve([count_scores(f) for f in free], [count_scores(r) for r in regions], areas)
    truth = spro_curve([exact(f) for f in free], [exact(r) for r in regions], areas)
    for limit in (0.001, *LIMITS):
        expected = au_spro(truth.fpr, truth.spro, limit).item()
        assert au_spro(ours.fpr, ours.spro, limit).item() == pytest.approx(expected, abs=5e-4)

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Thresholds from normal images, and normalised scores in the order of raw ones."""

import logging
from types import SimpleNamespace

import pytest
import torch
from anomalib.data import ImageBatch, InferenceBatch
from anomalib.post_processing import PostProcessor

from anomalib_logic import CalibratedPostProcessor
from anomalib_logic.models.components.normal_scores import image_threshold, pixel_threshold


def predicted(scores, labels, masks=True):
    """A batch of a model's raw output; the map of each image is its score and lower values."""
    scores = torch.as_tensor(scores).float()
    maps = scores[:, None, None] - torch.arange(16.0).view(4, 4) / 16
    labels = torch.as_tensor(labels).bool()
    gt_mask = labels[:, None, None] & (torch.arange(16).view(4, 4) < 4) if masks else None
    return ImageBatch(
        image=torch.zeros(len(scores), 3, 4, 4), pred_score=scores, anomaly_map=maps, gt_label=labels, gt_mask=gt_mask
    )


def validated(post_processor, *batches, model=None):
    model = model or SimpleNamespace()
    post_processor.on_validation_epoch_start(None, model)
    for batch in batches:
        post_processor.on_validation_batch_end(None, model, batch, batch, 0)
    post_processor.on_validation_epoch_end(None, model)
    return post_processor


def fitted_on(*scores):
    """A model that predicts these scores for its training images."""
    batches = [InferenceBatch(pred_score=torch.tensor([s]), anomaly_map=torch.full((1, 1, 4, 4), s)) for s in scores]
    return SimpleNamespace(fitted_predictions=lambda: iter(batches))


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("offset", [-50.0, 0.0, 1000.0])
def test_normalised_scores_and_maps_keep_the_order_far_beyond_the_validation_images(unit, offset):
    normal = offset + unit * torch.linspace(1, 2, 40)
    post_processor = validated(CalibratedPostProcessor(), predicted(normal, torch.zeros(40)))
    steps = torch.logspace(-2, 4, 200, dtype=torch.float64)
    raw = torch.cat([-steps.flip(0), torch.zeros(1), steps]) * unit + post_processor.image_threshold.double()
    raw = raw.float().unique()  # single precision itself cannot tell some apart
    result = post_processor(InferenceBatch(pred_score=raw, anomaly_map=raw.view(1, 1, 1, -1)))
    for normalised in (result.pred_score, result.anomaly_map.flatten()):
        assert (normalised.diff() > 0).all()
        assert normalised.min() > 0
        assert normalised.max() < 1


def test_threshold_becomes_one_half_and_the_label_follows_it():
    post_processor = validated(CalibratedPostProcessor(), predicted(torch.linspace(3, 5, 30), torch.zeros(30)))
    threshold = post_processor.image_threshold
    result = post_processor(
        InferenceBatch(pred_score=torch.stack([threshold - 0.01, threshold, threshold + 0.01]), anomaly_map=None)
    )
    assert result.pred_score[1] == 0.5
    assert result.pred_label.tolist() == [False, False, True]


def test_batch_of_the_engine_is_normalised_as_the_graph_does():
    post_processor = validated(CalibratedPostProcessor(), predicted(torch.linspace(3, 5, 30), torch.zeros(30)))
    batch = predicted([2.0, 4.5, 80.0], [0, 0, 1])
    graph = post_processor(InferenceBatch(pred_score=batch.pred_score, anomaly_map=batch.anomaly_map))
    post_processor.post_process_batch(batch)
    for name in ("pred_score", "anomaly_map", "pred_label", "pred_mask"):
        assert torch.equal(getattr(batch, name), getattr(graph, name))


@pytest.mark.parametrize("number", [25, 100, 400])
@pytest.mark.parametrize("rate", [0.02, 0.05, 0.2])
@pytest.mark.parametrize("distribution", ["normal", "lognormal"])
def test_new_normal_images_exceed_the_threshold_at_the_stated_rate(number, rate, distribution):
    generator = torch.Generator().manual_seed(number)
    scores = torch.randn(400, number + 1000, generator=generator)
    scores = scores.exp() if distribution == "lognormal" else scores
    alarms = [(s[number:] > image_threshold(s[:number], rate)).float().mean() for s in scores]
    assert 0.5 * rate < torch.stack(alarms).mean() < 2 * rate


@pytest.mark.parametrize(("number", "odd"), [(20, 1), (21, 1), (39, 1), (60, 3), (100, 5)])
def test_odd_normal_images_do_not_decide_where_they_are_no_more_than_the_stated_share(number, odd):
    scores = torch.linspace(1, 2, number)
    scores[:odd] = 40.0
    assert 2 < image_threshold(scores, 0.05) < 2.01


def test_threshold_from_normal_scores_is_on_none_of_them():
    for number in (20, 57, 400):
        scores = torch.randn(number, generator=torch.Generator().manual_seed(number))
        gaps = (scores - image_threshold(scores, 0.05)).abs()
        assert gaps.min() > 1e-5
        values = torch.arange(-500.0, 500.0)
        assert not torch.isin(pixel_threshold(values, torch.ones(1000), 0.01).float(), values)


@pytest.mark.parametrize("value", [-3.0, 0.0, 1e-3, 26.7])
@pytest.mark.parametrize("number", [1, 3, 12, 40, 300])
def test_copies_of_an_image_whose_scores_differ_by_rounding_are_normal(value, number):
    noise = 1e-6 * torch.randn(number, generator=torch.Generator().manual_seed(0))
    scores = value * (1 + noise)
    assert (scores < image_threshold(scores, 0.05)).all()
    assert (scores < image_threshold(scores[:0], 0.05, scores)).all()
    assert (scores < pixel_threshold(scores, torch.ones(number), 0.005)).all()


@pytest.mark.parametrize("number", [3, 5, 10])
def test_few_normal_images_give_a_threshold_above_all_of_them_and_few_false_alarms(number):
    scores = torch.randn(2000, number + 50, generator=torch.Generator().manual_seed(number))
    thresholds = torch.stack([image_threshold(s[:number], 0.05) for s in scores])
    assert (thresholds >= scores[:, :number].amax(dim=1)).all()
    assert (scores[:, number:] > thresholds.unsqueeze(1)).float().mean() < 0.1


def test_share_of_pixels_above_the_threshold_is_the_stated_one():
    values = torch.arange(1000.0)
    threshold = pixel_threshold(values, torch.full((1000,), 7), 0.01)
    assert (values > threshold).float().mean() == pytest.approx(0.01, abs=0.001)


@pytest.mark.parametrize("name", ["false_alarm_rate", "pixel_false_alarm_rate"])
@pytest.mark.parametrize("rate", [0, -0.1, 0.6])
def test_rate_out_of_range_is_refused_by_name(name, rate):
    with pytest.raises(ValueError, match=f"{name} must be above 0 and at most 0.5, got {rate}"):
        CalibratedPostProcessor(**{name: rate})


def test_lower_rate_gives_higher_thresholds():
    batch = predicted(torch.linspace(0, 1, 200), torch.zeros(200))
    few, many = (validated(CalibratedPostProcessor(r, r), batch) for r in (0.01, 0.2))
    assert few.image_threshold > many.image_threshold
    assert few.pixel_threshold > many.pixel_threshold


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        ([1.0, 2.0, 3.0, 2.5, 6.0, 7.0], [0, 0, 0, 1, 1, 1], 2.25),  # Anomalib's is 2.5
        ([1.0, 2.0, 8.0, 9.0], [0, 0, 1, 1], 5.0),
        ([1.0, 2.0, 2.0, 2.0], [0, 0, 1, 1], 1.5),
    ],
)
def test_threshold_of_the_highest_f1_score_is_in_the_middle_between_two_scores(scores, labels, expected):
    batch = predicted(scores, labels)
    ours, anomalibs = (validated_by(p, batch) for p in (CalibratedPostProcessor(), PostProcessor()))
    assert ours.image_threshold == expected
    assert (batch.pred_score > ours.image_threshold).equal(batch.pred_score >= anomalibs.image_threshold)
    assert (batch.anomaly_map > ours.pixel_threshold).equal(batch.anomaly_map >= anomalibs.pixel_threshold)


def test_label_does_not_depend_on_rounding_of_the_score():
    batch = predicted([1.0, 2.0, 3.0, 2.5, 6.0, 7.0], [0, 0, 0, 1, 1, 1])
    post_processor = validated(CalibratedPostProcessor(), batch)
    labels = [
        post_processor(InferenceBatch(pred_score=batch.pred_score + shift, anomaly_map=None)).pred_label.tolist()
        for shift in (-2e-5, 0, 2e-5)
    ]
    assert labels[0] == labels[1] == labels[2] == [False, False, True, True, True, True]


def test_threshold_below_all_scores_where_all_images_should_be_anomalous():
    post_processor = validated(CalibratedPostProcessor(), predicted([5.0, 1.0, 2.0, 3.0], [0, 1, 1, 1]))
    assert 0.9 < post_processor.image_threshold < 1


def test_score_and_pixel_that_are_not_numbers_are_anomalous():
    post_processor = validated(CalibratedPostProcessor(), predicted(torch.linspace(3, 5, 30), torch.zeros(30)))
    scores, maps = torch.tensor([3.0, float("nan")]), torch.tensor([[[[3.0, float("nan")]]]] * 2)
    result = post_processor(InferenceBatch(pred_score=scores, anomaly_map=maps))
    assert result.pred_label.tolist() == [False, True]
    assert result.pred_mask[0].flatten().tolist() == [False, True]


def test_false_alarm_rate_that_decides_nothing_is_named(caplog):
    labels = torch.arange(40) >= 20
    validated(CalibratedPostProcessor(0.01, 0.001), predicted(torch.linspace(0, 1, 40), labels))
    assert "false_alarm_rate=0.01 and pixel_false_alarm_rate=0.001 without effect" in caplog.text
    caplog.clear()
    validated(CalibratedPostProcessor(0.05, 0.001), predicted(torch.linspace(0, 1, 40), labels, masks=False))
    assert "without effect" not in caplog.text


def validated_by(post_processor, batch):
    if isinstance(post_processor, CalibratedPostProcessor):
        return validated(post_processor, batch)
    post_processor.on_validation_batch_end(None, None, batch)
    post_processor.on_validation_epoch_end(None, None)
    return post_processor


def test_without_masks_the_pixel_threshold_comes_from_normal_images():
    batch = predicted([*torch.linspace(1, 2, 20), 50.0, 60.0], [0] * 20 + [1, 1], masks=False)
    post_processor = validated(CalibratedPostProcessor(), batch)
    assert 1 < post_processor.pixel_threshold <= 2
    assert post_processor.image_threshold == 26


def test_one_anomalous_validation_image_is_no_threshold(caplog):
    with caplog.at_level(logging.WARNING):
        post_processor = validated(
            CalibratedPostProcessor(), predicted([30.0], [1], masks=False), model=fitted_on(1.0, 1.2, 1.1, 0.9)
        )
    assert 1.2 <= post_processor.image_threshold < 3
    result = post_processor(InferenceBatch(pred_score=torch.tensor([1.0, 1.1, 30.0]), anomaly_map=None)).pred_score
    assert (result.diff() > 0).all()
    assert [record.message for record in caplog.records if "thresholds rest on 0 normal images" in record.message]


def test_model_holds_out_normal_images_of_its_own():
    held_out = [InferenceBatch(pred_score=torch.tensor([s]), anomaly_map=None) for s in torch.linspace(1, 2, 60)]
    model = SimpleNamespace(held_out_predictions=lambda: iter(held_out))
    post_processor = validated(CalibratedPostProcessor(), predicted([1.5], [0]), model=model)
    assert 1.9 < post_processor.image_threshold <= 2


def test_without_any_normal_image_one_warning_says_what_is_missing(caplog):
    with caplog.at_level(logging.WARNING):
        post_processor = validated(CalibratedPostProcessor(), predicted([3.0, 4.0], [1, 1]))
    assert post_processor.image_threshold.isnan()
    assert "there was no normal image to measure them on" in caplog.text


@pytest.mark.parametrize("scores", [[2.0], [2.0, 2.0, 2.0]])
def test_equal_scores_of_all_normal_images_give_finite_ordered_scores(scores):
    post_processor = validated(CalibratedPostProcessor(), predicted(scores, [0] * len(scores)))
    result = post_processor(InferenceBatch(pred_score=torch.tensor([1.0, 2.0, 3.0, 9.0]), anomaly_map=None))
    assert (result.pred_score.diff() > 0).all()
    assert result.pred_label.tolist() == [False, False, True, True]


def test_validation_that_was_cut_short_leaves_nothing_to_the_next():
    post_processor, batch = CalibratedPostProcessor(), predicted(torch.linspace(1, 2, 30), torch.zeros(30))
    post_processor.on_validation_batch_end(None, None, predicted([500.0], [0]), None, 0)
    assert validated(post_processor, batch).image_threshold <= 2


def test_rates_travel_in_the_checkpoint():
    other = CalibratedPostProcessor()
    other.load_checkpoint_config(CalibratedPostProcessor(0.01, 0.001).checkpoint_config())
    assert (other.false_alarm_rate, other.pixel_false_alarm_rate) == (0.01, 0.001)


@pytest.mark.parametrize(("normal", "anomalous"), [(3, 20), (20, 3), (9, 9)])
def test_few_validation_images_of_either_kind_are_named(normal, anomalous, caplog):
    labels = torch.arange(normal + anomalous) >= normal
    validated(CalibratedPostProcessor(), predicted(torch.linspace(0, 1, normal + anomalous), labels))
    assert f"thresholds rest on {normal} normal and {anomalous} anomalous validation images" in caplog.text


def test_enough_validation_images_of_both_kinds_need_no_warning(caplog):
    validated(CalibratedPostProcessor(), predicted(torch.linspace(0, 1, 20), torch.arange(20) >= 10))
    assert caplog.text == ""

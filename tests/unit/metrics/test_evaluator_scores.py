# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Metrics of raw scores, and of images of one kind only."""

import logging
from types import SimpleNamespace

import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.metrics import AUPR, AUROC, Evaluator, F1Score
from sklearn.metrics import average_precision_score, roc_auc_score

from anomalib_logic import Glcf, LocoAUROC, LocoEvaluator
from anomalib_logic.metrics._raw_scores import to_unit_interval
from anomalib_logic.models.components.defaults import resolve_evaluator

PIXELS = (6, 5)


def raw(number=60, offset=0.0, unit=10.0):
    """Scores, maps, labels and masks of images, overlapping, mostly outside [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(number, generator=generator) < 0.4
    masks = labels[:, None, None] & (torch.rand(number, *PIXELS, generator=generator) < 0.3)
    scores = offset + unit * (torch.randn(number, generator=generator) + 0.7 * labels)
    maps = offset + unit * (torch.randn(number, *PIXELS, generator=generator) + 0.9 * masks)
    return SimpleNamespace(scores=scores, maps=maps, labels=labels, masks=masks)


def batches(data, size):
    for i in range(0, len(data.scores), size):
        part = slice(i, i + size)
        yield ImageBatch(
            image=torch.zeros(len(data.scores[part]), 3, *PIXELS),
            pred_score=data.scores[part],
            anomaly_map=data.maps[part],
            gt_label=data.labels[part],
            gt_mask=data.masks[part],
        )


def logged(evaluator, data, size, stage, module=None):
    """What an evaluator logs after a validation or a test."""
    found = {}
    evaluator.log = lambda name, metric, **_: found.update({name: metric.compute().item()})
    trainer = SimpleNamespace(barebones=False)
    for batch in batches(data, size):
        getattr(evaluator, f"on_{stage}_batch_end")(trainer, module, None, batch, 0)
    getattr(evaluator, f"on_{stage}_epoch_end")(trainer, module)
    return found


def metrics():
    return [
        AUROC(fields=["pred_score", "gt_label"], prefix="image_"),
        AUPR(fields=["pred_score", "gt_label"], prefix="image_"),
        AUROC(fields=["anomaly_map", "gt_mask"], prefix="pixel_"),
    ]


@pytest.mark.parametrize("size", [1, 7, 32])
@pytest.mark.parametrize(("offset", "unit"), [(0.0, 10.0), (137.0, 0.01), (0.4, 0.1), (-3000.0, 50.0)])
def test_validation_metrics_of_raw_scores_are_those_of_scikit_learn(size, offset, unit):
    data = raw(offset=offset, unit=unit)
    found = logged(LocoEvaluator(val_metrics=metrics(), required=False), data, size, "validation")
    assert found["image_AUROC"] == pytest.approx(roc_auc_score(data.labels, data.scores), abs=1e-6)
    assert found["image_AUPR"] == pytest.approx(average_precision_score(data.labels, data.scores), abs=0.02)
    assert found["pixel_AUROC"] == pytest.approx(roc_auc_score(data.masks.flatten(), data.maps.flatten()), abs=1e-6)


def test_test_metrics_of_a_model_without_normalisation_are_those_of_scikit_learn():
    data = raw()
    module = SimpleNamespace(post_processor=None)
    found = logged(LocoEvaluator(test_metrics=metrics(), required=False), data, 4, "test", module)
    assert found["image_AUROC"] == pytest.approx(roc_auc_score(data.labels, data.scores), abs=1e-6)


def test_distinct_scores_stay_distinct():
    scores = torch.tensor([137.7]).nextafter(torch.tensor([torch.inf]))
    scores = torch.cat([torch.tensor([-1e30, -5.0, 0.0, 1e-12, 137.7]), scores, torch.tensor([1e30])]).double()
    assert (to_unit_interval(scores).diff() > 0).all()


@pytest.mark.parametrize("anomalous", [False, True])
@pytest.mark.parametrize("stage", ["validation", "test"])
def test_metrics_that_need_both_kinds_are_left_out_and_named(stage, anomalous, caplog):
    data = raw()
    for name in ("scores", "maps", "masks", "labels"):
        setattr(data, name, getattr(data, name)[data.labels == anomalous])
    evaluator = LocoEvaluator(val_metrics=metrics(), test_metrics=metrics(), required=False)
    with caplog.at_level(logging.WARNING):
        assert logged(evaluator, data, 8, stage, SimpleNamespace(post_processor=None)) == {}
    missing = "normal" if anomalous else "anomalous"
    assert f"image_AUROC, image_AUPR, pixel_AUROC need {missing} images, too, and are left out" in caplog.text


def test_metrics_that_were_left_out_once_are_back_with_both_kinds():
    evaluator = LocoEvaluator(val_metrics=metrics(), required=False)
    data = raw()
    good = SimpleNamespace(**{name: value[~data.labels] for name, value in vars(data).items()})
    assert logged(evaluator, good, 8, "validation") == {}
    found = logged(evaluator, data, 8, "validation")
    assert found["image_AUROC"] == pytest.approx(roc_auc_score(data.labels, data.scores), abs=1e-6)


class Own(Evaluator):
    """A user's evaluator."""


def test_evaluator_of_a_users_own_class_stays():
    own = Own(test_metrics=[LocoAUROC("logical")])
    assert resolve_evaluator(own) is own
    assert (
        Glcf(backbone="mobilenetv2_035", pre_trained=False, width=48, depth=1, heads=4, evaluator=own).evaluator is own
    )


def test_plain_evaluator_without_loco_metrics_stays():
    plain = Evaluator(test_metrics=[F1Score(fields=["pred_label", "gt_label"])])
    assert resolve_evaluator(plain) is plain

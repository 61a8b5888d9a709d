# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Components that are given beside a checkpoint: what can be applied to a trained model is, the rest is named."""

import logging
from pathlib import Path

import pytest
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.metrics import AUROC
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import Resize

from anomalib_logic import CalibratedPostProcessor, Glcf, LocoEvaluator, SamLad

from .conftest import SMALL, write_squares
from .sam_lad.conftest import SMALL as SMALL_SAM_LAD

MODELS = {"glcf": (Glcf, SMALL), "sam_lad": (SamLad, SMALL_SAM_LAD)}


def make(name, **components):
    kind, options = MODELS[name]
    return kind(**options, **components)


def engine(tmp_path, **arguments):
    return Engine(default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False, max_epochs=1, **arguments)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Normal images to fit and to validate, and a few of both kinds to test."""
    root = write_squares(tmp_path_factory.mktemp("squares"), 28)
    return Folder(
        "squares",
        "good",
        root,
        "bad",
        "good",
        val_split_mode="from_train",
        val_split_ratio=12 / 28,
        seed=0,
        num_workers=0,
    )


@pytest.fixture(scope="module", params=MODELS)
def trained(request, data, tmp_path_factory):
    """Name of a model, its checkpoint, and the model."""
    run, model = engine(tmp_path_factory.mktemp(request.param)), make(request.param)
    run.fit(model, datamodule=data)
    return request.param, run.best_model_path, model


def labels_of(batches):
    return torch.cat([batch.pred_label.flatten() for batch in batches])


def scores_of(batches):
    return torch.cat([batch.pred_score.flatten() for batch in batches])


@pytest.mark.parametrize("sensitivity", [0.3, 0.75])
def test_sensitivity_counts_at_once(trained, data, tmp_path, sensitivity):
    name, path, _ = trained
    post_processor = CalibratedPostProcessor(image_sensitivity=sensitivity, pixel_sensitivity=sensitivity)
    batches = engine(tmp_path).predict(make(name, post_processor=post_processor), datamodule=data, ckpt_path=path)
    assert labels_of(batches).equal(scores_of(batches) > 1 - sensitivity)
    maps, masks = (torch.cat([getattr(b, field).flatten() for b in batches]) for field in ("anomaly_map", "pred_mask"))
    assert masks.equal(maps > 1 - sensitivity)


def test_sensitivity_counts_in_an_exported_checkpoint(trained, tmp_path):
    name, path, _ = trained
    model = make(name, post_processor=CalibratedPostProcessor(image_sensitivity=0.25))
    exported = engine(tmp_path).export(model, "torch", tmp_path, ckpt_path=path)
    assert torch.load(exported, weights_only=False)["model"].post_processor.image_sensitivity == 0.25


def test_thresholds_and_other_settings_stay_those_of_the_checkpoint(trained, data, tmp_path):
    name, path, model = trained
    given = CalibratedPostProcessor(image_sensitivity=0.25)
    engine(tmp_path).test(make(name, post_processor=given), datamodule=data, ckpt_path=path)
    assert given.image_threshold == model.post_processor.image_threshold
    assert given.false_alarm_rate == 0.05


@pytest.mark.parametrize("trained", ["glcf"], indirect=True)
def test_rate_that_needs_data_is_named_and_validate_measures_it(trained, data, tmp_path, caplog):
    name, path, model = trained
    path = Path(path).rename(tmp_path / "kept.ckpt") if Path(path).is_file() else Path(path)
    with caplog.at_level(logging.INFO, "anomalib_logic"):
        given = CalibratedPostProcessor(false_alarm_rate=0.3)
        engine(tmp_path).predict(make(name, post_processor=given), datamodule=data, ckpt_path=path)
        assert "ignored: false_alarm_rate=0.3 (checkpoint: 0.05). Run validate" in caplog.text
        assert (given.image_threshold, given.false_alarm_rate) == (model.post_processor.image_threshold, 0.05)
        validated = make(name, post_processor=CalibratedPostProcessor(false_alarm_rate=0.3))
        engine(tmp_path).validate(validated, datamodule=data, ckpt_path=path)
    written = tmp_path / "kept_validated.ckpt"
    assert str(written) in caplog.text
    assert validated.post_processor.image_threshold < model.post_processor.image_threshold
    found = make(name)
    engine(tmp_path).predict(found, datamodule=data, ckpt_path=written)
    assert found.post_processor.image_threshold == validated.post_processor.image_threshold
    path.rename(trained[1])


def test_bank_gives_the_threshold_of_another_rate_without_data(data, tmp_path, caplog):
    data.setup()
    images, run = data.train_dataloader(), engine(tmp_path / "fit")
    wanted = make("sam_lad", post_processor=CalibratedPostProcessor(0.3, 0.1))
    run.fit(make("sam_lad"), train_dataloaders=images)
    engine(tmp_path / "wanted").fit(wanted, train_dataloaders=images)
    loaded = SamLad.load_from_checkpoint(run.best_model_path, post_processor=CalibratedPostProcessor(0.3, 0.1))
    predicting = make("sam_lad", post_processor=CalibratedPostProcessor(0.3, 0.1))
    engine(tmp_path).predict(predicting, dataloaders=[images], ckpt_path=run.best_model_path)
    for name in ("image_threshold", "pixel_threshold", "image_min", "pixel_min"):
        value = getattr(wanted.post_processor, name)
        for model in (loaded, predicting):
            torch.testing.assert_close(getattr(model.post_processor, name), value, rtol=1e-4, atol=1e-5)
    assert "ignored" not in caplog.text


def test_pre_processor_that_the_checkpoint_overrides_is_named(trained, data, tmp_path, caplog):
    name, path, _ = trained
    model = make(name, pre_processor=PreProcessor(Resize((96, 64), antialias=True)))
    engine(tmp_path).test(model, datamodule=data, ckpt_path=path)
    assert caplog.text.count("with the pre-processing that it was trained with; ignored: pre_processor") == 1


def test_components_that_are_not_given_are_not_named(trained, data, tmp_path, caplog):
    name, path, _ = trained
    engine(tmp_path).test(make(name), datamodule=data, ckpt_path=path)
    assert "ignored" not in caplog.text


def test_evaluator_that_is_given_counts_where_the_checkpoint_has_none(data, tmp_path):
    run, model = engine(tmp_path), make("glcf", evaluator=False, visualizer=False)
    run.fit(model, datamodule=data)
    metric = AUROC(fields=["pred_score", "gt_label"], prefix="own_")
    given = make("glcf", evaluator=LocoEvaluator(test_metrics=[metric], required=False))
    (results,) = engine(tmp_path).test(given, datamodule=data, ckpt_path=run.best_model_path)
    assert "own_AUROC" in results

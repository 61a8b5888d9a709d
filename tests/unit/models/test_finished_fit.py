# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""A finished fit leaves thresholds and limits that were measured with the final weights."""

import logging
import math
from datetime import timedelta

import pytest
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from lightning.pytorch import Callback
from scipy.stats import t as student

from anomalib_logic import Glcf

LIMITS = ("_image_threshold", "_pixel_threshold", "image_min", "image_max", "pixel_min", "pixel_max")


@pytest.fixture
def data(squares):
    """Four training images; one normal and one anomalous validation image."""
    return Folder(
        "squares", "good", squares, "bad", train_batch_size=2, num_workers=0, val_split_mode="same_as_test", seed=0
    )


def engine(tmp_path, **arguments):
    defaults = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False}
    return Engine(default_root_dir=tmp_path, **{**defaults, **arguments})


def limits(model):
    return {name: getattr(model.post_processor, name).clone() for name in LIMITS}


class StopEarly(Callback):
    """Ask the trainer to stop after the first batch of the second epoch."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.should_stop = trainer.current_epoch == 1

    def __repr__(self) -> str:
        return "StopEarly()"


@pytest.mark.parametrize(
    "trainer",
    [
        {"max_epochs": 2, "check_val_every_n_epoch": 50},
        {"max_epochs": -1, "max_steps": 3, "check_val_every_n_epoch": 7},
        {"max_epochs": 5, "check_val_every_n_epoch": 3, "callbacks": [StopEarly()]},
        {"max_epochs": -1, "max_time": timedelta(seconds=1), "check_val_every_n_epoch": 1000},
        {"limit_val_batches": 0},
        {"check_val_every_n_epoch": None, "val_check_interval": 1000},
    ],
    ids=str,
)
def test_limits_are_those_of_a_validation_with_the_final_weights(trainer, tmp_path, data, small):
    model = Glcf(**small)
    engine(tmp_path, **trainer).fit(model, datamodule=data)
    found = limits(model)
    assert all(torch.isfinite(value) for value in found.values())
    engine(tmp_path).validate(model, datamodule=data)
    for name, value in limits(model).items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


def test_checkpoint_of_a_fit_shorter_than_the_validation_interval_has_the_limits(tmp_path, data, small):
    model, run = Glcf(**small), engine(tmp_path, check_val_every_n_epoch=50)
    run.fit(model, datamodule=data)
    loaded = Glcf.load_from_checkpoint(run.best_model_path)
    assert limits(loaded) == limits(model)
    assert run.trainer.check_val_every_n_epoch == 50


def test_last_epoch_is_validated_once(tmp_path, data, small):
    epochs = []
    model = Glcf(**small)
    model.on_validation_end = lambda: epochs.append(model.current_epoch)
    engine(tmp_path, max_epochs=3, check_val_every_n_epoch=2).fit(model, datamodule=data)
    assert epochs == [1, 2]


def test_without_validation_images_thresholds_come_from_the_training_images(tmp_path, squares, small, caplog):
    data = Folder("squares", "good", squares, "bad", num_workers=0, val_split_mode="none", seed=0)
    data.val_dataloader = lambda: []
    model = Glcf(**small)
    with caplog.at_level(logging.WARNING):
        engine(tmp_path).fit(model, datamodule=data)
    with torch.no_grad():
        raw = [model.eval().model(model.pre_processor(item.image[None])) for item in data.train_data]
    scores, maps = (torch.cat([getattr(one, name) for one in raw]) for name in ("pred_score", "anomaly_map"))
    # Upper limit of the prediction interval for one more normally distributed score, exceeded by one in 20.
    reach = student.ppf(0.95, len(scores) - 1) * math.sqrt(1 + 1 / len(scores)) * scores.std()
    assert limits(model)["_image_threshold"].item() == pytest.approx(max(scores.max(), scores.mean() + reach), rel=1e-3)
    above = (maps > limits(model)["_pixel_threshold"]).float().mean().item()
    assert above == pytest.approx(model.post_processor.pixel_false_alarm_rate, rel=0.05)
    assert caplog.text.count("thresholds rest on 0 normal images that Glcf was not fitted on") == 1


def test_prediction_without_thresholds_is_said(tmp_path, data, small, caplog):
    with caplog.at_level(logging.WARNING):
        engine(tmp_path).predict(Glcf(**small), datamodule=data)
    assert "Glcf has no thresholds: scores are raw, and labels and masks mean nothing" in caplog.text


def test_second_fit_starts_without_the_thresholds_of_the_first(tmp_path, data, small):
    model = Glcf(**small)
    engine(tmp_path).fit(model, datamodule=data)
    model.post_processor._image_threshold.fill_(1e6)
    engine(tmp_path, max_epochs=2, check_val_every_n_epoch=50).fit(model, datamodule=data)
    assert model.post_processor.image_threshold < 1e5

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""A checkpoint is used with the options that it was trained with."""

import logging

import pytest
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import Resize

from anomalib_logic import Glcf, SamLad

from .conftest import SMALL
from .sam_lad.conftest import SMALL as SMALL_SAM_LAD


@pytest.fixture(scope="module")
def data(squares):
    return Folder("squares", "good", squares, "bad", num_workers=0, val_split_mode="same_as_test", seed=0)


def engine(tmp_path, **arguments):
    return Engine(default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False, max_epochs=1, **arguments)


def trained(model, data, tmp_path):
    """Path of a checkpoint, and the model's predictions."""
    run = engine(tmp_path)
    run.fit(model, datamodule=data)
    return run.best_model_path, predicted(run, model, data)


def predicted(run, model, data, **arguments):
    batches = run.predict(model, datamodule=data, **arguments)
    return torch.cat([b.pred_score.flatten() for b in batches]), torch.cat([b.anomaly_map for b in batches])


@pytest.fixture(scope="module")
def checkpoint(data, tmp_path_factory):
    """Checkpoint of a model of no default structure and image score."""
    options = {"structure": "ps", "image_score": "max", "sigma": 2.0}
    return trained(Glcf(**SMALL, **options), data, tmp_path_factory.mktemp("checkpoint"))


@pytest.mark.parametrize(
    "options",
    [
        {"branch": "local", "distance": "cosine"},
        {"scale_weights": (1.0, 0.0, 0.0), "branch_weights": (1.0, 4.0), "sigma": 1.0},
        {"criterion": "correspondence", "image_size": 64},
        {"depth": 2, "structure": "ps", "decoder_widths": (16, 16, 24, 32)},
    ],
    ids=str,
)
def test_glcf_predicts_with_the_options_of_the_checkpoint(options, tmp_path, data, small):
    path, (scores, maps) = trained(Glcf(**{**small, **options}), data, tmp_path)
    found_scores, found_maps = predicted(engine(tmp_path), Glcf(**small), data, ckpt_path=path)
    torch.testing.assert_close(found_scores, scores, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found_maps, maps, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"k": 1, "align": "box", "lite": True},
        {"geometry": 0.0, "composition": False, "upsample": 4, "max_objects": 6},
        {"image_score": "top", "image_size": (96, 96), "descriptor": "gmp"},
    ],
    ids=str,
)
def test_sam_lad_predicts_with_the_options_of_the_checkpoint(options, tmp_path, data):
    path, (scores, maps) = trained(SamLad(**{**SMALL_SAM_LAD, **options}), data, tmp_path)
    found_scores, found_maps = predicted(engine(tmp_path), SamLad(**SMALL_SAM_LAD), data, ckpt_path=path)
    torch.testing.assert_close(found_scores, scores, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found_maps, maps, rtol=1e-5, atol=1e-6)


def test_option_that_the_caller_gives_and_the_checkpoint_overrides_is_named(tmp_path, data, small, checkpoint, caplog):
    with caplog.at_level(logging.WARNING):
        engine(tmp_path).test(Glcf(**small, image_score="top"), datamodule=data, ckpt_path=checkpoint[0])
    assert "ignored: image_score='top' (checkpoint: 'max')" in caplog.text


def test_default_that_the_checkpoint_overrides_is_no_warning(tmp_path, data, small, checkpoint, caplog):
    with caplog.at_level(logging.WARNING):
        engine(tmp_path).test(Glcf(**small), datamodule=data, ckpt_path=checkpoint[0])
    assert "a checkpoint is used with" not in caplog.text


def test_export_names_an_option_that_the_checkpoint_overrides(tmp_path, small, checkpoint, caplog):
    with caplog.at_level(logging.WARNING):
        engine(tmp_path).export(Glcf(**small, sigma=3.0), "torch", tmp_path, ckpt_path=checkpoint[0])
    assert "ignored: sigma=3.0 (checkpoint: 2.0)" in caplog.text


def test_field_of_a_group_overrides_the_checkpoint_and_the_others_stay(checkpoint):
    model = Glcf.load_from_checkpoint(checkpoint[0], scoring={"image_score": "top"})
    assert model.model.anomaly_map_generator.image_score == "top"
    assert (model.hparams["sigma"], model.hparams["structure"]) == (2.0, "ps")


def test_argument_of_load_from_checkpoint_overrides_the_checkpoint(checkpoint):
    path, _ = checkpoint
    assert Glcf.load_from_checkpoint(path, image_score="top").model.anomaly_map_generator.image_score == "top"
    assert Glcf.load_from_checkpoint(path).model.anomaly_map_generator.image_score == "max"


def test_resumed_training_takes_the_callers_learning_rate_and_the_checkpoints_network(
    tmp_path, data, small, checkpoint
):
    model = Glcf(**small, learning_rate=0.5)
    Engine(default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False, max_epochs=2).fit(
        model, datamodule=data, ckpt_path=checkpoint[0]
    )
    assert model.learning_rate == 0.5
    assert model.model.anomaly_map_generator.image_score == "max"
    assert model.hparams["structure"] == "ps"


def test_pre_processor_that_the_checkpoint_lacks_is_not_used(tmp_path, data, small):
    model = Glcf(**{**small, "image_size": (64, 96)}, pre_processor=False)
    path, (scores, _) = trained(model, data, tmp_path)
    found, _ = predicted(engine(tmp_path), Glcf(**small), data, ckpt_path=path)
    torch.testing.assert_close(found, scores, rtol=1e-5, atol=1e-6)


def test_images_are_resized_as_the_checkpoints_pre_processor_does(tmp_path, data, small):
    model = Glcf(**small, pre_processor=PreProcessor(Resize((96, 64), antialias=True)))
    path, (scores, maps) = trained(model, data, tmp_path)
    found_scores, found_maps = predicted(engine(tmp_path), Glcf(**small), data, ckpt_path=path)
    assert found_maps.shape == maps.shape
    torch.testing.assert_close(found_scores, scores, rtol=1e-5, atol=1e-6)


def test_missing_pre_processor_is_said(tmp_path, data, small, checkpoint, caplog):
    with caplog.at_level(logging.WARNING):
        engine(tmp_path).test(Glcf(**small, pre_processor=False), datamodule=data, ckpt_path=checkpoint[0])
    assert "this one has none (pre_processor=False)" in caplog.text

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Folders with few images, or with normal ones only, in Anomalib's default splits."""

import logging

import numpy as np
import pytest
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from PIL import Image

from anomalib_logic import Glcf, Lgfdr, SamLad

from .conftest import SMALL
from .lgfdr.test_lgfdr import SMALL as SMALL_LGFDR
from .sam_lad.conftest import SMALL as SMALL_SAM_LAD
from .sam_lad.conftest import SQUARES, draw

MODELS = {
    "glcf": lambda: Glcf(**SMALL, learning_rate=3e-3),
    "lgfdr": lambda: Lgfdr(**SMALL_LGFDR),
    "samlad": lambda: SamLad(**SMALL_SAM_LAD),
}


def trained(name, data, tmp_path):
    torch.manual_seed(0)
    model = MODELS[name]()
    epochs = 1 if name == "samlad" else 5
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False, max_epochs=epochs)
    (results,) = engine.train(model, datamodule=data)
    return model.eval(), results


@torch.no_grad()
def predictions(model, images):
    pixels = [torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 for image in images]
    return [model(image[None]) for image in pixels]


@pytest.mark.parametrize("name", MODELS)
def test_six_good_and_three_bad_images_in_default_splits_give_limits_and_an_export(name, squares, tmp_path, caplog):
    data = Folder("squares", "good", squares, "bad", num_workers=0, seed=0)
    with caplog.at_level(logging.WARNING):
        model, _ = trained(name, data, tmp_path)
    assert list(data.val_data.samples.label_index) == [1]
    assert model.post_processor.image_min < model.post_processor.image_threshold
    assert caplog.text.count("thresholds rest on") == 1
    model.to_torch(tmp_path)


@pytest.mark.parametrize(
    ("name", "number", "most"),
    [
        ("samlad", 5, 0.4),
        ("samlad", 20, 0.2),
        ("glcf", 5, 0.2),
        pytest.param("samlad", 100, 0.2, marks=pytest.mark.slow),
    ],
)
def test_good_images_only_give_thresholds_by_which_new_ones_are_mostly_good(name, number, most, tmp_path, caplog):
    generator = np.random.default_rng(0)
    (tmp_path / "good").mkdir()
    for i in range(number):
        draw(generator, SQUARES).save(tmp_path / "good" / f"{i:03}.png")
    data = Folder("squares", "good", tmp_path, num_workers=0, seed=0)
    with caplog.at_level(logging.WARNING):
        model, results = trained(name, data, tmp_path)
    assert not [metric for metric in results if "AUROC" in metric or "F1" in metric]
    assert "image_AUROC, image_F1Score" in caplog.text
    good = predictions(model, [draw(generator, SQUARES) for _ in range(20)])
    assert np.mean([bool(prediction.pred_label) for prediction in good]) <= most
    if name == "samlad":  # GLCF is hardly trained here
        (empty,) = predictions(model, [Image.new("RGB", (96, 64), (250, 250, 250))])
        assert empty.pred_score > max(prediction.pred_score for prediction in good)
        assert empty.pred_label or number < 10  # a threshold of four images may lie anywhere

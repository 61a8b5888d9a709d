# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What a trainer's loggers get: options, losses, metrics and pictures."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from anomalib.engine import Engine
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from anomalib_logic import Glcf, Lgfdr, LocoScenes, SamLad

from .conftest import SMALL
from .sam_lad.conftest import SMALL as SMALL_SAM_LAD

MODELS = {
    "glcf": lambda **options: Glcf(**SMALL, sigma=3.0, **options),
    "lgfdr": lambda **options: Lgfdr(
        "test_efficientnet", pre_trained=False, image_size=(64, 96), width=16, sigma=3.0, **options
    ),
    "sam_lad": lambda **options: SamLad(**SMALL_SAM_LAD, sigma=3.0, **options),
}
LOSSES = {
    "glcf": {"train_loss", "train_loss_local"},
    "lgfdr": {"train_loss", "train_loss_fused", "train_loss_local", "train_loss_global"},
    "sam_lad": set(),
}
LOCO = {f"{metric}_{kind}" for metric in ("image_AUROC", "pixel_AUsPRO_5") for kind in ("logical", "structural")}


class OwnLogger(Logger):
    """A logger with the method for images that Anomalib's loggers have."""

    def __init__(self):
        super().__init__()
        self.options, self.metrics, self.images = {}, {}, {}

    @property
    def name(self):
        return "own"

    @property
    def version(self):
        return 0

    def log_hyperparams(self, params):
        self.options |= params

    def log_metrics(self, metrics, step=None):
        self.metrics |= metrics

    def add_image(self, image, name=None, **kwargs):
        self.images[name] = (image, kwargs["global_step"])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return LocoScenes(
        tmp_path_factory.mktemp("scenes"),
        "tablet_blister",
        train_images=5,
        val_images=2,
        test_images=2,
        anomalies_per_defect=1,
        image_size=64,
        num_workers=0,
    )


@pytest.fixture(scope="module", params=MODELS)
def run(request, data, tmp_path_factory):
    """Name of a model, its loggers after a training and a test, and its checkpoint."""
    folder = tmp_path_factory.mktemp(request.param)
    loggers = [CSVLogger(folder), TensorBoardLogger(folder), OwnLogger()]
    engine = Engine(default_root_dir=folder, accelerator="cpu", enable_progress_bar=False, max_epochs=1, logger=loggers)
    engine.train(MODELS[request.param](), datamodule=data)
    return request.param, loggers, engine.best_model_path


def test_csv_logger_gets_plain_options_under_the_names_of_the_command_line(run):
    _, (csv, *_), _ = run
    logged = yaml.safe_load((Path(csv.log_dir) / "hparams.yaml").read_text())  # refuses anything but plain values
    assert logged["sigma"] == 3.0
    assert logged["image_size"] == [64, 96]
    assert logged["backbone"] == "test_efficientnet"
    assert logged["seed"] == 0
    assert not any(isinstance(value, dict) for value in logged.values())


def test_csv_logger_gets_losses_and_metrics_of_loco(run):
    name, (csv, *_), _ = run
    logged = pd.read_csv(Path(csv.log_dir) / "metrics.csv")
    for column in LOSSES[name] | LOCO | {"image_AUROC"}:
        assert np.isfinite(logged[column]).any(), column


def test_tensorboard_gets_losses_metrics_and_pictures(run):
    name, (_, tensorboard, _), _ = run
    events = EventAccumulator(tensorboard.log_dir)
    events.Reload()
    tags = events.Tags()
    assert LOSSES[name] | LOCO <= set(tags["scalars"])
    assert any("logical_anomalies/" in tag for tag in tags["images"]), tags["images"]


def test_logger_that_takes_images_gets_the_pictures_that_are_on_disk(run):
    _, (_, _, own), path = run
    folder = Path(path).parents[2] / "images"
    written = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*.png")}
    assert own.images.keys() == written.keys()
    for name, (image, step) in own.images.items():
        np.testing.assert_array_equal(image, np.asarray(Image.open(written[name]).convert("RGB")))
        assert image.dtype == np.uint8
        assert isinstance(step, int)


def test_test_of_a_checkpoint_logs_the_options_of_the_checkpoint(run, data, tmp_path):
    name, _, path = run
    options = {**(SMALL_SAM_LAD if name == "sam_lad" else SMALL), "image_size": 64}
    if name == "lgfdr":
        options = {"backbone": "test_efficientnet", "pre_trained": False}
    own = OwnLogger()
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False, logger=own)
    engine.test({"glcf": Glcf, "lgfdr": Lgfdr, "sam_lad": SamLad}[name](**options), datamodule=data, ckpt_path=path)
    assert own.options["sigma"] == 3.0
    assert own.options["image_size"] == [64, 96]
    assert own.metrics.keys() >= LOCO

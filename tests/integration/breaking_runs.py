# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Runs that send their own process a signal at a certain place, and the same ones without."""

import os
import signal
from pathlib import Path

import onnx
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.models import AnomalibModule
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import Callback

from anomalib_logic import Lgfdr, SamLad
from anomalib_logic.models.sam_lad.torch_model import SamLadModel

BACKBONE = {"backbone": "test_efficientnet", "pre_trained": False, "image_size": (64, 96)}
EPOCHS = 4


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


class StoppedInEpoch(Callback):
    """Send a signal after the first batch of an epoch."""

    def __init__(self, epoch: int, number: signal.Signals) -> None:
        self.epoch = epoch
        self.number = number

    def on_train_batch_end(self, trainer, *args) -> None:
        if trainer.current_epoch == self.epoch:
            send(self.number)

    def __repr__(self) -> str:
        return f"StoppedInEpoch({self.epoch}, {self.number})"


def squares(folder: Path) -> Folder:
    return Folder(
        "squares", "good", folder, "bad", train_batch_size=2, num_workers=0, val_split_mode="same_as_test", seed=0
    )


def train(images: Path, root: Path, by: signal.Signals | None = None, checkpoint: Path | None = None) -> AnomalibModule:
    """Train LGFDR, whose data order, noise and weights are random."""
    torch.set_num_threads(1)
    seed_everything(1, verbose=False)
    model = Lgfdr(**BACKBONE, width=32, local_depth=1, bottleneck=8, global_depth=1)
    callbacks = [] if by is None else [StoppedInEpoch(2, by)]
    engine = Engine(
        default_root_dir=root, accelerator="cpu", enable_progress_bar=False, max_epochs=EPOCHS, callbacks=callbacks
    )
    engine.fit(model, datamodule=squares(images), ckpt_path=checkpoint)
    return model


def fill(images: Path, root: Path, by: signal.Signals | None = None) -> AnomalibModule:
    """Fill SAM-LAD's bank."""
    torch.set_num_threads(1)
    seed_everything(1, verbose=False)
    if by is not None:
        represent, calls = SamLadModel.represent, []

        def represent_or_stop(self, images):
            calls.append(1)
            if len(calls) == 3:
                send(by)
            assert len(calls) <= 3, "the run goes on after the signal"
            return represent(self, images)

        SamLadModel.represent = represent_or_stop
    model = SamLad(**BACKBONE, objects="cluster", scene_size=16, object_size=8)
    engine = Engine(default_root_dir=root, accelerator="cpu", enable_progress_bar=False)
    engine.fit(model, datamodule=squares(images))
    return model


def export(checkpoint: Path, root: Path, by: signal.Signals | None = None) -> Path:
    """Export LGFDR to ONNX."""
    torch.set_num_threads(1)
    if by is not None:
        save = onnx.save

        def save_half(model, path, **kwargs):
            save(model, path, **kwargs)
            with open(path, "r+b") as file:  # noqa: PTH123
                file.truncate(1000)
            send(by)

        onnx.save = save_half
    model = Lgfdr.load_from_checkpoint(checkpoint)
    return model.to_onnx(root, verify=False)

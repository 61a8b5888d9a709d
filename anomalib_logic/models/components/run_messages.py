# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Lines in the log that say how far a run is, and where its pictures are."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import rich
from lightning.pytorch.callbacks import Callback

from anomalib_logic._progress import ProgressLines

logger = logging.getLogger(__name__)


class RunMessages(Callback):
    """Log how far training, testing and predicting are where no progress bar shows it, and where the pictures are.

    Lightning's progress bar moves on a terminal and in a notebook only; in a file it leaves nothing until the end.
    """

    def __init__(self) -> None:
        self._lines: ProgressLines | None = None
        self._done = 0
        self._first_step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count training steps, if there is anything to train."""
        self._lines = None
        self._first_step = trainer.global_step  # a run that goes on from a checkpoint has fewer steps left
        if any(parameter.requires_grad for parameter in pl_module.parameters()):
            steps = trainer.estimated_stepping_batches - self._first_step
            self._lines = _lines(trainer, "training", [steps], "steps")

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Count the training steps so far."""
        del args, kwargs
        self._update(trainer.global_step - self._first_step)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count test batches."""
        del pl_module
        self._begin(trainer, "testing", trainer.num_test_batches)

    def on_test_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Count a test batch."""
        del trainer, args, kwargs
        self._count()

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count batches of images to predict."""
        del pl_module
        self._begin(trainer, "predicting", trainer.num_predict_batches)

    def on_predict_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Count a batch of predicted images."""
        del trainer, args, kwargs
        self._count()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Say where the pictures are, after everything else."""
        folder = getattr(getattr(pl_module, "visualizer", None), "output_dir", None)
        if stage in ("test", "predict") and trainer.is_global_zero and folder is not None and Path(folder).is_dir():
            logger.info("the pictures are in %s", Path(folder).resolve())

    def _begin(self, trainer: pl.Trainer, what: str, batches: Iterable[float]) -> None:
        self._done = 0
        self._lines = _lines(trainer, what, batches, "batches")

    def _count(self) -> None:
        self._done += 1
        self._update(self._done)

    def _update(self, done: int) -> None:
        if self._lines is not None:
            self._lines.update(done)


def _lines(trainer: pl.Trainer, what: str, totals: Iterable[float], unit: str) -> ProgressLines | None:
    """Lines for a loop of the trainer, unless a bar shows it, no progress is wanted, or another process says it."""
    console = rich.get_console()
    if trainer.progress_bar_callback is None or console.is_terminal or console.is_jupyter or not trainer.is_global_zero:
        return None
    total = sum(totals)
    return ProgressLines(what, int(total) if 0 <= total < float("inf") else None, unit)

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Lines in the log that say how far a long step is, and where its pictures are."""

import logging
import time
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from typing import Any, TypeVar

import lightning.pytorch as pl
import rich
from lightning.pytorch.callbacks import Callback

logger = logging.getLogger(__name__)

T = TypeVar("T")

SECONDS = 5.0  # between two lines, at least
MOST_SECONDS = 60.0
SHARE = 0.05  # of the time so far, so that long steps have few lines


class ProgressLines:
    """Log what is done, and every few seconds how much of it is done and the time that is left.

    The longer it takes, the rarer are the lines: after five seconds at first, after a minute at most.

    Args:
        what: What is done, such as ``"filling the bank"``.
        total: Number of steps, if known.
        unit: What a step is.
    """

    def __init__(self, what: str, total: int | None = None, unit: str = "images") -> None:
        self.what = what
        self.total = total
        self.unit = unit
        self._start = self._said = time.monotonic()
        logger.info("%s%s", what, "" if total is None else f": {total} {unit}")

    def update(self, done: int) -> None:
        """Log a line if it is time for one.

        Args:
            done: Steps that are done.
        """
        now = time.monotonic()
        elapsed = now - self._start
        if done == self.total or now - self._said < min(MOST_SECONDS, max(SECONDS, SHARE * elapsed)):
            return
        self._said = now
        if self.total is None:
            logger.info("%s: %d %s", self.what, done, self.unit)
            return
        left = elapsed / max(done, 1) * max(self.total - done, 0)
        logger.info("%s: %d of %d %s, %s left", self.what, done, self.total, self.unit, _duration(left))


def with_progress(items: Iterable[T], what: str, total: int | None = None, unit: str = "images") -> Iterator[T]:
    """Go over items and log how far that is, see :class:`ProgressLines`.

    Args:
        items: What to go over.
        what: What is done with them.
        total: Their number; by default their length, if they have one.
        unit: What they are.
    """
    lines = ProgressLines(what, len(items) if total is None and isinstance(items, Sized) else total, unit)
    for done, item in enumerate(items, start=1):
        yield item
        lines.update(done)


def _duration(seconds: float) -> str:
    """Time in plain words, in seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"


class RunMessages(Callback):
    """Log how far training, testing and predicting are where no progress bar shows it, and where the pictures are.

    Lightning's progress bar moves on a terminal and in a notebook only; in a file it leaves nothing until the end.
    """

    def __init__(self) -> None:
        self._lines: ProgressLines | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count training steps, if there is anything to train."""
        self._lines = None
        if any(parameter.requires_grad for parameter in pl_module.parameters()):
            self._lines = _lines(trainer, "training", [trainer.estimated_stepping_batches], "steps")

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Count the training steps so far."""
        del args, kwargs
        self._update(trainer.global_step)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count test batches."""
        del pl_module
        self._lines = _lines(trainer, "testing", trainer.num_test_batches, "batches")

    def on_test_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Count a test batch."""
        del trainer
        self._update(_batch_index(args, kwargs) + 1)

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count batches of images to predict."""
        del pl_module
        self._lines = _lines(trainer, "predicting", trainer.num_predict_batches, "batches")

    def on_predict_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Count a batch of predicted images."""
        del trainer
        self._update(_batch_index(args, kwargs) + 1)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Say where the pictures are, after everything else."""
        folder = getattr(getattr(pl_module, "visualizer", None), "output_dir", None)
        if stage in ("test", "predict") and trainer.is_global_zero and folder is not None and Path(folder).is_dir():
            logger.info("the pictures are in %s", Path(folder).resolve())

    def _update(self, done: int) -> None:
        if self._lines is not None:
            self._lines.update(done)


def _batch_index(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """The index that Lightning passes after module, outputs and batch."""
    return kwargs["batch_idx"] if "batch_idx" in kwargs else args[3]


def _lines(trainer: pl.Trainer, what: str, totals: Iterable[float], unit: str) -> ProgressLines | None:
    """Lines for a loop of the trainer, unless a bar shows it, no progress is wanted, or another process says it."""
    console = rich.get_console()
    if trainer.progress_bar_callback is None or console.is_terminal or console.is_jupyter or not trainer.is_global_zero:
        return None
    total = sum(totals)
    return ProgressLines(what, int(total) if total not in (float("inf"), -1) else None, unit)

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The visualiser's pictures in the trainer's loggers."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
from anomalib.data import ImageBatch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from PIL import Image

from anomalib_logic.explanations.run import picture_path


class PictureLogging(Callback):
    """Give the pictures of tests and predictions to the loggers that take images.

    These are all that have Anomalib's method ``add_image``, and Lightning's own of TensorBoard and of Weights & Biases.
    A picture's name is that of its file below the visualiser's folder, such as ``good/000.png``.
    """

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: ImageBatch,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Log the pictures of a batch, which the visualiser has written."""
        loggers = [logger for logger in trainer.loggers if _takes_images(logger)]
        folder = getattr(getattr(pl_module, "visualizer", None), "output_dir", None)
        if not loggers or folder is None or not trainer.is_global_zero:
            return
        for path in getattr(batch, "image_path", None) or ():
            file = picture_path(trainer, path, folder)
            if file.is_file():
                name = file.relative_to(Path(folder)).as_posix()
                with Image.open(file) as picture:
                    pixels = np.asarray(picture.convert("RGB"))
                for logger in loggers:
                    _log(logger, name, pixels, trainer.global_step)

    def on_predict_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Log the pictures of a batch."""
        self.on_test_batch_end(*args, **kwargs)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let loggers that collect pictures write them."""
        for logger in trainer.loggers:
            if _takes_images(logger):
                logger.save()

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let loggers that collect pictures write them."""
        self.on_test_end(trainer, pl_module)


def _takes_images(logger: Logger) -> bool:
    return isinstance(logger, TensorBoardLogger) or hasattr(logger, "add_image") or hasattr(logger, "log_image")


def _log(logger: Any, name: str, pixels: np.ndarray, step: int) -> None:
    """Give a logger a picture, uint8, shape ``(H, W, 3)``."""
    if hasattr(logger, "add_image"):
        logger.add_image(pixels, name=name, global_step=step)
    elif isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(name, pixels, step, dataformats="HWC")
    else:
        logger.log_image(name, [pixels])

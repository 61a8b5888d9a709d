# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Thresholds and limits of a finished fit, whatever the trainer's settings."""

from collections.abc import Iterator
from typing import Any

import torch
from anomalib.data import InferenceBatch
from anomalib.post_processing import PostProcessor
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_logic._host import BeforeAnomalibModule

from .training import normal_batches, training_ends, validation_batches, validation_may_be_last


class FinishedFit(BeforeAnomalibModule):
    """Measure thresholds and limits with the final weights; to inherit from before ``AnomalibModule``.

    The last epoch of a fit is validated, also where ``check_val_every_n_epoch`` would leave it out. Where there is no
    validation, or training ended in the middle of an epoch, the post-processor sees the validation images once more.
    """

    _measured_at_step = -1
    _validates_every: int | None = None

    def on_train_start(self) -> None:
        """Forget what a previous fit measured."""
        super().on_train_start()
        self._measured_at_step = -1
        self._validates_every = self.trainer.check_val_every_n_epoch

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Have the last epoch validated."""
        super().on_train_batch_end(outputs, batch, batch_idx)
        if training_ends(self.trainer) and self._validates_every is not None:
            self.trainer.check_val_every_n_epoch = 1

    def on_validation_epoch_end(self) -> None:
        """Remember with which weights the post-processor measured."""
        super().on_validation_epoch_end()
        if self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking:
            self._measured_at_step = self.trainer.global_step

    def on_train_epoch_end(self) -> None:
        """Measure before a checkpoint is written, where no validation did."""
        super().on_train_epoch_end()
        if validation_may_be_last(self.trainer) and self._measured_at_step != self.trainer.global_step:
            self.measure_thresholds()

    def on_train_end(self) -> None:
        """Give the trainer its setting back."""
        super().on_train_end()
        self.trainer.check_val_every_n_epoch = self._validates_every

    @torch.no_grad()
    def measure_thresholds(self) -> None:
        """Let the post-processor see the validation images, as a validation does."""
        post_processor = self.post_processor
        if not isinstance(post_processor, PostProcessor):
            return
        training = self.model.training
        self.model.eval()
        for i, batch in enumerate(validation_batches(self)):
            post_processor.on_validation_batch_end(self.trainer, self, self.validation_step(batch, i), batch, i)
        post_processor.on_validation_epoch_end(self.trainer, self)
        self.model.train(training)
        self._measured_at_step = self.trainer.global_step

    def held_out_predictions(self) -> Iterator[InferenceBatch]:
        """Predict normal images that the model was not fitted on and that are no validation images; none here."""
        return iter(())

    @torch.no_grad()
    def fitted_predictions(self) -> Iterator[InferenceBatch]:
        """Predict the normal training images, whose scores are lower than those of new ones."""
        for batch in normal_batches(self, what="measuring thresholds on training images"):
            yield self.infer(batch.image)

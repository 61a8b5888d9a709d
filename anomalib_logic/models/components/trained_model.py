# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What models share that are trained by gradient descent and measure statistics of their errors on normal images."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import timm.optim
import torch
from anomalib.data import Batch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT, OptimizerLRScheduler
from torch.optim.lr_scheduler import LambdaLR

from anomalib_logic._host import BeforeAnomalibModule

from .muon import muon_in_float32
from .options import OptionGroup
from .training import apply_default_max_epochs, normal_batches, validation_may_be_last

logger = logging.getLogger(__name__)

RANDOM_STATES = "random_states"  # in checkpoints

Schedule = Literal["cosine", "constant"]
Statistics = Literal["training", "validation"]


@dataclass(frozen=True)
class Training(OptionGroup):
    """How a model is trained.

    Args:
        optimizer: Name of an optimiser in ``timm.optim``.
        learning_rate: Learning rate (its peak with ``schedule="cosine"``).
        weight_decay: Weight decay; biases and norms have none.
        schedule: ``"cosine"`` (after 5% of warm-up) or ``"constant"``.
        gradient_clip: Largest norm of the gradient, unless the trainer's ``gradient_clip_val`` is set.
        max_epochs: Epochs of training where the trainer sets no length.
        least_steps: Steps of training at least, where the trainer sets no length: few images get more epochs.
        statistics: Normal images whose errors are the measure of others: those of the ``"training"`` or of the
            ``"validation"`` set. A network that has memorised its few training images needs the latter: on them its
            errors are far below those on new normal images.
    """

    LEAST: ClassVar[Mapping[str, float]] = {"learning_rate": 0, "weight_decay": 0, "gradient_clip": 0, "least_steps": 0}

    optimizer: str = "adamw"
    learning_rate: float = 1e-4
    weight_decay: float = 1e-2
    schedule: Schedule = "cosine"
    gradient_clip: float = 1.0
    max_epochs: int = 500
    least_steps: int = 0
    statistics: Statistics = "training"


class TrainedModel(BeforeAnomalibModule):
    """Optimiser, schedule, clipping and statistics; to inherit from before ``ModelDefaults``.

    The model sets ``self.model``, a :class:`.trained_network.TrainedNetwork`, and ``self.loss``, a module from the
    network's maps, one argument each, to a dictionary with ``"loss"`` and its terms.

    Attributes:
        TRAINING_OPTIONS: Groups of arguments that only say how to train, see :class:`.CheckpointOptions`.
    """

    TRAINING_OPTIONS: ClassVar[tuple[str, ...]] = ("training",)
    _measured_step = -1
    _random_states: Mapping[str, Any] | None = None

    def use_training(self, training: Training) -> None:
        """Have each of the options as an attribute, such as the ``learning_rate`` that Lightning's tuner looks for."""
        for field in fields(training):
            setattr(self, field.name, getattr(training, field.name))

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """No sanity validation: there are no statistics to validate with before training."""
        return {"num_sanity_val_steps": 0}

    def setup(self, stage: str) -> None:
        """Train for ``max_epochs`` where the trainer sets no length."""
        super().setup(stage)
        if stage == "fit":
            apply_default_max_epochs(self.trainer, self.max_epochs, self.least_steps)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the states of torch's random numbers."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[RANDOM_STATES] = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Find the states of torch's random numbers."""
        super().on_load_checkpoint(checkpoint)
        self._random_states = checkpoint.get(RANDOM_STATES)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Optimise what is not frozen, with the chosen schedule."""
        optimizer = timm.optim.create_optimizer_v2(
            self.model, opt=self.optimizer, lr=self.learning_rate, weight_decay=self.weight_decay
        )
        if self.schedule == "constant":
            return optimizer
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            logger.warning("the length of the training is not known beforehand: the learning rate stays constant")
            return optimizer
        warm_up = max(1, round(0.05 * steps))

        # Not SequentialLR, whose length comes back from the checkpoint where a run goes on for more epochs.
        def factor(step: int) -> float:
            if step < warm_up:
                return (step + 1) / warm_up
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1, steps - warm_up))))

        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Make a step; Muon's matrix iterations are in float32 on CPUs, whatever the trainer's precision."""
        with muon_in_float32(self.device):
            super().optimizer_step(*args, **kwargs)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip to ``gradient_clip`` unless the trainer says otherwise."""
        value = self.gradient_clip if gradient_clip_val is None else gradient_clip_val
        self.clip_gradients(optimizer, value, gradient_clip_algorithm)

    def on_train_start(self) -> None:
        """Measure the channels of the backbone over the normal training images."""
        super().on_train_start()
        self._seed_random_numbers()
        self._require_channels()

    def _seed_random_numbers(self) -> None:
        """Let the order of images and the noise be those of the seed, and of a training without a break."""
        states, self._random_states = self._random_states, None
        if states is None or self.trainer.ckpt_path is None or self.trainer.world_size > 1:
            self.begin_random_numbers(self.trainer.global_rank)
        else:
            torch.set_rng_state(states["cpu"].cpu())
            if len(states["cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])
        iter(self.trainer.fit_loop._data_fetcher)  # Lightning had the order drawn before this hook

    def on_train_epoch_start(self) -> None:
        """Collect the errors' statistics anew in each epoch."""
        self.model.normalization.reset()

    def training_step(self, batch: Batch, batch_idx: int) -> STEP_OUTPUT:
        """Compute the loss of a batch of normal images and collect the statistics of its errors."""
        del batch_idx
        self.check_size(batch.image)
        maps = self.model(batch.image)
        with torch.no_grad():
            self.model.normalization.update(self.model.errors(maps))
        losses = self.loss(*maps)
        logged = {f"train_{name}": value.detach() for name, value in losses.items()}
        size = len(batch.image)
        self.log_dict(logged, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True, batch_size=size)
        return losses["loss"]

    def on_validation_start(self) -> None:
        """Have statistics before validating.

        The last validation, and every one that a callback may choose as the best, gets statistics that are measured
        with the current weights over all normal images of the split ``statistics``; others get those collected over the
        training images in the epoch so far.
        """
        if self.trainer.state.fn != TrainerFn.FITTING:
            self._require_statistics()
        elif validation_may_be_last(self.trainer):
            self._measure()
        else:
            self.model.normalization.finalize()

    def on_train_epoch_end(self) -> None:
        """Have statistics, then thresholds, before a checkpoint is written, also where there is no validation."""
        if not (self.trainer.enable_validation and self._measured_step == self.trainer.global_step):
            if validation_may_be_last(self.trainer):
                self._measure()
            else:
                self.model.normalization.finalize()
        super().on_train_epoch_end()

    def on_test_start(self) -> None:
        """Have statistics before testing."""
        super().on_test_start()
        self._require_statistics()

    def on_predict_start(self) -> None:
        """Have statistics before predicting."""
        super().on_predict_start()
        self._require_statistics()

    def _require_statistics(self) -> None:
        """Measure statistics if there are none yet (a model that was neither trained nor loaded)."""
        if self.model.normalization.measured:
            return
        if getattr(self.trainer, "datamodule", None) is None:
            logger.warning(
                "this model has no statistics of normal images, and no data module to measure them on: error maps "
                "stay unnormalised. Train it, load a checkpoint or pass a data module."
            )
            return
        self._require_channels()
        self._measure()

    def _require_channels(self) -> None:
        """Measure the backbone's channels if that was not done."""
        if self.model.standardization is not None and not self.model.standardization.measured:
            self._measure(channels=True)

    @torch.no_grad()
    def _measure(self, channels: bool = False) -> None:
        """Measure statistics over all normal images of a split, each process over its share.

        Args:
            channels: Measure the backbone's channels over the training images; otherwise the error maps.
        """
        statistics = self.model.standardization if channels else self.model.normalization
        training = self.model.training
        self.model.eval()
        statistics.reset()
        what = "measuring the backbone's channels" if channels else "measuring statistics of error maps"
        for batch in normal_batches(self, "training" if channels else self.statistics, what):
            if channels:
                statistics.update(self.model.pyramid(batch.image))
            else:
                statistics.update(self.model.errors(self.model.maps(batch.image)))
        statistics.finalize()
        self.model.train(training)
        if not channels:
            self._measured_step = self.trainer.global_step

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""GLCF as an Anomalib model."""

import logging
import math
from collections.abc import Sequence
from typing import Any, Literal

import timm.optim
import torch
from anomalib.data import Batch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT, OptimizerLRScheduler
from torch.optim.lr_scheduler import LambdaLR

from anomalib_logic.models.components.arguments import check_choice
from anomalib_logic.models.components.defaults import ModelDefaults
from anomalib_logic.models.components.image_score import ImageScore
from anomalib_logic.models.components.muon import muon_in_float32
from anomalib_logic.models.components.normal_statistics import MapNormalization
from anomalib_logic.models.components.training import (
    apply_default_max_epochs,
    normal_batches,
    validation_may_be_last,
)

from .anomaly_map import Branch, Criterion, Distance
from .bottleneck import Structure
from .loss import GlcfLoss
from .torch_model import GlcfModel

logger = logging.getLogger(__name__)

Schedule = Literal["cosine", "constant"]
Statistics = Literal["training", "validation"]


class Glcf(ModelDefaults, AnomalibModule):
    """Global-Local Correspondence Framework with semantic bottleneck.

    Yao et al., "Learning Global-Local Correspondence with Semantic Bottleneck for Logical Anomaly Detection", 2023,
    https://arxiv.org/abs/2303.05768. A frozen backbone describes an image locally; a semantic bottleneck and three
    decoders learn from normal images what the backbone should see given the image's global semantics. Two estimation
    errors make the anomaly map: the local one finds structural, the global one logical anomalies.

    Args:
        backbone: timm model with feature maps at strides 4, 8, 16 and 32.
        pre_trained: Download and use timm's published weights of the backbone.
        backbone_weights: Local ``.safetensors`` or ``.pth`` file with the backbone's weights, instead of a download; or
            ``"packaged"``: those of an installed package (``tf_efficientnet_lite0``, extra ``weights``).
        backbone_args: More keyword arguments for ``timm.create_model``.
        structure: Semantic aggregation: ``"pss"``, ``"pgs"``, ``"ps"`` or ``"none"`` (section III-B2).
        multi_scale: Embed three scales in the bottleneck, not only the deepest (section III-B1).
        branch: ``"both"``, ``"local"`` or ``"global"`` errors; ``"local"`` suits textures (section IV-C1).
        criterion: ``"estimation"`` or ``"correspondence"`` as the global error (section IV-D2).
        distance: ``"mse"`` or ``"cosine"``, of the loss and of the error maps.
        image_size: Height and width, or one number for both, in pixels: multiples of 32. A ``pre_processor`` that
            resizes to a fixed size has precedence.
        standardize_features: Scale each channel of the backbone's maps to mean 0 and standard deviation 1 over the
            normal training images, so that no channel dominates the distance (ours).
        feature_noise: Standard deviation of the noise that is added to the bottleneck's input in training, against
            overfitting (ours); 0 for the paper's method.
        width: Width of the bottleneck's tokens.
        depth: Transformer blocks of the bottleneck's encoder and of each of its decoders.
        heads: Attention heads of the bottleneck.
        decoder_depths: Blocks of the decoders' stages at strides 32, 16, 8 and 4; the backbone's by default.
        decoder_widths: Channels of the decoders' stages at strides 4, 8, 16 and 32; the backbone's by default.
        loss_weights: Weights of the correspondence, the local and the global loss term (equation 4).
        scale_weights: Weights of the error maps at strides 4, 8 and 16 (equation 7).
        branch_weights: Weights of the local and the global error (equation 6).
        sigma: Standard deviation of the anomaly map's Gaussian filter in pixels.
        image_score: ``"std"`` (the paper) or ``"max"`` of the anomaly map, or the mean of its ``"top"`` 2% (ours).
        statistics: Normal images whose errors' mean and standard deviation normalise the error maps: those of the
            ``"training"`` set (the paper) or of the ``"validation"`` set (ours), which a network that knows its few
            training images by heart needs: on them its global errors are far below those on new normal images.
        optimizer: Name of an optimiser in ``timm.optim``.
        learning_rate: Learning rate (its peak with ``schedule="cosine"``).
        weight_decay: Weight decay; biases and norms have none.
        schedule: ``"cosine"`` (after 5% of warm-up) or ``"constant"``.
        gradient_clip: Largest norm of the gradient, unless the trainer's ``gradient_clip_val`` is set.
        max_epochs: Epochs of training where the trainer sets no length.
        pre_processor: Pre-processor instance, ``True`` for the default (resize, the backbone's normalisation) or
            ``False``.
        post_processor: Post-processor instance, ``True`` for the default or ``False``.
        evaluator: Evaluator instance, ``True`` for the default (with the figures of MVTec LOCO AD on data in its
            layout) or ``False``.
        visualizer: Visualiser instance, ``True`` for the default or ``False``.

    Raises:
        ValueError: If an argument is out of range; the message names it, its value and the remedy.
        RuntimeError: If the backbone's published weights cannot be downloaded.
        FileNotFoundError: If ``backbone_weights`` is not a file.

    Example:
        >>> from anomalib.engine import Engine
        >>> from anomalib_logic import DigitAnatomy, Glcf
        >>> Engine(max_epochs=20).train(Glcf(), datamodule=DigitAnatomy())  # doctest: +SKIP
    """

    TRAINING_OPTIONS = (
        "feature_noise",
        "loss_weights",
        "optimizer",
        "learning_rate",
        "weight_decay",
        "schedule",
        "gradient_clip",
        "max_epochs",
        "statistics",
    )

    def __init__(
        self,
        backbone: str = "swin_tiny_patch4_window7_224",
        pre_trained: bool = True,
        backbone_weights: str | None = None,
        structure: Structure = "pss",
        multi_scale: bool = True,
        branch: Branch = "both",
        criterion: Criterion = "estimation",
        distance: Distance = "mse",
        image_size: int | Sequence[int] = 224,
        backbone_args: dict[str, Any] | None = None,
        standardize_features: bool = True,
        feature_noise: float = 0.5,
        width: int = 240,
        depth: int = 6,
        heads: int = 6,
        decoder_depths: Sequence[int] | None = None,
        decoder_widths: Sequence[int] | None = None,
        loss_weights: Sequence[float] = (1.0, 1.0, 1.0),
        scale_weights: Sequence[float] = (1.0, 2.0, 3.0),
        branch_weights: Sequence[float] = (5.0, 1.0),
        sigma: float = 4.0,
        image_score: ImageScore = "std",
        statistics: Statistics = "training",
        optimizer: str = "adamw",
        learning_rate: float = 1e-4,
        weight_decay: float = 1e-2,
        schedule: Schedule = "cosine",
        gradient_clip: float = 1.0,
        max_epochs: int = 500,
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        super().__init__(image_size, backbone, backbone_args, pre_processor, post_processor, evaluator, visualizer)
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.schedule = check_choice("schedule", schedule, Schedule)
        self.statistics = check_choice("statistics", statistics, Statistics)
        self.gradient_clip = gradient_clip
        self.max_epochs = max_epochs
        self.model = GlcfModel(
            image_size=self.image_size,
            backbone=backbone,
            pre_trained=pre_trained,
            backbone_weights=backbone_weights,
            backbone_args=backbone_args,
            standardize_features=standardize_features,
            feature_noise=feature_noise,
            structure=structure,
            multi_scale=multi_scale,
            width=width,
            depth=depth,
            heads=heads,
            decoder_depths=decoder_depths,
            decoder_widths=decoder_widths,
            branch=branch,
            criterion=criterion,
            distance=distance,
            scale_weights=scale_weights,
            branch_weights=branch_weights,
            sigma=sigma,
            image_score=image_score,
        )
        self.loss = GlcfLoss(distance, loss_weights)
        self._measured_step = -1

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """No sanity validation: there are no statistics to validate with before training."""
        return {"num_sanity_val_steps": 0}

    def setup(self, stage: str) -> None:
        """Train for ``max_epochs`` where the trainer sets no length."""
        if stage == "fit":
            apply_default_max_epochs(self.trainer, self.max_epochs)

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
        self._require_channels()

    def on_train_epoch_start(self) -> None:
        """Collect the errors' statistics anew in each epoch."""
        self._normalization.reset()

    def training_step(self, batch: Batch, batch_idx: int) -> STEP_OUTPUT:
        """Compute the loss of a batch of normal images and collect the statistics of its errors."""
        del batch_idx
        maps = self.model(batch.image)
        with torch.no_grad():
            self._normalization.update(self.model.errors(maps))
        losses = self.loss(*maps)
        logged = {f"train_{name}": value.detach() for name, value in losses.items()}
        self.log_dict(logged, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch.image))
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
            self._normalization.finalize()

    def on_train_epoch_end(self) -> None:
        """Have statistics, then thresholds, before a checkpoint is written, also where there is no validation."""
        if not (self.trainer.enable_validation and self._measured_step == self.trainer.global_step):
            if validation_may_be_last(self.trainer):
                self._measure()
            else:
                self._normalization.finalize()
        super().on_train_epoch_end()

    def on_test_start(self) -> None:
        """Have statistics before testing."""
        super().on_test_start()
        self._require_statistics()

    def on_predict_start(self) -> None:
        """Have statistics before predicting."""
        super().on_predict_start()
        self._require_statistics()

    @property
    def _normalization(self) -> MapNormalization:
        return self.model.anomaly_map_generator.normalization

    def _require_statistics(self) -> None:
        """Measure statistics if there are none yet (a model that was neither trained nor loaded)."""
        if self._normalization.measured:
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
        statistics = self.model.standardization if channels else self._normalization
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

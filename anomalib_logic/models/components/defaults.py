# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What all models of this package have in common as Anomalib models."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from anomalib import LearningType
from anomalib.data import Batch, InferenceBatch
from anomalib.metrics import AnomalibMetric, Evaluator
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.utilities.types import STEP_OUTPUT
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_logic.data.run_files import check_run, set_up_data
from anomalib_logic.export import VerifiedExport
from anomalib_logic.metrics.evaluator import LocoEvaluator
from anomalib_logic.metrics.loco_metric import LocoMetric

from .arguments import as_pair
from .checkpoint_options import CheckpointOptions
from .data_config import input_normalization
from .finished_fit import FinishedFit
from .post_processing import CalibratedPostProcessor
from .pre_processing import check_exportable, engine_resize, make_exact
from .run_messages import RunMessages
from .run_pictures import PictureLogging
from .seeds import Seeded
from .termination import stop_on_sigterm

logger = logging.getLogger(__name__)

IMAGENET = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


class ModelDefaults(CheckpointOptions, FinishedFit, Seeded, VerifiedExport):
    """Components, steps, learning type, loading and verified export; to inherit from before ``AnomalibModule``.

    Args:
        image_size: Height and width, or one number for both, in pixels.
        backbone: timm's name of the backbone, whose input normalisation is the default pre-processor's.
        backbone_args: Keyword arguments for ``timm.create_model``.
        seed: Seed of all random choices; ``None``: that of ``seed_everything``, or 0.
        pre_processor: Pre-processor instance, ``True`` for the default or ``False``.
        post_processor: Post-processor instance, ``True`` for the default or ``False``.
        evaluator: Evaluator instance, ``True`` for the default or ``False``.
        visualizer: Visualiser instance, ``True`` for the default or ``False``.

    Attributes:
        IMAGES_AT_A_TIME: Images that are predicted together, so that memory does not grow with the batch.
        ANY_SIZE: Whether the networks take images of other sizes than ``image_size``.
    """

    IMAGES_AT_A_TIME: ClassVar[int] = 8
    ANY_SIZE: ClassVar[bool] = False

    def __init__(
        self,
        image_size: int | Sequence[int],
        backbone: str,
        backbone_args: Mapping[str, Any] | None = None,
        seed: int | None = None,
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        size = as_pair("image_size", image_size)
        given = {
            "pre_processor": pre_processor,
            "post_processor": post_processor,
            "evaluator": evaluator,
            "visualizer": visualizer,
        }
        if pre_processor is True:
            pre_processor = self.configure_pre_processor(size, backbone, backbone_args)
        super().__init__(
            pre_processor=pre_processor,
            post_processor=post_processor,
            evaluator=resolve_evaluator(evaluator),
            visualizer=visualizer,
        )
        self.keep_given_components(**given)
        self.use_seed(seed)
        self.store_options(image_size=list(self.input_size or size), seed=self.seed)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels that the networks see."""
        return tuple(self.hparams["image_size"])

    @staticmethod
    def configure_pre_processor(
        image_size: tuple[int, int] | None = None,
        backbone: str | None = None,
        backbone_args: Mapping[str, Any] | None = None,
    ) -> PreProcessor:
        """Resize to the model's size and normalise as the backbone's weights want it.

        Args:
            image_size: Height and width in pixels, 224 x 224 by default.
            backbone: timm's name of the backbone; ImageNet's mean and standard deviation by default.
            backbone_args: Keyword arguments for ``timm.create_model``.
        """
        mean, std = IMAGENET if backbone is None else input_normalization(backbone, backbone_args)
        resize = Resize(image_size or (224, 224), antialias=True)
        return PreProcessor(Compose([resize, Normalize(mean=mean, std=std)]))

    def configure_callbacks(self) -> list[Callback]:
        """Anomalib's components, their pictures in loggers, and lines in the log on how far a run is."""
        return [*super().configure_callbacks(), PictureLogging(), RunMessages()]  # type: ignore[misc]

    def configure_post_processor(self) -> CalibratedPostProcessor:
        """Thresholds for a false alarm rate, and scores that keep their order."""
        return CalibratedPostProcessor()

    @staticmethod
    def configure_evaluator() -> LocoEvaluator:
        """Report Anomalib's default metrics and, on data in the LOCO layout, the metrics of MVTec LOCO AD."""
        return default_evaluator()

    def prepare_data(self) -> None:
        """Set the data up, with sentences for its faults."""
        super().prepare_data()
        set_up_data(self.trainer)

    def setup(self, stage: str) -> None:
        """Refuse weights in half precision and image files that Anomalib would misread; name what is not used.

        Raises:
            FileNotFoundError: If an image or a mask is missing.
            ValueError: If the trainer's precision is one of those, or Anomalib would misread a file.
        """
        super().setup(stage)
        if stage == "fit":
            for name, reason in self.settings_without_effect().items():
                logger.warning("%s: %s", name, reason)
        precision = getattr(self._trainer, "precision", "32-true")
        if precision in ("16-true", "bf16-true"):
            msg = f"precision {precision} loses small differences of scores: use 32-true or {precision[:-4]}mixed"
            raise ValueError(msg)
        if self._trainer is not None:
            check_run(self._trainer, stage)

    def __setattr__(self, name: str, value: Any) -> None:
        """Let any pre-processor compute the same in exported files as in the engine."""
        if name == "pre_processor":
            make_exact(value)
        super().__setattr__(name, value)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the pre-processor, whose Anomalib's configuration has transforms for exports of its own."""
        super().on_load_checkpoint(checkpoint)
        make_exact(self.pre_processor)

    @property
    def engine_size(self) -> tuple[int, int] | None:
        """Height and width to which the engine resizes an image before anything else, if it does."""
        return engine_resize(self.pre_processor)

    def check_exportable(self) -> None:
        """Refuse pre-processing that a graph cannot compute as the engine does."""
        check_exportable(self.pre_processor)

    @property
    def learning_type(self) -> LearningType:
        """One-class: training images are normal."""
        return LearningType.ONE_CLASS

    def check_size(self, images: torch.Tensor) -> None:
        """Refuse pre-processed images, shape ``(N, 3, H, W)``, of a size that the networks do not take.

        Raises:
            ValueError: The message names the sizes and the remedy.
        """
        size = tuple(images.shape[-2:])
        if size != self.image_size and not self.ANY_SIZE:
            msg = (
                f"{type(self).__name__} takes images of {self.image_size[0]} x {self.image_size[1]} pixels, and the "
                f"pre-processor gives {size[0]} x {size[1]}: let it resize to a height and a width, for example "
                f"Resize({self.image_size})"
            )
            raise ValueError(msg)

    def infer(self, images: torch.Tensor) -> InferenceBatch:
        """Predict images, a few at a time.

        Args:
            images: Pre-processed images, shape ``(N, 3, H, W)``.

        Returns:
            Raw scores and maps of all of them.
        """
        self.check_size(images)
        parts = [self.infer_part(part) for part in images.split(self.IMAGES_AT_A_TIME)]
        fields = {name: [getattr(part, name) for part in parts] for name in ("pred_score", "anomaly_map")}
        return InferenceBatch(**{name: torch.cat(values) for name, values in fields.items()})

    def infer_part(self, images: torch.Tensor) -> InferenceBatch:
        """Predict at most ``IMAGES_AT_A_TIME`` images, see :meth:`infer`."""
        return self.model(images)

    def validation_step(self, batch: Batch, batch_idx: int) -> STEP_OUTPUT:
        """Add raw anomaly maps and scores to a batch."""
        del batch_idx
        return batch.update(**self.infer(batch.image)._asdict())

    def test_step(self, batch: Batch, batch_idx: int, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Add raw anomaly maps and scores to a batch."""
        del args, kwargs
        return self.validation_step(batch, batch_idx)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> STEP_OUTPUT:
        """Add raw anomaly maps and scores to a batch."""
        del dataloader_idx
        return self.validation_step(batch, batch_idx)

    def settings_without_effect(self) -> dict[str, str]:
        """Settings of the trainer and of the data module that change nothing or do harm in this fit, and why."""
        if self.trainer.overfit_batches:
            return {"overfit_batches": "thresholds are those of training images"}
        return {}

    def on_train_start(self) -> None:
        """End the run on SIGTERM."""
        stop_on_sigterm(self.trainer)
        super().on_train_start()

    def on_validation_start(self) -> None:
        """End the run on SIGTERM."""
        stop_on_sigterm(self.trainer)
        super().on_validation_start()

    def on_test_start(self) -> None:
        """End the run on SIGTERM, and warn of thresholds that do not exist."""
        stop_on_sigterm(self.trainer)
        super().on_test_start()
        self._warn_without_thresholds()

    def on_predict_start(self) -> None:
        """End the run on SIGTERM, and warn of thresholds that do not exist.

        A command line keeps no predictions: pictures and JSON files have them, and nobody sees what it returns.
        """
        stop_on_sigterm(self.trainer)
        super().on_predict_start()
        commands = [c.config for c in self.trainer.callbacks if isinstance(c, SaveConfigCallback)]
        if any("return_predictions" in command and not command["return_predictions"] for command in commands):
            self.trainer.predict_loop.return_predictions = False
        self._warn_without_thresholds()

    def _warn_without_thresholds(self) -> None:
        if isinstance(self.post_processor, PostProcessor) and self.post_processor.image_threshold.isnan():
            logger.warning(
                "%s has no thresholds: scores are raw, and labels and masks mean nothing. Train or validate it, or "
                "load the checkpoint of a finished training",
                type(self).__name__,
            )


def default_evaluator(more: Sequence[AnomalibMetric] = ()) -> LocoEvaluator:
    """Make an evaluator with Anomalib's default metrics and, on data in the LOCO layout, the metrics of MVTec LOCO AD.

    Args:
        more: Test metrics beside these.
    """
    default = LocoEvaluator(required=False).test_metrics
    return LocoEvaluator(test_metrics=[*default, *more], required=False)


def resolve_evaluator(evaluator: Evaluator | bool) -> Evaluator | bool:
    """Let LOCO metrics in a plain evaluator of Anomalib see unprocessed maps, and be checked at setup.

    Args:
        evaluator: A model's argument.

    Returns:
        A :class:`LocoEvaluator` with the same metrics if Anomalib's own evaluator has LOCO metrics, else the argument.
    """
    if type(evaluator) is not Evaluator or not any(isinstance(m, LocoMetric) for m in evaluator.test_metrics):
        return evaluator
    return LocoEvaluator(list(evaluator.val_metrics), list(evaluator.test_metrics), evaluator.compute_on_cpu)

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What all models of this package have in common as Anomalib models."""

from pathlib import Path
from typing import Any, ClassVar

from anomalib import LearningType
from anomalib.metrics import Evaluator
from anomalib.pre_processing import PreProcessor
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_logic.export import VerifiedExport
from anomalib_logic.metrics.evaluator import LocoEvaluator
from anomalib_logic.metrics.loco_metric import LocoMetric

from .pre_processing import check_exportable, engine_resize, make_exact


class ModelDefaults(VerifiedExport):
    """Pre-processor, evaluator, learning type, loading and verified export; to inherit from before ``AnomalibModule``.

    Attributes:
        WITHOUT_FILES: Constructor arguments of a model whose networks come from a checkpoint.
    """

    WITHOUT_FILES: ClassVar[dict[str, Any]] = {"pre_trained": False, "backbone_weights": None}

    @staticmethod
    def configure_pre_processor(image_size: tuple[int, int] | None = None) -> PreProcessor:
        """Resize to the model's size (224 x 224 by default) and normalise with ImageNet's statistics.

        Args:
            image_size: Height and width in pixels.
        """
        resize = Resize(image_size or (224, 224), antialias=True)
        return PreProcessor(Compose([resize, Normalize(mean=IMAGENET_DEFAULT_MEAN, std=IMAGENET_DEFAULT_STD)]))

    @staticmethod
    def configure_evaluator() -> LocoEvaluator:
        """Report Anomalib's usual metrics and, on data in the LOCO layout, the figures of MVTec LOCO AD."""
        return default_evaluator()

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

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path, *args: Any, **kwargs: Any) -> Any:
        """Load a model; its networks come from the checkpoint, so neither a download nor a weights file is needed.

        Args:
            checkpoint_path: The checkpoint.
            *args: As in Anomalib's method.
            **kwargs: As in Anomalib's method; constructor arguments override the checkpoint's.
        """
        return super().load_from_checkpoint(checkpoint_path, *args, **{**cls.WITHOUT_FILES, **kwargs})

    @property
    def learning_type(self) -> LearningType:
        """One-class: training images are normal."""
        return LearningType.ONE_CLASS


def default_evaluator() -> LocoEvaluator:
    """Make an evaluator with Anomalib's usual metrics and, on data in the LOCO layout, the figures of MVTec LOCO AD."""
    return LocoEvaluator(required=False)


def resolve_evaluator(evaluator: Evaluator | bool) -> Evaluator | bool:
    """Let a user's LOCO metrics see unprocessed maps, and be checked at setup.

    Args:
        evaluator: A model's argument.

    Returns:
        A :class:`LocoEvaluator` with the same metrics if an evaluator's test metrics include LOCO metrics, else the
        argument.
    """
    if not isinstance(evaluator, Evaluator) or isinstance(evaluator, LocoEvaluator):
        return evaluator
    if not any(isinstance(metric, LocoMetric) for metric in evaluator.test_metrics):
        return evaluator
    return LocoEvaluator(list(evaluator.val_metrics), list(evaluator.test_metrics), evaluator.compute_on_cpu)

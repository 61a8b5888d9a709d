# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""LGFDR as an Anomalib model."""

from collections.abc import Sequence
from typing import Any, ClassVar

from anomalib.metrics import AUPR, Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from typing_extensions import Unpack

from anomalib_logic.metrics.evaluator import LocoEvaluator
from anomalib_logic.models.components.defaults import ModelDefaults, default_evaluator
from anomalib_logic.models.components.options import names_of, take_groups
from anomalib_logic.models.components.trained_model import TrainedModel

from .options import LgfdrNetworks, LgfdrScoring, LgfdrTraining
from .torch_model import LgfdrLoss, LgfdrModel

Options = names_of(LgfdrNetworks, LgfdrScoring, LgfdrTraining)


class Lgfdr(TrainedModel, ModelDefaults, AnomalibModule):
    """LGFDR: local and global feature denoising reconstruction.

    "LGFDR: local and global feature denoising reconstruction for unsupervised anomaly detection", The Visual Computer.
    Only the abstract is public. It states: two towers reconstruct the features of normal images, one locally and one
    globally, from features with noise, and a selective reconstruction head fuses them. Everything else is our reading:
    the frozen pyramid's maps on one grid, convolutions as the local and transformer blocks with learned queries as the
    global tower, softmax weights of channels as the head, noise by each channel's standard deviation, loss and map.

    Args:
        backbone: timm model with feature maps at the strides of ``networks``.
        pre_trained: Download and use timm's published weights of the backbone.
        backbone_weights: Local ``.safetensors`` or ``.pth`` file with the backbone's weights, instead of a download; or
            ``"packaged"``: those of an installed package (``tf_efficientnet_lite0``, extra ``weights``).
        backbone_args: More keyword arguments for ``timm.create_model``.
        image_size: Height and width, or one number for both, in pixels: multiples of the strides and of twice
            ``grid_stride``. A ``pre_processor`` that resizes to a fixed size has precedence.
        networks: Towers, head and scales, see :class:`.options.LgfdrNetworks`.
        scoring: Anomaly map and image score, see :class:`.options.LgfdrScoring`.
        training: Noise, optimiser and length, see :class:`.options.LgfdrTraining`.
        seed: Seed of the initial weights, of the noise and of the order of images; by default that of
            ``seed_everything``, or 0.
        pre_processor, post_processor, evaluator, visualizer: Instance, ``True`` for the default or ``False``. The
            default evaluator adds the pixels' average precision.
        **options: Single fields of ``networks``, ``scoring`` and ``training``, which count.

    Raises:
        ValueError, TypeError, RuntimeError, FileNotFoundError: See :class:`~anomalib_logic.models.glcf.Glcf`.
    """

    ANY_SIZE: ClassVar[bool] = True

    def __init__(
        self,
        backbone: str = "wide_resnet50_2",
        pre_trained: bool = True,
        backbone_weights: str | None = None,
        backbone_args: dict[str, Any] | None = None,
        image_size: int | Sequence[int] = 256,
        networks: LgfdrNetworks = LgfdrNetworks(),  # noqa: B008
        scoring: LgfdrScoring = LgfdrScoring(),  # noqa: B008
        training: LgfdrTraining = LgfdrTraining(),  # noqa: B008
        seed: int | None = None,
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
        **options: Unpack[Options],  # type: ignore[misc, valid-type]
    ) -> None:
        networks, scoring, training = take_groups(
            "Lgfdr", options, (LgfdrNetworks, networks), (LgfdrScoring, scoring), (LgfdrTraining, training)
        )
        options.clear()  # Lightning stores what is in this frame, and they are in their groups now
        super().__init__(
            image_size, backbone, backbone_args, seed, pre_processor, post_processor, evaluator, visualizer
        )
        self.use_training(training)
        pyramid = {"pre_trained": pre_trained, "weights": backbone_weights, "backbone_args": backbone_args}
        with self.initial_weights():
            self.model = LgfdrModel(self.image_size, networks, scoring, training, backbone, **pyramid)
        self.loss = LgfdrLoss()

    @staticmethod
    def configure_evaluator() -> LocoEvaluator:
        """Report the pixels' average precision beside the metrics of :meth:`.ModelDefaults.configure_evaluator`."""
        precision = AUPR(fields=["anomaly_map", "gt_mask"], prefix="pixel_", strict=False)
        return default_evaluator([precision])

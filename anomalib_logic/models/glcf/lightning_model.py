# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""GLCF as an Anomalib model."""

from collections.abc import Sequence
from typing import Any

from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from typing_extensions import Unpack

from anomalib_logic.models.components.defaults import ModelDefaults
from anomalib_logic.models.components.options import names_of, take_groups
from anomalib_logic.models.components.trained_model import TrainedModel

from .loss import GlcfLoss
from .options import GlcfNetworks, GlcfScoring, GlcfTraining
from .torch_model import GlcfModel

Options = names_of(GlcfNetworks, GlcfScoring, GlcfTraining)


class Glcf(TrainedModel, ModelDefaults, AnomalibModule):
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
        image_size: Height and width, or one number for both, in pixels: multiples of 32. A ``pre_processor`` that
            resizes to a fixed size has precedence.
        networks: Bottleneck and decoders, see :class:`.options.GlcfNetworks`.
        scoring: Anomaly map and image score, see :class:`.options.GlcfScoring`.
        training: Optimiser, length and noise, see :class:`.options.GlcfTraining`.
        seed: Seed of the initial weights, of the noise and of the order of images; by default that of
            ``seed_everything``, or 0.
        pre_processor: Pre-processor instance, ``True`` for the default (resize, the backbone's normalisation) or
            ``False``.
        post_processor: Post-processor instance, ``True`` for the default or ``False``.
        evaluator: Evaluator instance, ``True`` for the default (with the metrics of MVTec LOCO AD on data in its
            layout) or ``False``.
        visualizer: Visualiser instance, ``True`` for the default or ``False``.
        **options: Single fields of ``networks``, ``scoring`` and ``training``, which count: ``structure="ps"`` is
            short for ``networks={"structure": "ps"}``.

    Raises:
        ValueError: If an argument is out of range; the message names it, its value and the remedy.
        TypeError: If there is no such argument; the message names those that there are.
        RuntimeError: If the backbone's published weights cannot be downloaded.
        FileNotFoundError: If ``backbone_weights`` is not a file.

    Example:
        >>> from anomalib.engine import Engine
        >>> from anomalib_logic import DigitAnatomy, Glcf
        >>> Engine(max_epochs=20).train(Glcf(), datamodule=DigitAnatomy())  # doctest: +SKIP
    """

    def __init__(
        self,
        backbone: str = "swin_tiny_patch4_window7_224",
        pre_trained: bool = True,
        backbone_weights: str | None = None,
        backbone_args: dict[str, Any] | None = None,
        image_size: int | Sequence[int] = 224,
        networks: GlcfNetworks = GlcfNetworks(),  # noqa: B008
        scoring: GlcfScoring = GlcfScoring(),  # noqa: B008
        training: GlcfTraining = GlcfTraining(),  # noqa: B008
        seed: int | None = None,
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
        **options: Unpack[Options],  # type: ignore[misc, valid-type]
    ) -> None:
        networks, scoring, training = take_groups(
            "Glcf", options, (GlcfNetworks, networks), (GlcfScoring, scoring), (GlcfTraining, training)
        )
        options.clear()  # Lightning stores what is in this frame, and they are in their groups now
        super().__init__(
            image_size, backbone, backbone_args, seed, pre_processor, post_processor, evaluator, visualizer
        )
        self.use_training(training)
        with self.initial_weights():
            self.model = GlcfModel(
                self.image_size,
                backbone,
                pre_trained,
                backbone_weights,
                backbone_args,
                networks,
                scoring,
                training.feature_noise,
            )
        self.loss = GlcfLoss(scoring.distance, training.loss_weights)

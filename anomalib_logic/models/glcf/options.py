# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Constructor arguments of GLCF, in groups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from anomalib_logic.models.components.arguments import check_weights
from anomalib_logic.models.components.error_maps import Scoring
from anomalib_logic.models.components.image_score import ImageScore
from anomalib_logic.models.components.options import OptionGroup
from anomalib_logic.models.components.trained_model import Training

Structure = Literal["pss", "pgs", "ps", "none"]
Branch = Literal["both", "local", "global"]
Criterion = Literal["estimation", "correspondence"]


@dataclass(frozen=True)
class GlcfNetworks(OptionGroup):
    """Networks of GLCF.

    Args:
        structure: Semantic aggregation: ``"pss"``, ``"pgs"``, ``"ps"`` or ``"none"`` (section III-B2).
        multi_scale: Embed three scales in the bottleneck, not only the deepest (section III-B1).
        standardize_features: Scale each channel of the backbone's maps to mean 0 and standard deviation 1 over the
            normal training images, so that no channel dominates the distance (ours).
        width: Width of the bottleneck's tokens.
        depth: Transformer blocks of the bottleneck's encoder and of each of its decoders.
        heads: Attention heads of the bottleneck.
        decoder_depths: Blocks of the decoders' stages at strides 32, 16, 8 and 4. By default a Swin backbone's depths
            in reverse, and two residual blocks a stage for other backbones.
        decoder_widths: Channels of the decoders' stages at strides 4, 8, 16 and 32; the backbone's by default.

    Raises:
        ValueError: If an argument is out of range; the message names it, its value and the remedy.
    """

    LEAST: ClassVar[Mapping[str, float]] = {"width": 1, "depth": 1, "heads": 1}

    structure: Structure = "pss"
    multi_scale: bool = True
    standardize_features: bool = True
    width: int = 240
    depth: int = 6
    heads: int = 6
    decoder_depths: Sequence[int] | None = None
    decoder_widths: Sequence[int] | None = None

    def __post_init__(self) -> None:
        """Check the arguments."""
        super().__post_init__()
        depths = self.decoder_depths
        if depths is not None and (len(depths) != 4 or min(depths) < 0):
            msg = f"decoder_depths must be 4 numbers, those of the stages at strides 32, 16, 8 and 4, got {depths}"
            raise ValueError(msg)


@dataclass(frozen=True)
class GlcfScoring(Scoring):
    """Anomaly map and image score of GLCF: :class:`.Scoring`, whose ``distance`` is the loss's, too, and this.

    Args:
        branch: ``"both"``, ``"local"`` or ``"global"`` errors; ``"local"`` suits textures (section IV-C1). The networks
            of a branch that is left out are neither trained nor run.
        criterion: What the global branch compares with the correspondence network's maps: their ``"estimation"``, or
            the backbone's maps, ``"correspondence"`` (section IV-D2, fig. 11a).
        scale_weights: Weights of the error maps at strides 4, 8 and 16 (equation 7); one of weight 0 is not computed.
        branch_weights: Weights of the local and the global error (equation 6).
        image_score: ``"std"`` (the paper) or ``"max"`` of the anomaly map, or the mean of its ``"top"`` 2% (ours).

    Raises:
        ValueError: If a choice is unknown, or weights are negative, of another number or all zero.
    """

    branch: Branch = "both"
    criterion: Criterion = "estimation"
    scale_weights: Sequence[float] = (1.0, 2.0, 3.0)
    branch_weights: Sequence[float] = (5.0, 1.0)
    image_score: ImageScore = "std"

    def __post_init__(self) -> None:
        """Check the arguments."""
        super().__post_init__()
        check_weights("scale_weights", self.scale_weights, 3)
        check_weights("branch_weights", self.branch_weights, 2)


@dataclass(frozen=True)
class GlcfTraining(Training):
    """How GLCF is trained: :class:`.Training` and this.

    The paper's ``statistics`` are those of the training images; of validation images is ours.

    Args:
        feature_noise: Standard deviation of the noise that is added to the bottleneck's input in training, in units of
            the (standardised) maps, against overfitting (ours); 0 for the paper's method. The targets stay clean.
        loss_weights: Weights of the correspondence, the local and the global loss term (equation 4).

    Raises:
        ValueError: If an argument is out of range.
    """

    LEAST: ClassVar[Mapping[str, float]] = {**Training.LEAST, "feature_noise": 0}

    feature_noise: float = 0.5
    loss_weights: Sequence[float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        """Check the arguments."""
        super().__post_init__()
        check_weights("loss_weights", self.loss_weights, 3)

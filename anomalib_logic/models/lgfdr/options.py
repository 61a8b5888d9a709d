# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Constructor arguments of LGFDR, in groups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from anomalib_logic.models.components.error_maps import Scoring
from anomalib_logic.models.components.options import OptionGroup
from anomalib_logic.models.components.trained_model import Training

Towers = Literal["both", "local", "global"]
Head = Literal["selective", "mean"]
Noise = Literal["gaussian", "varied"]


@dataclass(frozen=True)
class LgfdrNetworks(OptionGroup):
    """Networks of LGFDR; all sizes are our reading.

    Args:
        towers: ``"both"``, or the ``"local"`` or the ``"global"`` one alone.
        head: How two reconstructions become one: ``"selective"`` weights of each channel, or their ``"mean"``.
        strides: Strides of the backbone's maps that are reconstructed, in ascending order.
        grid_stride: Stride of the grid to which these maps are resized.
        width: Width of both towers.
        local_depth: Residual blocks of the local tower, each of 3 x 3 positions.
        bottleneck: Channels of the local tower's narrowest map, so that it cannot copy what it has not learned.
        global_depth: Transformer blocks of the global tower's encoder, and of its decoder.
        heads: Attention heads of the global tower.
    """

    LEAST: ClassVar[Mapping[str, float]] = dict.fromkeys(
        ("grid_stride", "width", "local_depth", "bottleneck", "global_depth", "heads"), 1
    )

    towers: Towers = "both"
    head: Head = "selective"
    strides: Sequence[int] = (4, 8, 16)
    grid_stride: int = 8
    width: int = 128
    local_depth: int = 3
    bottleneck: int = 16
    global_depth: int = 2
    heads: int = 4


@dataclass(frozen=True)
class LgfdrScoring(Scoring):
    """Anomaly map and image score of LGFDR: :class:`.Scoring`, with the root of the squared error, and this.

    Args:
        normalize_scales: Measure the error of each of the backbone's maps by its mean and standard deviation on normal
            images, and add them up (ours); otherwise one error of all channels.
    """

    normalize_scales: bool = True


@dataclass(frozen=True)
class LgfdrTraining(Training):
    """How LGFDR is trained: :class:`.Training` with noise, and other defaults.

    Args:
        noise: Level of the noise on the features in training, in standard deviations of each channel; 0 for none.
        noise_kind: ``"gaussian"``, or ``"varied"``: its level is drawn for each image, from 0 to twice ``noise``.
    """

    LEAST: ClassVar[Mapping[str, float]] = {**Training.LEAST, "noise": 0}

    noise: float = 1.0
    noise_kind: Noise = "gaussian"
    optimizer: str = "muon"
    learning_rate: float = 5e-3
    max_epochs: int = 32
    least_steps: int = 320

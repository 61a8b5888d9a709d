# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The four networks of GLCF and their scoring (Yao et al., 2023, https://arxiv.org/abs/2303.05768)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from anomalib.data import InferenceBatch
from torch import nn

from anomalib_logic.models.components.arguments import check_divisible
from anomalib_logic.models.components.image_score import ImageScore
from anomalib_logic.models.components.normal_statistics import ChannelStandardization
from anomalib_logic.models.components.pyramid import STRIDES, FeaturePyramid

from .anomaly_map import AnomalyMapGenerator, Branch, Criterion, Distance
from .bottleneck import SemanticBottleneck, Structure
from .decoder import PyramidDecoder


class GlcfMaps(NamedTuple):
    """Maps of the four networks at strides 4, 8 and 16, each of shape ``(N, C_i, H_i, W_i)``.

    Attributes:
        features: F_i, the frozen backbone's.
        correspondence: G_i, what the backbone should see, from the global semantic representation.
        local_estimate: E_l,i, an estimate of F_i from the preserved patch representation.
        global_estimate: E_g,i, an estimate of G_i from the preserved patch representation.
    """

    features: list[torch.Tensor]
    correspondence: list[torch.Tensor]
    local_estimate: list[torch.Tensor]
    global_estimate: list[torch.Tensor]


class GlcfModel(nn.Module):
    """Global-Local Correspondence Framework.

    Args:
        image_size: Height and width of the input in pixels, multiples of 32.
        backbone, pre_trained, backbone_weights, backbone_args: See
            :class:`~anomalib_logic.models.components.pyramid.FeaturePyramid`.
        standardize_features: Scale each channel of the pyramid by its statistics over normal images, as soon as
            they are measured.
        feature_noise: Standard deviation of the Gaussian noise that is added to the bottleneck's input in training,
            in units of the (standardised) maps. The targets stay clean.
        structure, multi_scale, width, depth, heads: See :class:`.bottleneck.SemanticBottleneck`.
        decoder_depths: Blocks of the decoders' stages at strides 32, 16, 8 and 4. By default a Swin backbone's
            depths in reverse, and two residual blocks a stage for other backbones.
        decoder_widths: Channels of the decoders' stages at strides 4, 8, 16 and 32; the backbone's by default.
        branch, criterion, distance, scale_weights, branch_weights, sigma, image_score: See
            :class:`.anomaly_map.AnomalyMapGenerator`.

    Raises:
        ValueError: If an argument does not fit; the message names it.
    """

    def __init__(
        self,
        image_size: tuple[int, int] = (224, 224),
        backbone: str = "swin_tiny_patch4_window7_224",
        pre_trained: bool = True,
        backbone_weights: str | Path | None = None,
        backbone_args: Mapping[str, Any] | None = None,
        standardize_features: bool = True,
        feature_noise: float = 0.5,
        structure: Structure = "pss",
        multi_scale: bool = True,
        width: int = 240,
        depth: int = 6,
        heads: int = 6,
        decoder_depths: Sequence[int] | None = None,
        decoder_widths: Sequence[int] | None = None,
        branch: Branch = "both",
        criterion: Criterion = "estimation",
        distance: Distance = "mse",
        scale_weights: Sequence[float] = (1.0, 2.0, 3.0),
        branch_weights: Sequence[float] = (5.0, 1.0),
        sigma: float = 4.0,
        image_score: ImageScore = "std",
    ) -> None:
        super().__init__()
        check_divisible(image_size, STRIDES[-1], backbone)
        if feature_noise < 0:
            msg = f"feature_noise must not be negative, got {feature_noise}"
            raise ValueError(msg)
        self.feature_noise = feature_noise
        # Cheap checks before the backbone, which may have to be downloaded.
        self.anomaly_map_generator = AnomalyMapGenerator(
            image_size, branch, criterion, distance, scale_weights, branch_weights, sigma, image_score
        )
        self.pyramid = FeaturePyramid(backbone, pre_trained, backbone_weights, image_size, backbone_args)
        channels = self.pyramid.channels
        self.standardization = ChannelStandardization(channels) if standardize_features else None
        grid = (image_size[0] // 32, image_size[1] // 32)
        self.bottleneck = SemanticBottleneck(channels[1:], grid, width, depth, heads, structure, multi_scale)
        block = "swin" if backbone.startswith("swin") else "convolution"
        depths = _decoder_depths(decoder_depths, self.pyramid if block == "swin" else None)

        def decoder() -> PyramidDecoder:
            return PyramidDecoder(channels, grid, block, depths, decoder_widths)

        self.correspondence_network = decoder()
        self.local_estimation_network = decoder()
        self.global_estimation_network = decoder()

    def maps(self, images: torch.Tensor) -> GlcfMaps:
        """Run the four networks.

        Args:
            images: Normalised images, shape ``(N, 3, H, W)``.
        """
        pyramid = self.pyramid(images)
        if self.standardization is not None:
            pyramid = self.standardization(pyramid)
        inputs = pyramid[1:]
        if self.training and self.feature_noise > 0:
            inputs = [features + self.feature_noise * torch.randn_like(features) for features in inputs]
        semantic, patches = self.bottleneck(inputs)
        return GlcfMaps(
            features=pyramid[:3],
            correspondence=self.correspondence_network(semantic),
            local_estimate=self.local_estimation_network(patches),
            global_estimate=self.global_estimation_network(patches),
        )

    def errors(self, maps: GlcfMaps) -> list[torch.Tensor]:
        """Error maps of both branches in single precision; see :meth:`.anomaly_map.AnomalyMapGenerator.errors`."""
        return self.anomaly_map_generator.errors(*([m.float() for m in group] for group in maps))

    def forward(self, images: torch.Tensor) -> GlcfMaps | InferenceBatch:
        """Compute the networks' maps when training, the anomaly map and score, without gradients, otherwise.

        Args:
            images: Normalised images, shape ``(N, 3, H, W)``.

        Returns:
            Training: :class:`GlcfMaps`. Otherwise ``anomaly_map`` of shape ``(N, 1, H, W)`` and ``pred_score`` of
            shape ``(N,)``.
        """
        if self.training:
            return self.maps(images)
        # Here, because Anomalib's TorchInferencer leaves gradients on.
        with torch.no_grad():
            anomaly_map, score = self.anomaly_map_generator(self.errors(self.maps(images)))
        return InferenceBatch(pred_score=score, anomaly_map=anomaly_map)


def _decoder_depths(depths: Sequence[int] | None, swin: FeaturePyramid | None) -> list[int]:
    if depths is None and swin is not None:
        stages = [info["module"].replace(".", "_") for info in swin.network.feature_info.get_dicts()]
        depths = [len(swin.network[stage].blocks) for stage in stages][::-1]
    depths = [2, 2, 2, 2] if depths is None else list(depths)
    if len(depths) != 4 or min(depths) < 0:
        msg = f"decoder_depths must be 4 numbers, those of the stages at strides 32, 16, 8 and 4, got {depths}"
        raise ValueError(msg)
    return depths

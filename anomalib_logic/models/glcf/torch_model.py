# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The four networks of GLCF and their scoring (Yao et al., 2023, https://arxiv.org/abs/2303.05768)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from anomalib_logic.models.components.arguments import check_divisible
from anomalib_logic.models.components.normal_statistics import ChannelStandardization, MapNormalization
from anomalib_logic.models.components.options import take_groups
from anomalib_logic.models.components.pyramid import STRIDES, FeaturePyramid
from anomalib_logic.models.components.trained_network import TrainedNetwork

from .anomaly_map import AnomalyMapGenerator
from .bottleneck import SemanticBottleneck
from .decoder import SCALES, PyramidDecoder
from .options import GlcfNetworks, GlcfScoring


class GlcfMaps(NamedTuple):
    """Maps of the four networks at strides 4, 8 and 16, each of shape ``(N, C_i, H_i, W_i)``.

    A network that is not needed has ``None``; so has a scale that is not needed for inference.

    Attributes:
        features: F_i, the frozen backbone's.
        correspondence: G_i, what the backbone should see, from the global semantic representation.
        local_estimate: E_l,i, an estimate of F_i from the preserved patch representation.
        global_estimate: E_g,i, an estimate of G_i from the preserved patch representation.
    """

    features: list[torch.Tensor]
    correspondence: list[torch.Tensor | None] | None
    local_estimate: list[torch.Tensor | None] | None
    global_estimate: list[torch.Tensor | None] | None


class GlcfModel(TrainedNetwork):
    """Global-Local Correspondence Framework.

    Args:
        image_size: Height and width of the input in pixels, multiples of 32.
        backbone, pre_trained, backbone_weights, backbone_args: See
            :class:`~anomalib_logic.models.components.pyramid.FeaturePyramid`.
        networks: See :class:`.options.GlcfNetworks`.
        scoring: See :class:`.options.GlcfScoring`.
        feature_noise: See :class:`.options.GlcfTraining`.
        **options: Single fields of ``networks`` and ``scoring``.

    Raises:
        ValueError: If an argument does not fit; the message names it.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        backbone: str,
        pre_trained: bool = True,
        backbone_weights: str | Path | None = None,
        backbone_args: Mapping[str, Any] | None = None,
        networks: GlcfNetworks | None = None,
        scoring: GlcfScoring | None = None,
        feature_noise: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__()
        networks, scoring = take_groups("GlcfModel", options, (GlcfNetworks, networks), (GlcfScoring, scoring))
        check_divisible(image_size, STRIDES[-1], backbone)
        self.feature_noise = feature_noise
        self.anomaly_map_generator = AnomalyMapGenerator(image_size, scoring)
        self.pyramid = FeaturePyramid(backbone, pre_trained, backbone_weights, image_size, backbone_args)
        channels = self.pyramid.channels
        self.standardization = ChannelStandardization(channels) if networks.standardize_features else None
        grid = (image_size[0] // 32, image_size[1] // 32)
        self.bottleneck = SemanticBottleneck(
            channels[1:],
            grid,
            networks.width,
            networks.depth,
            networks.heads,
            networks.structure,
            networks.multi_scale,
        )
        block = "swin" if backbone.startswith("swin") else "convolution"
        depths = networks.decoder_depths or _mirrored_depths(self.pyramid if block == "swin" else None)

        def decoder() -> PyramidDecoder:
            return PyramidDecoder(channels, grid, block, depths, networks.decoder_widths)

        self.correspondence_network = decoder()
        self.local_estimation_network = decoder()
        self.global_estimation_network = decoder()
        self._freeze_what_does_not_count()

    def _freeze_what_does_not_count(self) -> None:
        local_counts, global_counts = self.anomaly_map_generator.branches
        if not local_counts:
            self.local_estimation_network.requires_grad_(False)
        if not global_counts:
            self.correspondence_network.requires_grad_(False)
            self.global_estimation_network.requires_grad_(False)
            self.bottleneck.freeze_global()

    @property
    def normalization(self) -> MapNormalization:  # type: ignore[override]
        """Statistics of the error maps."""
        return self.anomaly_map_generator.normalization

    def maps(self, images: torch.Tensor) -> GlcfMaps:
        """Run the networks that count.

        Args:
            images: Normalised images, shape ``(N, 3, H, W)``.
        """
        pyramid = self.features(images)
        inputs = pyramid[1:]
        if self.training and self.feature_noise > 0:
            inputs = [features + self.feature_noise * torch.randn_like(features) for features in inputs]
        generator = self.anomaly_map_generator
        local_counts, global_counts = generator.branches
        scales = SCALES if self.training else generator.scales
        semantic, patches = self.bottleneck(inputs, global_counts)
        estimated = global_counts and (self.training or generator.criterion == "estimation")
        return GlcfMaps(
            features=pyramid[:3],
            correspondence=self.correspondence_network(semantic, scales) if global_counts else None,
            local_estimate=self.local_estimation_network(patches, scales) if local_counts else None,
            global_estimate=self.global_estimation_network(patches, scales) if estimated else None,
        )

    def errors(self, maps: GlcfMaps) -> list[torch.Tensor]:
        """Error maps in single precision; see :meth:`.anomaly_map.AnomalyMapGenerator.errors`."""
        return self.anomaly_map_generator.errors(*maps)

    def anomaly_map(self, errors: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Anomaly map and image score; see :meth:`.anomaly_map.AnomalyMapGenerator.forward`."""
        return self.anomaly_map_generator(errors)

    @torch.no_grad()
    def branch_maps(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """What each branch adds to the anomaly map; see :meth:`.anomaly_map.AnomalyMapGenerator.branch_maps`.

        Args:
            images: Normalised images, shape ``(N, 3, H, W)``.
        """
        return self.anomaly_map_generator.branch_maps(self.errors(self.maps(images)))


def _mirrored_depths(swin: FeaturePyramid | None) -> Sequence[int]:
    """Depths of a decoder's stages: those of a Swin backbone in reverse, or two."""
    if swin is None:
        return (2, 2, 2, 2)
    stages = [info["module"].replace(".", "_") for info in swin.network.feature_info.get_dicts()]
    return [len(swin.network[stage].blocks) for stage in stages][::-1]

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""From images to features, objects and descriptors (paper sections 3.2, 3.4 and 3.5.1)."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from anomalib_logic.models.components.normal_statistics import ChannelStandardization
from anomalib_logic.models.components.patch_features import PatchFeatures
from anomalib_logic.models.components.precision import full_precision
from anomalib_logic.models.components.upsampling import (
    JbuUpsampler,
    average_pool,
    load_jbu_upsampler,
    resize,
)
from anomalib_logic.models.components.weights import PUBLISHED, published_weights

from .descriptor import ObjectDescriptor
from .frames import bounding_boxes, crop, crop_own
from .objects import ClusterSegments
from .options import SamLadBank, SamLadMatching, SamLadSegmentation

logger = logging.getLogger(__name__)

EMPTY_UPSAMPLERS = ("jbu", "jbu_norm")  # without weights, which a model's checkpoint brings
OBJECT_SIZE = 16  # height and width of the grid on which objects are compared; another one needs another FORMAT
COARSE_OBJECT_SIZE = 8  # where more would repeat the same features, or where segments are rough; likewise
KEY_SIDE = 8  # height and width of the features by which similar images are searched


class Maps(NamedTuple):
    """Standardised features of images.

    Attributes:
        all: Of all scales, up-sampled, shape ``(N, C, H, W)``.
        scene: Of a pyramid's strides 4 and 8, on the grid on which whole images are compared, shape ``(N, C', s, s)``.
        coarse: Of a pyramid's strides 8 and 16, not up-sampled, shape ``(N, C'', h, w)``.
    """

    all: torch.Tensor
    scene: torch.Tensor
    coarse: torch.Tensor

    @property
    def fine(self) -> torch.Tensor:
        """Of a pyramid's strides 4 and 8, up-sampled, shape ``(N, C', H, W)``."""
        return self.all[:, : self.scene.shape[1]]

    @property
    def key(self) -> torch.Tensor:
        """What similar images are searched by: fine features of large regions, shape ``(N, D)``."""
        return average_pool(self.fine, (KEY_SIDE, KEY_SIDE)).flatten(1)


class Found(NamedTuple):
    """Objects of images, in K slots each.

    Attributes:
        masks: Shape ``(N, K, H, W)``.
        boxes: ``(top, left, bottom, right)`` in [0, 1], shape ``(N, K, 4)``.
        valid: Which slots hold an object, shape ``(N, K)``.
        number: Number of objects found, which can be more than K, shape ``(N,)``.
        crops: Features in the objects' own frames, shape ``(N, K, C', g, g)``.
        crop_masks: Masks in the same frames, shape ``(N, K, g, g)``.
        descriptors: Shape ``(N, K, C')``.
    """

    masks: torch.Tensor
    boxes: torch.Tensor
    valid: torch.Tensor
    number: torch.Tensor
    crops: torch.Tensor
    crop_masks: torch.Tensor
    descriptors: torch.Tensor


class Encoder(nn.Module):
    """Backbone, up-sampler, objects and descriptor.

    Args:
        backbone: Features of images.
        upsampler_weights: See :class:`.lightning_model.SamLad`.
        sam_checkpoint: See :class:`.lightning_model.SamLad`.
        pre_trained: Use published weights of Segment Anything where there is no ``sam_checkpoint``.
        segmentation, matching, bank: See :mod:`.options`.
        mean, std: Of each channel, by which images are normalised.
    """

    def __init__(
        self,
        backbone: PatchFeatures,
        upsampler_weights: str | Path | None,
        sam_checkpoint: str | Path | None,
        pre_trained: bool,
        segmentation: SamLadSegmentation,
        matching: SamLadMatching,
        bank: SamLadBank,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.scene = (bank.scene_size, bank.scene_size)
        self.fine_channels = sum(backbone.channels[:2])
        self.grid = (bank.upsample * backbone.grid[0], bank.upsample * backbone.grid[1])
        self.upsampler = self._build_upsampler(upsampler_weights, bank.upsample)
        refined = len(backbone.channels) > 1 or self.upsampler is not None
        fine = refined and segmentation.objects != "cluster"
        self.object_size = bank.object_size or (OBJECT_SIZE if fine else COARSE_OBJECT_SIZE)
        self.standardization = ChannelStandardization(backbone.channels)
        self.upsampled_standardization = ChannelStandardization(backbone.channels)  # of what the up-sampler makes
        s = segmentation
        if s.objects == "cluster":
            self.objects = ClusterSegments(self.fine_channels, s.max_objects, s.clusters, s.area_range)
        else:
            self.objects = _segment_anything(s, sam_checkpoint, pre_trained)
        self.descriptor = ObjectDescriptor(self.fine_channels, matching.descriptor)
        self.register_buffer("pixel_mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("pixel_std", torch.tensor(std).view(3, 1, 1))

    def _build_upsampler(self, weights: str | Path | None, factor: int) -> JbuUpsampler | None:
        if weights is None:
            if self.backbone.is_transformer:
                logger.info("no upsampler_weights: features are up-sampled bilinearly")
            return None
        if len(self.backbone.channels) > 1:
            msg = f"upsampler_weights={weights} needs a backbone of one scale, a vision transformer; this is a pyramid"
            raise ValueError(msg)
        channels = self.backbone.channels[0]
        if weights in EMPTY_UPSAMPLERS:
            return JbuUpsampler(channels, factor, norm=weights == EMPTY_UPSAMPLERS[1])
        path = published_weights(str(weights)) if str(weights) in PUBLISHED else weights
        return load_jbu_upsampler(path, channels, factor)

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Compute features of normalised images, one map a scale, shapes ``(N, C_i, h_i, w_i)``."""
        with full_precision(images.device):
            return self.backbone(images.to(self.pixel_mean.dtype))

    def maps(self, images: torch.Tensor, features: list[torch.Tensor] | None = None) -> Maps:
        """Standardise and up-sample features; of a pyramid, all maps have the same weight.

        Args:
            images: Normalised images, shape ``(N, 3, H, W)``.
            features: Result of :meth:`features`, if it is known.
        """
        with full_precision(images.device):
            features = self.features(images) if features is None else features
            scales = _of_equal_weight(self.standardization(features))
            fine, coarse = scales[:2], scales[1:] or scales
            if self.upsampler is not None:
                upsampled = [self.upsampler(features[-1], images)]
                scales = fine = _of_equal_weight(self.upsampled_standardization(upsampled))
            return Maps(_join(scales, self.grid), _join(fine, self.scene), _join(coarse, self.backbone.grid))

    @torch.no_grad()
    def fit_standardization(self, images: torch.Tensor, features: list[torch.Tensor]) -> None:
        """Take the statistics that were collected, and those of up-sampled features of a sample.

        Args:
            images: Normalised images, the sample, shape ``(Z, 3, H, W)``.
            features: Their :meth:`features`.
        """
        self.standardization.finalize()
        if self.upsampler is not None:
            self.upsampled_standardization.reset()
            with full_precision(images.device):
                for maps, image in zip(features[-1].split(1), images.split(1), strict=True):
                    self.upsampled_standardization.update([self.upsampler(maps, image)])
            self.upsampled_standardization.finalize()

    def find(self, images: torch.Tensor, maps: Maps) -> Found:
        """Find and describe objects.

        Args:
            images: Normalised images, shape ``(N, 3, H, W)``.
            maps: Their features.
        """
        objects = self.objects(self.normalize_for_objects(images), maps.fine)
        boxes = bounding_boxes(objects.masks)
        crops = crop(maps.fine, boxes, self.object_size)
        crop_masks = crop_own(objects.masks, boxes, self.object_size)
        descriptors = self.descriptor(crops, crop_masks, objects.valid)
        crops = crops * objects.valid[..., None, None, None]
        return Found(objects.masks, boxes, objects.valid, objects.found, crops, crop_masks, descriptors)

    def normalize_for_objects(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise by ImageNet's statistics, Segment Anything's, what is normalised by others."""
        mean, std = (images.new_tensor(v).view(3, 1, 1) for v in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
        return images * (self.pixel_std / std) + (self.pixel_mean - mean) / std

    def pixels(self, images: torch.Tensor) -> torch.Tensor:
        """Undo the normalisation of images: black is 0, white is 1."""
        return images.to(self.pixel_mean.dtype) * self.pixel_std + self.pixel_mean

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalise images, the inverse of :meth:`pixels`."""
        return (pixels - self.pixel_mean) / self.pixel_std

    def picture(self, images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Images as bytes, without their normalisation, shape ``(N, 3, *size)``."""
        return (self.pixels(resize(images.to(self.pixel_mean.dtype), size)).clamp(0, 1) * 255).round().to(torch.uint8)

    @torch.no_grad()
    def fit_objects(self, images: torch.Tensor, fine: torch.Tensor, seed: int = 0) -> None:
        """Calibrate the objects on a sample of the normal images.

        Args:
            images: Normalised images, shape ``(Z, 3, H, W)``.
            fine: Their :attr:`Maps.fine`.
            seed: Seed of the clustering.
        """
        if self.upsampler is not None and not self.upsampler.loaded:
            logger.warning("the up-sampler has random weights: pass upsampler_weights=FILE, or None for bilinear ones")
        logger.info("finding objects in %d images", len(images))
        self.objects.fit(self.normalize_for_objects(images), fine, seed)


def _of_equal_weight(scales: list[torch.Tensor]) -> list[torch.Tensor]:
    return [m / m.shape[1] ** 0.5 for m in scales]


def _join(scales: list[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
    return torch.cat([resize(m, size) for m in scales], dim=1)


def _segment_anything(options: SamLadSegmentation, checkpoint: str | Path | None, pre_trained: bool) -> nn.Module:
    """Segment Anything, whose package is an extra."""
    try:
        from .segment_anything import SegmentAnything
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "segment_anything":
            raise
        msg = (
            f"objects='{options.objects}' needs the package segment-anything: pip install 'anomalib-logic[sam]', "
            "or choose objects='cluster'"
        )
        raise ImportError(msg) from error
    kind = options.objects.removeprefix("sam_")
    return SegmentAnything(
        kind, checkpoint, pre_trained, options.sam_size, options.sam_points, options.max_objects, options.area_range
    )

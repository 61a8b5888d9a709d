# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""SAM-LAD: bank, objects, descriptors, matching and measurement joined (https://arxiv.org/abs/2406.00625)."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from anomalib.data import InferenceBatch
from anomalib.models.components import GaussianBlur2d
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn
from torch.nn import functional as F

from anomalib_logic.models.components.arguments import check_choice, check_least
from anomalib_logic.models.components.image_score import ImageScore
from anomalib_logic.models.components.normal_statistics import ChannelStandardization
from anomalib_logic.models.components.patch_features import PatchFeatures
from anomalib_logic.models.components.precision import full_precision
from anomalib_logic.models.components.upsampling import JbuUpsampler, check_factor, load_jbu_upsampler, pick, resize
from anomalib_logic.models.components.weights import PUBLISHED, published_weights

from .bank import Bank, Template
from .composition import Composition
from .descriptor import Descriptor, ObjectDescriptor
from .explanation import Explanation
from .fitting import BankFitting
from .frames import bounding_boxes, crop, crop_own
from .matching import Matches, ObjectMatching
from .measurement import mahalanobis, nearest_distance
from .objects import ClusterSegments
from .scoring import INSIDE, Alignment, Comparison, Scoring
from .segment_anything import SegmentAnything

logger = logging.getLogger(__name__)

ObjectKind = Literal["sam_vit_h", "sam_vit_l", "sam_vit_b", "mobile_sam", "cluster"]
EMPTY_UPSAMPLERS = ("jbu", "jbu_norm")  # without weights, which a model's checkpoint brings
Selection = Literal["nearest", "random"]
PICTURE = 128  # height and width of the pictures kept for explanations


def _check_area_range(area_range: Sequence[float] | None) -> None:
    if area_range is not None and (len(area_range) != 2 or not 0 <= area_range[0] < area_range[1] <= 1):
        msg = f"area_range must be two shares of the image, the smaller first (0 <= a < b <= 1), got {area_range}"
        raise ValueError(msg)


class SamLadModel(BankFitting):
    """Bank, objects, matching and measurement; see :class:`.lightning_model.SamLad` for the other arguments.

    Args:
        mean: Mean of each channel that images are normalised by; ImageNet's by default.
        std: Standard deviation of each channel; ImageNet's by default.
    """

    def __init__(
        self,
        image_size: tuple[int, int] = (392, 392),
        backbone: str = "vit_small_patch14_dinov2",
        pre_trained: bool = True,
        backbone_weights: str | Path | None = None,
        backbone_args: Mapping[str, Any] | None = None,
        objects: ObjectKind = "sam_vit_h",
        sam_checkpoint: str | Path | None = None,
        sam_size: int = 1024,
        sam_points: int = 32,
        clusters: int | None = None,
        max_objects: int = 20,
        area_range: Sequence[float] | None = None,
        upsample: int = 4,
        upsampler_weights: str | Path | None = None,
        k: int = 10,
        selection: Selection = "nearest",
        coreset: float = 1.0,
        half_precision_bank: bool = True,
        descriptor: Descriptor = "gap",
        geometry: float = 0.3,
        align: Alignment = "combined",
        eps: float = 0.01,
        scene_size: int = 48,
        object_size: int = 16,
        score_missing: bool = True,
        lite: bool = False,
        composition: bool = True,
        image_score: ImageScore = "max",
        sigma: float = 4.0,
        mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
        std: Sequence[float] = IMAGENET_DEFAULT_STD,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.k = k
        check_choice("objects", objects, ObjectKind)
        sizes = {"k": k, "max_objects": max_objects, "scene_size": scene_size, "object_size": object_size}
        for name, value in sizes.items():
            check_least(name, value, 1)
        check_least("clusters", 2 if clusters is None else clusters, 2)
        if eps <= 0:
            msg = f"eps must be above 0, got {eps}"
            raise ValueError(msg)
        _check_area_range(area_range)
        if not 0 < coreset <= 1:
            msg = f"coreset must be above 0 and at most 1, got {coreset}"
            raise ValueError(msg)
        self.selection = check_choice("selection", selection, Selection)
        self.align = check_choice("align", align, Alignment)
        check_choice("image_score", image_score, ImageScore)
        self.coreset = coreset
        self.eps = eps
        self.scene_size = scene_size
        self.object_size = object_size
        self.score_missing = score_missing
        check_factor(upsample)
        self.backbone = PatchFeatures(backbone, pre_trained, backbone_weights, image_size, backbone_args)
        channels = self.backbone.channels
        self.fine = sum(channels[:2])  # of a pyramid, strides 4 and 8
        self.coarse = sum(channels[1:]) or channels[0]  # of a pyramid, strides 8 and 16
        self.grid = (upsample * self.backbone.grid[0], upsample * self.backbone.grid[1])
        self.upsampler = self._build_upsampler(upsampler_weights, upsample)
        self.standardization = ChannelStandardization(channels)
        if objects == "cluster":
            self.objects = ClusterSegments(self.fine, max_objects, clusters, area_range=area_range)
        else:
            self.objects = SegmentAnything(
                objects.removeprefix("sam_"), sam_checkpoint, pre_trained, sam_size, sam_points, max_objects, area_range
            )
        self.descriptor = ObjectDescriptor(self.fine, descriptor)
        self.matching = ObjectMatching(geometry)
        self.composition = Composition(sum(channels)) if composition else None
        self.bank = Bank(half_precision_bank)
        self.scoring = Scoring(align, image_score, lite, self.backbone.grid)
        self.blur = GaussianBlur2d(sigma=sigma, channels=1) if sigma > 0 else nn.Identity()
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
            return self.backbone(images.to(self.scoring.mean.dtype))

    def enlarge(self, maps: list[torch.Tensor], images: torch.Tensor) -> torch.Tensor:
        """Up-sample features to one size and standardise them.

        Args:
            maps: Result of :meth:`features`.
            images: The normalised images, which guide the up-sampler.

        Returns:
            Shape ``(N, C, H, W)``; each channel by its mean and deviation, each map with the same weight.
        """
        if self.upsampler is not None:
            return self._standardize([self.upsampler(maps[-1], images)])
        return self._standardize([resize(m, self.grid) for m in maps])

    def _standardize(self, maps: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat([m / m.shape[1] ** 0.5 for m in self.standardization(maps)], dim=1)

    def represent(self, images: torch.Tensor) -> Template:
        """Compute everything that is compared of normalised images, shape ``(N, 3, H, W)``."""
        with full_precision(images.device):
            return self._represent(images.to(self.scoring.mean.dtype))

    def _represent(self, images: torch.Tensor) -> Template:
        maps = self.features(images)
        features = self.enlarge(maps, images)
        fine = features[:, : self.fine]
        coarse = self._standardize([resize(m, self.backbone.grid) for m in maps])[:, -self.coarse :]
        found = self.objects(self._normalize_for_objects(images), fine)
        boxes = bounding_boxes(found.masks)
        crops = crop(fine, boxes, self.object_size)
        crop_masks = crop_own(found.masks, boxes, self.object_size)
        scene = (self.scene_size, self.scene_size)
        words = histogram = features[:, :0, 0, 0]
        if self.composition is not None:
            words = self.composition.words(features)
            histogram = self.composition.histogram(words)
            words = pick(words, scene)
        return Template(
            key=resize(fine, self.backbone.grid).flatten(1),
            scene=resize(fine, scene),
            coarse=coarse,
            masks=resize(found.masks, scene),
            boxes=boxes,
            valid=found.valid,
            crops=crops * found.valid[..., None, None, None],
            crop_masks=crop_masks,
            descriptors=self.descriptor(crops, crop_masks, found.valid),
            histogram=histogram,
            words=words.to(torch.uint8),
            found=found.found,
            picture=self._as_bytes(resize(images, (PICTURE, PICTURE))),
        )

    def _as_bytes(self, images: torch.Tensor) -> torch.Tensor:
        """Undo the normalisation."""
        return ((images * self.pixel_std + self.pixel_mean).clamp(0, 1) * 255).round().to(torch.uint8)

    def _normalize_for_objects(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise by ImageNet's statistics, Segment Anything's, what is normalised by others."""
        mean, std = (images.new_tensor(v).view(3, 1, 1) for v in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
        return images * (self.pixel_std / std) + (self.pixel_mean - mean) / std

    def compare(self, query: Template, exclude: torch.Tensor | None = None) -> Comparison:
        """Find references, match objects and measure distances.

        Args:
            query: Images to compare.
            exclude: Index in the bank of the query itself, shape ``(N,)``: it is compared with all other normals.
        """
        with full_precision(query.key.device):
            return self._compare(query, exclude)

    def _compare(self, query: Template, exclude: torch.Tensor | None) -> Comparison:
        available = len(self.bank) - (exclude is not None)
        references = self.bank.search(query.key, min(self.k, available), exclude)
        if self.selection == "random":
            # The random numbers are drawn when the bank is filled, so that an image has one result everywhere.
            references = references.gather(1, self.bank.priority[references].argmax(dim=1, keepdim=True))
        descriptors, boxes, valid = (self.bank.get(n, references) for n in ("descriptors", "boxes", "valid"))
        scores = self.matching.scores(query.descriptors, query.boxes, descriptors, boxes)
        matches = self.matching(scores, query.valid, valid)
        missing = self.matching.missing(matches, descriptors, boxes, valid)
        scene = self._measure_scene(query, references, matches)
        return Comparison(
            references=references,
            matches=matches,
            missing=missing & self.score_missing,
            surplus=query.valid & ~matches.matched.any(dim=1),
            objects=self._measure_objects(query, references, valid, matches, scene),
            scene=scene,
            **self._measure_coarse(query.coarse, exclude),
            **self._measure_composition(query, exclude),
        )

    def _measure_objects(
        self,
        query: Template,
        references: torch.Tensor,
        valid: torch.Tensor,
        matches: Matches,
        scene: torch.Tensor,
    ) -> torch.Tensor:
        """Distances of objects to their partners, or to the closest object where there is none, in their frames.

        Where no reference has any object, they are the scene's.
        """
        crops = self.bank.objects("crops", references, matches.partner).transpose(1, 2).flatten(4)
        matched = matches.matched.transpose(1, 2).float()
        present = valid.float().gather(2, matches.partner).transpose(1, 2)
        weights = torch.where(matched.amax(dim=-1, keepdim=True) > 0, matched, present)
        distances = self._measure(query.crops.flatten(3), crops, weights).view(*query.crop_masks.shape)
        scene = scene.unsqueeze(1).expand(-1, query.boxes.shape[1], -1, -1)
        comparable = valid.flatten(1).any(dim=1)[:, None, None, None]
        return torch.where(comparable, distances, crop_own(scene, query.boxes, self.object_size))

    def _measure_scene(self, query: Template, references: torch.Tensor, matches: Matches) -> torch.Tensor:
        """Distances of the whole image, position by position or to the nearest of the references' features."""
        scenes = self.bank.get("scene", references)
        if self.align == "none":
            # Equation 12 compares masked maps: where the partner is not, its features are zero.
            inside = (query.masks > INSIDE).unsqueeze(1)
            partners = self.bank.objects("masks", references, matches.partner)
            covered = (inside * partners).amax(dim=2).unsqueeze(2)
            scenes = torch.where(inside.any(dim=2, keepdim=True), scenes * covered, scenes)
        weights = scenes.new_ones(scenes.shape[:2])
        return self._measure(query.scene.flatten(2), scenes.flatten(3), weights).view(-1, *query.scene.shape[2:])

    def _measure_coarse(self, features: torch.Tensor, exclude: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """Distances of coarse features to those of all normals: anywhere, and in the same place."""
        if self.align != "combined":
            zeros = torch.zeros_like(features[:, 0])
            return {"anywhere": zeros, "place": zeros, "arrangement": zeros}
        return {"anywhere": self.bank.nearest_patch(features, exclude), **self._measure_places(features, exclude)}

    def _measure_places(self, features: torch.Tensor, exclude: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """Distances of coarse features to those in the same place of all normals."""
        squared = self.bank.place_distances(features, exclude)
        alike = squared.mean(dim=(2, 3)).topk(min(self.k, squared.shape[1] - (exclude is not None)), largest=False)
        alike = squared.gather(1, alike.indices[..., None, None].expand(-1, -1, *squared.shape[2:]))
        return {
            "place": F.avg_pool2d(alike, 3, stride=1, padding=1).amin(dim=1).sqrt(),
            "arrangement": F.avg_pool2d(squared, 5, stride=1, padding=2).amin(dim=1).sqrt(),
        }

    def _measure_composition(self, query: Template, exclude: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """Distances of the images' compositions to those of all normals, or of all other normals."""
        if self.composition is None:
            return {"composition": query.histogram.sum(dim=1), "amounts": torch.zeros_like(query.scene[:, 0])}
        if exclude is None:
            composition = self.composition
            return {
                "composition": composition(query.histogram),
                "amounts": composition.amounts(query.histogram, query.words),
            }
        others = [self.composition.without(int(image)) for image in exclude]
        histograms, words = query.histogram.split(1), query.words.split(1)
        return {
            "composition": torch.cat([o(h) for o, h in zip(others, histograms, strict=True)]),
            "amounts": torch.cat([o.amounts(h, w) for o, h, w in zip(others, histograms, words, strict=True)]),
        }

    def _measure(self, features: torch.Tensor, references: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        if self.align in ("combined", "nearest"):
            return nearest_distance(features, references, weights)
        return mahalanobis(features, references, weights, self.eps)

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Compare images with the bank.

        Args:
            images: Normalised images, shape ``(N, 3, H, W)``.

        Returns:
            ``anomaly_map`` of shape ``(N, 1, H, W)`` and ``pred_score`` of shape ``(N,)``.

        Raises:
            RuntimeError: If the bank is empty.
        """
        return self.score(*self.look_up(images))

    def look_up(self, images: torch.Tensor) -> tuple[Template, Comparison]:
        """Represent images and compare them with the bank, see :meth:`forward`."""
        self.check_filled()
        query = self.represent(images)
        return query, self.compare(query)

    def check_filled(self) -> None:
        """Raise a ``RuntimeError`` if there is nothing to compare images with."""
        if not len(self.bank):
            msg = "the bank is empty: train the model (one epoch fills the bank) or load a checkpoint"
            raise RuntimeError(msg)

    def score(self, query: Template, compared: Comparison, calibrated_on: int | None = None) -> InferenceBatch:
        """Anomaly map and score of images that were compared with the bank, see :meth:`forward`.

        Args:
            query: The images.
            compared: Their comparison.
            calibrated_on: Number of normals that the scores were calibrated on, if the images are of these.
        """
        with full_precision(query.key.device):
            return self._score(query, compared, calibrated_on)

    def _score(self, query: Template, compared: Comparison, calibrated_on: int | None) -> InferenceBatch:
        distances = self.scoring.distance_maps(query, compared)
        scores = self.scoring.image_scores(distances, compared)
        held_out = calibrated_on is not None
        score = self.scoring.fuse_held_out(scores, calibrated_on) if held_out else self.scoring.fuse(scores)
        masks = self.bank.get("masks", compared.references)
        anomaly_map = self.scoring.anomaly_map(distances, query, compared, masks).unsqueeze(1)
        anomaly_map = F.interpolate(anomaly_map, self.image_size, mode="bilinear", align_corners=False)
        return InferenceBatch(pred_score=score, anomaly_map=self.blur(anomaly_map))

    @torch.no_grad()
    def explain(self, images: torch.Tensor) -> list[Explanation]:
        """Say of each image which objects it has, which partners they have, and what is missing.

        Args:
            images: Normalised images, shape ``(N, 3, H, W)``.
        """
        query, compared = self.look_up(images)
        scores = self.score(query, compared).pred_score
        weights = (query.crop_masks > 0.5).float()
        distances = (compared.objects * weights).sum(dim=(2, 3)) / weights.sum(dim=(2, 3)).clamp_min(1)
        nearest = compared.references[:, 0]
        reference = self.bank.template(nearest)
        explanations = []
        for i in range(len(query)):
            own, other = query.valid[i], reference.valid[i]
            # Slots of the reference's objects, counted without the empty ones.
            slots = other.cumsum(dim=0) - 1
            partners = slots[compared.matches.partner[i, 0][own]]
            explanation = Explanation(
                score=scores[i].item(),
                masks=query.masks[i][own] > 0.5,
                scores=distances[i][own] / self.scoring.usual[0],
                partners=torch.where(compared.matches.matched[i, 0][own], partners, torch.full_like(partners, -1)),
                surplus=compared.surplus[i][own],
                reference_masks=reference.masks[i][other] > 0.5,
                missing=compared.missing[i, 0][other],
                reference=int(nearest[i]),
                pictures=torch.stack([query.picture[i], reference.picture[i]]),
            )
            explanations.append(Explanation(*(v.cpu() if isinstance(v, torch.Tensor) else v for v in explanation)))
        return explanations

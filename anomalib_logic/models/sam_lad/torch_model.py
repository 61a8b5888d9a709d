# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""SAM-LAD: images are encoded, compared with the bank, and scored (https://arxiv.org/abs/2406.00625)."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from anomalib.data import InferenceBatch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn
from torch.nn import functional as F

from anomalib_logic._progress import with_progress
from anomalib_logic.models.components.blur import SeparableBlur
from anomalib_logic.models.components.patch_features import PatchFeatures
from anomalib_logic.models.components.precision import full_precision
from anomalib_logic.models.components.upsampling import resize

from .bank import Bank, Template
from .changes import CHANGES
from .comparison import Comparison, compare
from .encoder import Encoder
from .explanation import Explanation, Reason, explain
from .matching import ObjectMatching
from .options import SamLadBank, SamLadMatching, SamLadScoring, SamLadSegmentation
from .scores import build_scores
from .scores.score import Measured

logger = logging.getLogger(__name__)

SHARPNESS = 4  # of the soft maximum of the scores
LEAST_FOR_TRUST = 5  # normal images; the deviation of fewer says too little of what a score notices
PICTURE = 128  # height and width of the pictures kept for explanations
IMAGES = {  # fields that are kept whatever the scores are
    "key": torch.float,
    "boxes": torch.float,
    "valid": torch.bool,
    "picture": torch.uint8,
}
OBJECTS = {"masks": torch.half, "descriptors": torch.half}

Measurements = dict[str, Measured]  # of images, by the name of the score


class SamLadModel(nn.Module):
    """Encoder, bank, matching and scores.

    Args:
        image_size: Height and width of the input in pixels.
        backbone, pre_trained, backbone_weights, backbone_args, upsampler_weights, sam_checkpoint: See
            :class:`.lightning_model.SamLad`.
        segmentation, matching, bank, scoring: See :mod:`.options`.
        mean: Mean of each channel that images are normalised by; ImageNet's by default.
        std: Standard deviation of each channel; ImageNet's by default.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        segmentation: SamLadSegmentation,
        matching: SamLadMatching,
        bank: SamLadBank,
        scoring: SamLadScoring,
        backbone: str,
        pre_trained: bool = True,
        backbone_weights: str | Path | None = None,
        backbone_args: Mapping[str, Any] | None = None,
        upsampler_weights: str | Path | None = None,
        sam_checkpoint: str | Path | None = None,
        mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
        std: Sequence[float] = IMAGENET_DEFAULT_STD,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.options = bank
        self.score_missing = matching.score_missing
        features = PatchFeatures(backbone, pre_trained, backbone_weights, image_size, backbone_args)
        self.encoder = Encoder(
            features, upsampler_weights, sam_checkpoint, pre_trained, segmentation, matching, bank, mean, std
        )
        self.matching = ObjectMatching(matching.geometry)
        self.scores = build_scores(scoring, bank, features.grid, features.channels)
        images, objects = dict(IMAGES), dict(OBJECTS)
        sampled: dict[str, torch.dtype] = {}
        for score in self.scores.values():
            images |= score.IMAGES
            objects |= score.OBJECTS
            sampled |= score.SAMPLED
        self.bank = Bank(images | sampled, objects, bank.half_precision_bank, sampled.keys() - images.keys())
        self.blur = SeparableBlur(scoring.sigma)
        self._prepared: Template = {}  # what scores learn from, from `fit_encoder` to a fit
        self._held_out: Sequence[Measurements] = ()  # normal images, from a fit to its thresholds

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Compare images with the bank.

        Args:
            images: Normalised images, shape ``(N, 3, H, W)``.

        Returns:
            ``anomaly_map`` of shape ``(N, 1, H, W)`` and ``pred_score`` of shape ``(N,)``.

        Raises:
            RuntimeError: If the bank is empty.
        """
        return self.predict(self.measure(self.compare(self.represent(images))))

    def represent(self, images: torch.Tensor) -> Template:
        """Compute everything that is compared of normalised images, shape ``(N, 3, H, W)``."""
        images = images.to(self.encoder.pixel_mean.dtype)
        maps = self.encoder.maps(images)
        with full_precision(images.device):
            found = self.encoder.find(images, maps)
            template = {
                "key": maps.key,
                "boxes": found.boxes,
                "valid": found.valid,
                "found": found.number,
                "picture": self.encoder.picture(images, (PICTURE, PICTURE)),
                "masks": resize(found.masks, (self.options.scene_size, self.options.scene_size)),
                "descriptors": found.descriptors,
            }
            for score in self.scores.values():
                template |= score.keep(maps, found)
            return template

    def compare(self, query: Template, exclude: torch.Tensor | None = None) -> Comparison:
        """Find references and match objects.

        Args:
            query: Result of :meth:`represent`.
            exclude: Index in the bank of the query itself, shape ``(N,)``: it is compared with all others.

        Raises:
            RuntimeError: If the bank is empty.
        """
        self.check_filled()
        with full_precision(query["key"].device):
            compared = compare(query, self.bank, self.matching, self.options.k, self.options.selection, exclude)
            return compared._replace(missing=compared.missing & self.score_missing)

    def measure(self, compared: Comparison) -> Measurements:
        """Measure images by every score."""
        with full_precision(self.encoder.pixel_mean.device):
            return {name: score.measure(compared) for name, score in self.scores.items()}

    def predict(self, measured: Measurements, calibrated_on: int | None = None) -> InferenceBatch:
        """Anomaly map and score of images, see :meth:`forward`.

        The score is the soft maximum of the deviations: one broken rule is enough. The map is the sum of what lies
        above normal values.

        Args:
            measured: Result of :meth:`measure`.
            calibrated_on: Number of normal images that the scores were calibrated on, if the images are of these.
        """
        with full_precision(self.encoder.pixel_mean.device):
            score = soft_maximum(self.deviations(measured, calibrated_on))
            excess = [s.excess(measured[name]) for name, s in self.scores.items()]
            anomaly_map = torch.stack(excess).sum(dim=0).unsqueeze(1)
            anomaly_map = F.interpolate(anomaly_map, self.image_size, mode="bilinear", align_corners=False)
            return InferenceBatch(pred_score=score, anomaly_map=self.blur(anomaly_map))

    def deviations(self, measured: Measurements, calibrated_on: int | None = None) -> torch.Tensor:
        """Deviation of each score from normal images', times its trust, shape ``(N, S)``; see :meth:`predict`."""
        scores = self.scores.items()
        return torch.stack([s.deviation(s.value(measured[name]), calibrated_on) for name, s in scores], dim=1)

    def check_filled(self) -> None:
        """Raise a ``RuntimeError`` if there is nothing to compare images with."""
        if not len(self.bank):
            msg = "the bank is empty: train the model (one epoch fills the bank) or load a checkpoint"
            raise RuntimeError(msg)

    def explain(self, images: torch.Tensor) -> list[Explanation]:
        """Say of each image which objects it has, which partners they have, and what is missing.

        Args:
            images: Normalised images, shape ``(N, 3, H, W)``.
        """
        return [explanation for image in images.split(1) for explanation in self._explain(image)]

    @torch.no_grad()
    def _explain(self, images: torch.Tensor) -> list[Explanation]:
        with full_precision(images.device):
            compared = self.compare(self.represent(images))
            of_objects = [score.of_objects(compared) for score in self.scores.values()]
            unusual = next(
                (one for one in of_objects if one is not None), torch.zeros_like(compared.query["boxes"][..., 0])
            )
            deviations = self.deviations(self.measure(compared))
            names = [(name, score.finding) for name, score in self.scores.items()]
            reasons = [
                [Reason(name, value, finding) for (name, finding), value in zip(names, values, strict=True)]
                for values in deviations.tolist()
            ]
            return explain(compared, unusual, soft_maximum(deviations), reasons)

    @torch.no_grad()
    def fit_encoder(self, images: torch.Tensor, features: list[torch.Tensor], seed: int = 0) -> None:
        """Calibrate the objects, and prepare the scores, once the features' statistics have been updated.

        Args:
            images: Normalised images, a sample of the normal ones, shape ``(Z, 3, H, W)``.
            features: Their :meth:`.Encoder.features`.
            seed: Seed of the clusterings.
        """
        self.encoder.fit_standardization(images, features)
        parts = zip(images.split(1), *(m.split(1) for m in features), strict=True)
        maps = (self.encoder.maps(image, list(scales)) for image, *scales in parts)
        everything, coarse = (torch.cat(field) for field in zip(*((m.all, m.coarse) for m in maps), strict=True))
        self.encoder.fit_objects(images, everything[:, : self.encoder.fine_channels], seed)
        self._prepared = {}
        with full_precision(images.device):
            for score in self.scores.values():
                self._prepared |= score.prepare(everything, coarse, seed)

    @torch.no_grad()
    def outline(self, images: torch.Tensor) -> Template:
        """Compute what is needed of normal images that the bank may not keep: their keys, and what scores learn."""
        maps = self.encoder.maps(images)
        with full_precision(images.device):
            template = {"key": maps.key}
            for score in self.scores.values():
                template |= score.outline(maps)
            return template

    @torch.no_grad()
    def fit(
        self,
        templates: Iterable[Template],
        number: int,
        left_out: Template | None = None,
        sample: Sequence[tuple[torch.Tensor, int | None]] = (),
        seed: int = 0,
    ) -> None:
        """Fill the bank and calibrate on it, each normal image against the others; :meth:`fit_encoder` comes before.

        Args:
            templates: Results of :meth:`represent` for the images that the bank keeps, a few at a time.
            number: How many they are in all.
            left_out: Outlines of all other normal images.
            sample: Some normal images, normalised, of shape ``(3, H, W)``, and their index in the bank or ``None``.
                Scores are trusted as far as they notice changes in them; without any, or with fewer than
                ``LEAST_FOR_TRUST`` images in the bank, all scores count fully.
            seed: Seed of all random choices.
        """
        with self.bank.cleared_on_failure():  # what is not calibrated must not be used
            self.matching.reset()
            for score in self.scores.values():
                score.reset()
            self._held_out = ()
            self.bank.fill(templates, number, seed)
            for score in self.scores.values():
                score.learn(self.bank, left_out, self._prepared, seed)
            if number < self.options.k:
                k = self.options.k
                logger.warning("the bank has %d images, fewer than k=%d: all of them are references", number, k)
            if number < 2:
                logger.warning("one normal image is not enough to calibrate: scores stay in units of distances")
                return
            self._calibrate_matching()
            self._calibrate_scores()
            self._calibrate_trust(sample, seed)

    def _calibrate_matching(self) -> None:
        everything = torch.arange(len(self.bank), device=self.bank.key.device)
        others = min(2, len(everything) - 1)
        nearest = torch.cat([self.bank.search(self.bank.key[i], others, i) for i in everything.split(64)])
        descriptors, boxes, valid = (self.bank.get(name, everything) for name in ("descriptors", "boxes", "valid"))
        self.matching.calibrate(descriptors, boxes, valid, nearest)

    def _calibrate_scores(self) -> None:
        """Learn unit, mean and standard deviation of each score from normal images, each compared with all others."""
        parts = with_progress(self.bank.held_out.unsqueeze(1), "comparing normal images with each other")
        self._held_out = [self.measure(self._compare_held_out(index)) for index in parts]
        for name, score in self.scores.items():
            score.calibrate([m[name] for m in self._held_out])

    def _calibrate_trust(self, sample: Sequence[tuple[torch.Tensor, int | None]], seed: int) -> None:
        """Learn how far the scores can be trusted: what they notice of changes, in proportion to the best of them.

        For the image score the change counts that a score notices best: one that alone knows one kind of defect counts
        fully. For the map the mean over the changes counts, of what is noticed times the share of the map that lies
        where the change is, in proportion to the score that locates it best: a map must show all kinds, and be low
        elsewhere. If no score notices any change by a standard deviation, all scores count fully.

        Args:
            sample: See :meth:`fit`.
            seed: Seed of the changes.
        """
        if not sample or len(self.bank) < LEAST_FOR_TRUST:
            return
        generator, noticed, located = torch.Generator().manual_seed(seed), [], []
        images = [self.encoder.pixels(image) for image, _ in sample]
        for what, change in CHANGES.items():
            measured, regions = [], []
            for i, (_, index) in enumerate(with_progress(sample, f"measuring what {what} changes")):
                changed = change(images[i], images[i - 1], generator).unsqueeze(0)
                exclude = None if index is None else torch.tensor([index], device=changed.device)
                template = self.represent(self.encoder.normalize(changed))
                measured.append(self.measure(self.compare(template, exclude)))
                regions.append((changed != images[i]).any(dim=1, keepdim=True).float())
            of_scores = [(score, [m[name] for m in measured]) for name, score in self.scores.items()]
            of_change = torch.stack([score.notice(one) for score, one in of_scores])
            noticed.append(_shares(of_change, least=1))  # less than one deviation is chance
            located.append(_shares(torch.stack([score.locate(one, torch.cat(regions)) for score, one in of_scores])))
        of_images = torch.stack(noticed).amax(dim=0)
        of_maps = _shares((torch.stack(noticed) * torch.stack(located)).mean(dim=0))
        if of_images.amax() == 1:  # some change is noticed by more than chance
            for score, of_image, of_map in zip(self.scores.values(), of_images, of_maps, strict=True):
                score.trust.copy_(of_image)
                score.map_trust.copy_(of_map)

    def _compare_held_out(self, index: torch.Tensor) -> Comparison:
        """Compare images of the bank with all others."""
        return self.compare(self.bank.template(index), index)

    @torch.no_grad()
    def held_out_predictions(self) -> Iterator[InferenceBatch]:
        """Predict normal images of the bank as if they were new: each compared with all others.

        Thresholds and limits can be measured on them. They are those that the scores were calibrated on, at most
        ``HELD_OUT``. A bank of one image has none. The first call after a fit takes what the fit measured.

        Yields:
            One image each: ``pred_score`` of shape ``(1,)`` and ``anomaly_map`` of shape ``(1, 1, H, W)``.
        """
        sample = self.bank.held_out
        known, self._held_out = self._held_out, ()
        for i, index in enumerate(with_progress(sample.unsqueeze(1), "measuring thresholds on the bank's images")):
            measured = known[i] if known else self.measure(self._compare_held_out(index))
            yield self.predict(measured, calibrated_on=len(sample))

    def free_fit_data(self) -> None:
        """Free what only a fit and its thresholds need."""
        self._prepared, self._held_out = {}, ()


def _shares(values: torch.Tensor, least: float = 1e-6) -> torch.Tensor:
    """Values in proportion to the highest of them, or to ``least`` if that is more."""
    return values / values.amax().clamp_min(least)


def soft_maximum(deviations: torch.Tensor) -> torch.Tensor:
    """Soft maximum over the scores: a little above the highest if several are high.

    Args:
        deviations: Result of :meth:`SamLadModel.deviations`, shape ``(N, S)``.

    Returns:
        Image scores, shape ``(N,)``.
    """
    return (SHARPNESS * deviations).logsumexp(dim=1) / SHARPNESS

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What SAM-LAD learns from normal images: objects, bank, and what is usual when one is compared with the others."""

import logging
from collections.abc import Iterator, Sequence

import torch
from anomalib.data import InferenceBatch
from torch import nn

from anomalib_logic._progress import with_progress
from anomalib_logic.models.components.precision import full_precision

from .bank import Template
from .scoring import Comparison, exchange_windows

logger = logging.getLogger(__name__)

CALIBRATION_IMAGES = 200  # most normals that are compared with the other normals
EXCHANGED = 60  # most parts of the normals in which windows change places
CHUNK = 1  # images compared at a time while fitting and testing


class BankFitting(nn.Module):
    """The fit of :class:`.torch_model.SamLadModel`, which has the networks and the comparison."""

    _held_out: Sequence[Comparison] = ()  # normals compared with all others, from a fit to its thresholds

    def forget_comparisons(self) -> None:
        """Free what :meth:`held_out_predictions` would take from the fit."""
        self._held_out = ()

    def sample_size(self, most: int, most_bytes: int) -> int:
        """Images whose enlarged features just reach so many bytes, not more than ``most``."""
        size = 4 * sum(self.backbone.channels) * self.grid[0] * self.grid[1]
        return min(most, -(-most_bytes // size))

    @torch.no_grad()
    def fit_objects(self, images: torch.Tensor, features: torch.Tensor, seed: int = 0) -> None:
        """Calibrate the objects and cluster for the composition, on a sample of the normals.

        Args:
            images: Normalised images, shape ``(Z, 3, H, W)``.
            features: Result of :meth:`enlarge`, shape ``(Z, C, H, W)``.
            seed: Seed of the clusterings.
        """
        if self.upsampler is not None and not self.upsampler.loaded:
            logger.warning("the up-sampler has random weights: pass upsampler_weights=FILE, or None for bilinear ones")
        logger.info("finding objects in %d images", len(images))
        self.objects.fit(self._normalize_for_objects(images), features[:, : self.fine], seed)
        if self.composition is not None:
            self.composition.fit(features, seed)

    @torch.no_grad()
    def fit(self, templates: list[Template], seed: int = 0) -> None:
        """Fill the bank and calibrate on it, each normal against the others.

        Args:
            templates: Results of :meth:`represent` for all normals.
            seed: Seed of all random choices.
        """
        self.matching.reset()
        self.scoring.reset()
        self.forget_comparisons()
        kept = self.bank.fill(templates, self.coreset, seed)
        number = len(self.bank)
        if self.composition is not None:
            histograms = torch.cat([batch.histogram for batch in templates])
            left = torch.ones(len(histograms), dtype=torch.bool, device=kept.device).index_fill(0, kept, False)
            self.composition.fit_gaussian(torch.cat([histograms[kept], histograms[left]]))  # the bank's order first
        if number < self.k:
            logger.warning("the bank has %d images, fewer than k=%d: all of them are references", number, self.k)
        if number < 2:
            logger.warning("one normal image is not enough to calibrate: scores stay in units of distances")
            return
        everything = torch.arange(number, device=self.bank.key.device)
        neighbors = torch.cat(
            [self.bank.search(self.bank.get("key", part), min(2, number - 1), part) for part in everything.split(64)]
        )
        self.matching.calibrate(
            *(self.bank.get(name, everything) for name in ("descriptors", "boxes", "valid")), neighbors
        )
        self._calibrate_scoring(seed)

    def _calibrate_scoring(self, seed: int) -> None:
        """Learn what is usual, from normals that are compared with all others."""
        sample = self._calibration_sample()
        parts = sample.split(CHUNK)
        # Templates are large and are read again: only the comparisons are kept.
        what = "comparing normal images with each other"
        compared = [self.compare(self.bank.template(part), exclude=part) for part in with_progress(parts, what)]
        self._held_out = compared
        inside = self.bank.get("crop_masks", sample) > 0.5
        self.scoring.calibrate_distances(compared, self.bank.get("valid", sample), inside)
        maps = [self.scoring.distance_maps(self.bank.template(p), c) for p, c in zip(parts, compared, strict=True)]
        scores = [self.scoring.image_scores(m, c) for m, c in zip(maps, compared, strict=True)]
        self.scoring.calibrate_scores(torch.cat(scores))
        self.scoring.calibrate_trust(compared, self._exchange(parts, compared, seed))
        self.scoring.calibrate_map(torch.cat(maps))

    def _calibration_sample(self) -> torch.Tensor:
        """Indices of the normals that are compared with the others, at equal distances; none if there is no other."""
        number = len(self.bank)
        everything = torch.arange(number if number > 1 else 0, device=self.bank.key.device)
        return everything[:: max(1, -(-number // CALIBRATION_IMAGES))]

    @torch.no_grad()
    def held_out_predictions(self) -> Iterator[InferenceBatch]:
        """Predict normals of the bank as if they were new: each compared with all other normals.

        Thresholds and limits can be measured on them. They are the normals that the scores were calibrated on, at most
        ``CALIBRATION_IMAGES``. A bank of one image has none. The first call after a fit takes the fit's comparisons.

        Yields:
            One image each: ``pred_score`` of shape ``(1,)`` and ``anomaly_map`` of shape ``(1, 1, H, W)``.
        """
        sample = self._calibration_sample()
        known, self._held_out = self._held_out, ()
        for i, index in enumerate(with_progress(sample.unsqueeze(1), "measuring thresholds on the bank's images")):
            query = self.bank.template(index)
            compared = known[i] if known else self.compare(query, exclude=index)
            yield self.score(query, compared, calibrated_on=len(sample))

    def _exchange(self, parts: Sequence[torch.Tensor], compared: list[Comparison], seed: int) -> list[Comparison]:
        """Compare some normals again after two windows of their features changed places; none without places."""
        if self.align != "combined":
            return []
        generator = torch.Generator().manual_seed(seed)
        exchanged = []
        indices = range(0, len(parts), -(-len(parts) // EXCHANGED))
        for i in with_progress(indices, "measuring how much places count"):
            features = exchange_windows(self.bank.get("coarse", parts[i]), generator)
            with full_precision(features.device):
                exchanged.append(compared[i]._replace(**self._measure_places(features, parts[i])))
        return exchanged

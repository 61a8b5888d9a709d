# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What all scores have in common: units, calibration on normal images, and how far they can be trusted."""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from anomalib.models.components import DynamicBufferMixin
from torch.nn import functional as F

from anomalib_logic.models.components.image_score import ImageScore, summarize
from anomalib_logic.models.components.upsampling import resize

from ..bank import Bank, Template
from ..comparison import Comparison
from ..encoder import Found, Maps
from ..median import lower_median

TOP_SHARE = 0.005  # share of the map's positions that the image score "top" averages


class Measured(NamedTuple):
    """What a score measures of images.

    Attributes:
        map: How unusual each position is, shape ``(N, h, w)``, of any resolution.
        value: How unusual the images are, shape ``(N,)``; by default what the map's image score is.
    """

    map: torch.Tensor
    value: torch.Tensor | None = None


class Score(DynamicBufferMixin):
    """One way in which an image can be unusual.

    A subclass says what it keeps of each image, and has :meth:`measure`; most need :meth:`learn`. It enters the model
    by one line of :func:`.build_scores`.

    Args:
        side: Height and width of the maps.
        shape: Height and width of ``unit``; by default it is the same at all positions.

    Attributes:
        IMAGES: Fields that the bank keeps of each image, and their types.
        OBJECTS: Fields that it keeps of each object.
        SAMPLED: Fields that it keeps of the images only that are compared with all others.
        LEAST_DEVIATION: Least standard deviation of the value over normal images: smaller differences do not count.
        finding: What a high value says, as a subject: "... is unusual".
        MARKS: The map says by how much something is wrong, 0 where nothing is, and not how far features are from normal
            ones.
        unit: What maps are divided by, a scalar, or one for each position; see :meth:`typical`.
        mean, std: Of the value over normal images, each compared with all others.
        map_mean, map_std: Of the highest value of the map, as a multiple of ``unit``; the same as ``mean`` and ``std``
            if the score has no value of its own and ``image_score`` is ``"max"``.
        trust: How far the value counts, in [0, 1], see :meth:`.SamLadModel.fit`.
        map_trust: How far the map counts, in [0, 1].
    """

    IMAGES: ClassVar[Mapping[str, torch.dtype]] = {}
    OBJECTS: ClassVar[Mapping[str, torch.dtype]] = {}
    SAMPLED: ClassVar[Mapping[str, torch.dtype]] = {}
    LEAST_DEVIATION: ClassVar[float] = 0.05
    MARKS: ClassVar[bool] = False

    finding: str
    image_score: ImageScore = "max"

    def __init__(self, side: int, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.size = (side, side)
        self.register_buffer("unit", torch.ones(shape))
        self.register_buffer("mean", torch.tensor(0.0))
        self.register_buffer("std", torch.tensor(1.0))
        self.register_buffer("map_mean", torch.tensor(0.0))
        self.register_buffer("map_std", torch.tensor(1.0))
        self.register_buffer("trust", torch.tensor(1.0))
        self.register_buffer("map_trust", torch.tensor(1.0))

    def keep(self, maps: Maps, found: Found) -> Template:
        """Compute the fields of ``IMAGES``, ``OBJECTS`` and ``SAMPLED`` of images."""
        del maps, found
        return {}

    def outline(self, maps: Maps) -> Template:
        """Compute what :meth:`learn` needs of normal images that the bank does not keep."""
        del maps
        return {}

    def prepare(self, features: torch.Tensor, coarse: torch.Tensor, seed: int) -> Template:
        """Learn from features of a sample of the normal images what :meth:`keep` needs.

        Args:
            features: Their :attr:`.Maps.all`, shape ``(Z, C, H, W)``.
            coarse: Their :attr:`.Maps.coarse`, shape ``(Z, C'', h, w)``.
            seed: Seed of random choices.

        Returns:
            What :meth:`learn` needs of the sample.
        """
        del features, coarse, seed
        return {}

    def learn(self, bank: Bank, left_out: Template | None, prepared: Template, seed: int) -> None:
        """Learn from the normal images what :meth:`measure` needs.

        Args:
            bank: The normal images.
            left_out: Outlines of those that it does not keep, if any.
            prepared: Results of :meth:`prepare` of all scores, together.
            seed: Seed of random choices.
        """

    def measure(self, compared: Comparison) -> Measured:
        """Measure images that were compared with the bank."""
        raise NotImplementedError

    def of_objects(self, compared: Comparison) -> torch.Tensor | None:
        """Measure how unusual each object is, for explanations, shape ``(N, K)``; by default that is not known."""
        del compared
        return None

    def draw(self, measured: Measured) -> torch.Tensor:
        """Map as a multiple of ``unit``, shape ``(N, s, s)``."""
        return resize((measured.map / self.unit).unsqueeze(1), self.size).squeeze(1)

    def excess(self, measured: Measured) -> torch.Tensor:
        """How far each position lies above the highest one of normal images, times its trust, shape ``(N, s, s)``.

        In standard deviations of that highest value, with a soft limit at 0: what is below it says nothing. A map that
        ``MARKS`` is taken as it is, as a multiple of ``unit``: it is 0 where nothing is wrong.
        """
        drawn = self.draw(measured)
        return self.map_trust * (drawn if self.MARKS else F.softplus((drawn - self.map_mean) / self.map_std))

    def value(self, measured: Measured) -> torch.Tensor:
        """How unusual images are, shape ``(N,)``."""
        if measured.value is not None:
            return measured.value
        return summarize(self.draw(measured), self.image_score, TOP_SHARE)

    def typical(self, maps: torch.Tensor) -> torch.Tensor:
        """Unit, from the maps of normal images, shape ``(Z, h, w)``: the mean where there is anything."""
        some = maps[maps > 0]
        return some.mean() if len(some) else torch.ones_like(self.unit)

    def reset(self) -> None:
        """Forget an earlier calibration."""
        for buffer in (self.unit, self.std, self.map_std, self.trust, self.map_trust):
            buffer.fill_(1.0)
        self.mean.fill_(0.0)
        self.map_mean.fill_(0.0)

    def calibrate(self, measured: list[Measured]) -> None:
        """Learn unit, means and standard deviations.

        Args:
            measured: Normal images, each compared with all others.
        """
        self.unit.copy_(self.typical(torch.cat([m.map for m in measured])).clamp_min(1e-6))
        values = torch.cat([self.value(m) for m in measured])
        highest = torch.cat([self.draw(m).flatten(1).amax(dim=1) for m in measured])
        for of, mean, std in ((values, self.mean, self.std), (highest, self.map_mean, self.map_std)):
            mean.copy_(of.mean())
            std.copy_(of.std().clamp_min(self.LEAST_DEVIATION))

    def deviation(self, value: torch.Tensor, calibrated_on: int | None = None) -> torch.Tensor:
        """Deviation from the mean of normal images in standard deviations, times the trust, shape ``(N,)``.

        Args:
            value: Result of :meth:`value`.
            calibrated_on: Number of normal images of the calibration, n, if these images are of them. Mean and
                deviation are then those of the others: with its own share in them, none of a few could deviate far,
                not by more than ``(n - 1) / sqrt(n)``.
        """
        mean, std, number = self.mean, self.std, calibrated_on
        if number is not None and number > 2:
            mean = (number * self.mean - value) / (number - 1)
            squares = (number - 1) * self.std.square() - number / (number - 1) * (value - self.mean).square()
            std = (squares / (number - 2)).clamp_min(0).sqrt().clamp_min(self.LEAST_DEVIATION)
        return self.trust * (value - mean) / std

    def notice(self, changed: list[Measured]) -> torch.Tensor:
        """Median deviation of normal images after a change that should raise the score, at least 0, a scalar."""
        values = torch.cat([self.value(m) for m in changed])
        return lower_median((values - self.mean) / self.std).clamp_min(0)

    def locate(self, changed: list[Measured], regions: torch.Tensor) -> torch.Tensor:
        """Share of what the map shows of changed normal images that lies where they were changed, their mean, a scalar.

        That is the energy-based pointing game of Score-CAM (https://arxiv.org/abs/1910.01279).

        Args:
            changed: What was measured of N images.
            regions: 1 where their pixels were changed, otherwise 0, shape ``(N, 1, H, W)``.
        """
        shown = torch.cat([self.excess(m) for m in changed])
        shown_inside = shown * resize(regions, self.size).squeeze(1)
        inside, all_of_it = (maps.flatten(1).sum(dim=1) for maps in (shown_inside, shown))
        return (inside / all_of_it.clamp_min(1e-6)).mean()  # nothing shown is nothing located

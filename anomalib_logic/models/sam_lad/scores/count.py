# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Objects too many, and objects that are missing."""

from typing import ClassVar

import torch

from ..comparison import Comparison
from .score import Measured, Score


class Count(Score):
    """Number of objects without partner and of missing ones, averaged over the references."""

    finding = "the number of objects"
    LEAST_DEVIATION: ClassVar[float] = 0.3
    MARKS: ClassVar[bool] = True

    def measure(self, compared: Comparison) -> Measured:
        """Where objects are too many, where missing ones should be, and how many both are."""
        surplus, missing = compared.surplus, compared.missing
        masks = compared.bank.get("masks", compared.references)
        too_many = (compared.query["masks"] * surplus[..., None, None]).amax(dim=1)
        too_few = (masks * missing[..., None, None]).amax(dim=2).mean(dim=1)
        number = surplus.float().sum(dim=1) + missing.float().sum(dim=2).mean(dim=1)
        return Measured(torch.maximum(too_many, too_few), number)

    def typical(self, maps: torch.Tensor) -> torch.Tensor:
        """Always 1: an object more or less is one."""
        del maps
        return torch.ones_like(self.unit)

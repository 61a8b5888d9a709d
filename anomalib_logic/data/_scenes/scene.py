# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What every category's scene has: parts that obey a rule, defects, and a drawing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .canvas import Canvas
from .damage import Harm


@dataclass(frozen=True)
class Saturation:
    """How much of a defect has to be found.

    Args:
        value: Share of the defect's area if ``relative``, else of the image's.
        relative: Whether the value is a share of the defect's area.
    """

    value: float = 1.0
    relative: bool = True

    def threshold(self, image_size: int) -> float:
        """Value for ``defects_config.json``: a share, or pixels of an image of this height and width."""
        return self.value if self.relative else float(max(1, round(self.value * image_size**2)))


class Scene(ABC):
    """The parts of one picture, arranged by a category's rule.

    Everything random is drawn when the scene is made or spoiled, so that a defect changes nothing else of the drawing.

    Args:
        rng: Source of the arrangement.
    """

    logical: ClassVar[dict[str, Saturation]]
    structural: ClassVar[dict[str, Harm]]

    @abstractmethod
    def __init__(self, rng: np.random.Generator) -> None: ...

    @abstractmethod
    def spoil(self, defect: str, rng: np.random.Generator) -> None:
        """Break the rule by one of the logical defects, or note a structural one that the drawing itself shows."""

    @abstractmethod
    def draw(self, canvas: Canvas) -> None:
        """Draw all parts, note the surfaces and mark what ``spoil`` changed."""

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Order: six wires leave a plug in the order of the colours, and the seventh place stays empty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .canvas import Canvas
from .damage import Harm, crack, fibre, stain, wear
from .scene import Saturation, Scene
from .shapes import band, box, curve

ORDER = ("brown", "red", "orange", "yellow", "green", "blue")

_COLOURS = {
    "brown": (0.36, 0.20, 0.11),
    "red": (0.76, 0.10, 0.10),
    "orange": (0.93, 0.48, 0.08),
    "yellow": (0.93, 0.82, 0.16),
    "green": (0.10, 0.52, 0.22),
    "blue": (0.10, 0.26, 0.66),
}
_SLOTS = np.linspace(0.17, 0.83, 7)
_WIDTH = 0.046
_PLUG_END, _SHEATH_END = 0.28, 0.84  # heights
_COURSE = 1.5  # width of a missing wire's place, in widths of a wire
_COPPER = (0.78, 0.46, 0.25)


@dataclass
class Wire:
    """One wire; ``bends`` are the control points of its course, ``cut`` the ends of a gap as shares of its length."""

    slot: int
    colour: str
    bends: np.ndarray
    tint: float
    there: bool = True
    wrong: bool = False
    cut: tuple[float, float] | None = None

    def course(self) -> np.ndarray:
        """Path from the plug into the sheath."""
        start = np.array([(_SLOTS[self.slot], 0.26), (_SLOTS[self.slot], 0.38)])
        end = 0.5 + 0.023 * (self.slot - 2.75)
        return curve(np.concatenate([start, self.bends, [(end, 0.79), (end, 0.87)]]), 60)

    def visible(self) -> np.ndarray:
        """The part of the path between plug and sheath."""
        course = self.course()
        return course[(course[:, 1] > _PLUG_END) & (course[:, 1] < _SHEATH_END)]


class WirePlug(Scene):
    """``wires`` holds the wires by slot, the last of them the one that normally is not there."""

    logical = {
        "swapped_wires": Saturation(),
        "wrong_colour": Saturation(),
        "missing_wire": Saturation(1 / _COURSE),
        "surplus_wire": Saturation(),
        "wrong_slot": Saturation(1 / _COURSE),
    }
    structural = {
        "cut_wire": Harm(),
        "worn_insulation": Harm(wear, ("wire",)),
        "scorched_housing": Harm(stain, ("housing",)),
        "cracked_housing": Harm(crack, ("housing",)),
        "foreign_fibre": Harm(fibre, ("wire", "housing")),
    }

    def __init__(self, rng: np.random.Generator) -> None:
        self.table = np.array((0.72, 0.74, 0.72)) * rng.uniform(0.9, 1.07)
        self.housing = np.array((0.90, 0.90, 0.87)) * rng.uniform(0.94, 1.03)
        lean = rng.normal(0, 0.022)
        self.wires = []
        for slot in range(7):
            middle = 0.5 + 0.45 * (_SLOTS[slot] - 0.5)
            bends = np.array([(0.35 * middle + 0.65 * _SLOTS[slot], 0.50), (middle, 0.66)])
            bends += rng.normal((lean, 0), 0.014, (2, 2))
            colour = ORDER[slot] if slot < 6 else str(rng.choice(ORDER))
            self.wires.append(Wire(slot, colour, bends, rng.normal(1, 0.05), there=slot < 6))
        self.gone: list[Wire] = []

    def spoil(self, defect: str, rng: np.random.Generator) -> None:
        """Change the order, the colours or the number of the wires."""
        first, second = (self.wires[k] for k in rng.choice(6, 2, replace=False))
        if defect == "swapped_wires":
            first.colour, second.colour = second.colour, first.colour
            first.wrong = second.wrong = True
        elif defect == "wrong_colour":
            first.colour, first.wrong = second.colour, True
        elif defect == "missing_wire":
            first.there = False
            self.gone = [first]
        elif defect == "surplus_wire":
            self.wires[6].there = self.wires[6].wrong = True
        elif defect == "wrong_slot":
            last, free = self.wires[5], self.wires[6]
            last.there, free.there, free.wrong = False, True, True
            free.colour, free.tint = last.colour, last.tint
            self.gone = [last]
        elif defect == "cut_wire":
            start = rng.uniform(0.25, 0.5)
            first.cut = (start, start + rng.uniform(0.10, 0.14))

    def draw(self, canvas: Canvas) -> None:
        """Draw the table, the wires, the sheath and the plug."""
        canvas.ground(self.table, fine=0.02, rough=0.02)
        for wire in self.wires:
            if wire.there:
                self._draw_wire(canvas, wire)
        for wire in self.gone:
            canvas.mark(canvas.shape(band(wire.visible(), _COURSE * _WIDTH)))
        sheath = canvas.shape(box(0.5, 0.95, 0.225, 0.24, radius=0.03))
        canvas.paint(sheath, (0.22, 0.23, 0.25), rim=0.06, shadow=0.4, gloss=0.2, rough=0.02)
        self._draw_plug(canvas)

    def _draw_wire(self, canvas: Canvas, wire: Wire) -> None:
        course = wire.course()
        pieces = [course]
        if wire.cut is not None:
            low, high = (round(share * len(course)) for share in wire.cut)
            pieces = [course[:low], course[high:]]
            for tip in (course[low - 2 : low + 2], course[high - 2 : high + 2]):
                canvas.paint(canvas.shape(band(tip, 0.5 * _WIDTH)), _COPPER, rim=0.01, shadow=0.3, gloss=0.4)
            canvas.mark(canvas.shape(band(course[low - 1 : high + 1], _WIDTH)))
        colour = np.array(_COLOURS[wire.colour]) * wire.tint
        for piece in pieces:
            canvas.paint(canvas.shape(band(piece, _WIDTH)), colour, rim=0.022, shadow=0.4, gloss=0.3)
        canvas.surface("wire", canvas.shape(band(course[12:32], _WIDTH)))
        if wire.wrong:
            canvas.mark(canvas.shape(band(wire.visible(), _WIDTH)))

    def _draw_plug(self, canvas: Canvas) -> None:
        housing = canvas.shape(box(0.5, 0.185, 0.84, 0.215, radius=0.018))
        canvas.paint(housing, self.housing, rim=0.014, shadow=0.45, gloss=0.2, rough=0.008)
        canvas.paint(canvas.shape(box(0.5, 0.075, 0.30, 0.03, radius=0.008)), self.housing * 0.9, rim=0.01, shadow=0.3)
        for x in _SLOTS:
            canvas.paint(
                canvas.shape(box(x, 0.165, 0.058, 0.075, radius=0.006)), self.housing * 0.5, rim=0.012, hollow=True
            )
            canvas.paint(
                canvas.shape(box(x, 0.165, 0.026, 0.050, radius=0.004)), (0.80, 0.68, 0.36), rim=0.008, gloss=0.5
            )
            mouth = canvas.shape(box(x, 0.270, 0.060, 0.034, radius=0.006))
            canvas.paint(mouth, self.housing * 0.86, rim=0.008)
        canvas.surface("housing", canvas.shape(box(0.33, 0.19, 0.32, 0.17)))
        canvas.surface("housing", canvas.shape(box(0.67, 0.19, 0.32, 0.17)))

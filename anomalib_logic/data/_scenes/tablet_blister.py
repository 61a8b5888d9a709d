# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Fixed places: a blister card with 12 pockets, exactly one round white tablet in each."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .canvas import Canvas, Shape
from .damage import Harm, crack, crumbs, scratch, stain
from .scene import Saturation, Scene
from .shapes import box, curve, ellipse, move

_COLUMNS = (0.185, 0.395, 0.605, 0.815)
_ROWS = (0.25, 0.5, 0.75)
_POCKET = 0.082
_TABLET = 0.060
_AREA = Saturation(math.pi * _TABLET**2, relative=False)
_WRONG_COLOURS = ((0.55, 0.68, 0.86), (0.88, 0.62, 0.62), (0.85, 0.76, 0.45))


@dataclass
class Tablet:
    """One tablet; ``broken`` is the direction in which a piece is missing."""

    x: float
    y: float
    angle: float
    colour: np.ndarray
    oblong: bool = False
    wrong: bool = False
    broken: float | None = None

    def outlines(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """Outline and holes."""
        if self.oblong:
            return box(self.x, self.y, 2.35 * _TABLET, 1.05 * _TABLET, self.angle, 0.5 * _TABLET), []
        holes = []
        if self.broken is not None:
            jagged = np.array([(0.15, -1.3), (0.38, -0.55), (0.2, -0.2), (0.42, 0.1), (0.22, 0.5), (0.4, 1.3)])
            piece = np.concatenate([jagged, [(1.5, 1.3), (1.5, -1.3)]]) * _TABLET
            holes.append(move(piece, self.x, self.y, self.broken))
        return ellipse(self.x, self.y, _TABLET), holes


class TabletBlister(Scene):
    """``pockets`` holds the tablets of each pocket, ``loose`` those on the foil."""

    logical = {
        "missing_tablet": _AREA,
        "surplus_tablet": _AREA,
        "wrong_tablet": Saturation(),
        "misplaced_tablet": _AREA,
    }
    structural = {
        "broken_tablet": Harm(),
        "stained_tablet": Harm(stain, ("tablet",)),
        "cracked_tablet": Harm(crack, ("tablet",)),
        "scratched_foil": Harm(scratch, ("foil",)),
        "contamination": Harm(crumbs, ("foil", "tablet")),
    }

    def __init__(self, rng: np.random.Generator) -> None:
        self.colour = np.array((0.90, 0.89, 0.86)) + rng.normal(0, 0.015, 3)
        self.foil = np.array((0.60, 0.61, 0.63)) * rng.uniform(0.9, 1.08)
        self.table = np.array((0.25, 0.33, 0.38)) * rng.uniform(0.85, 1.15)
        self.wrinkles = rng.uniform(0.12, 0.88, (5, 2)), rng.normal(0, 0.5, 5)
        self.places = [(x, y) for y in _ROWS for x in _COLUMNS]
        self.pockets = [[self._tablet(x, y, rng)] for x, y in self.places]
        self.loose: list[Tablet] = []
        self.empty: int | None = None

    def _tablet(self, x: float, y: float, rng: np.random.Generator) -> Tablet:
        """A tablet that lies somewhere in its pocket."""
        dx, dy = rng.uniform(-0.012, 0.012, 2)
        return Tablet(x + dx, y + dy, rng.uniform(0, math.pi), self.colour + rng.normal(0, 0.01, 3))

    def spoil(self, defect: str, rng: np.random.Generator) -> None:
        """Change one pocket."""
        at = int(rng.integers(len(self.pockets)))
        tablet = self.pockets[at][0]
        if defect in ("missing_tablet", "misplaced_tablet"):
            self.empty = at
            self.pockets[at] = []
        if defect == "misplaced_tablet":
            column, row = rng.integers(3), rng.integers(2)
            x, y = (sum(pair) / 2 for pair in (_COLUMNS[column : column + 2], _ROWS[row : row + 2]))
            self.loose = [Tablet(x + rng.normal(0, 0.01), y, tablet.angle, tablet.colour, wrong=True)]
        elif defect == "surplus_tablet":
            angle = rng.uniform(0, 2 * math.pi)
            x, y = tablet.x + 0.045 * math.cos(angle), tablet.y + 0.045 * math.sin(angle)
            self.pockets[at].append(Tablet(x, y, rng.uniform(0, math.pi), tablet.colour))
            tablet.x, tablet.y = tablet.x - 0.025 * math.cos(angle), tablet.y - 0.025 * math.sin(angle)
            for each in self.pockets[at]:
                each.wrong = True
        elif defect == "wrong_tablet":
            tablet.wrong = True
            tablet.oblong = bool(rng.integers(2))
            if not tablet.oblong:
                tablet.colour = np.array(_WRONG_COLOURS[rng.integers(3)])
        elif defect == "broken_tablet":
            tablet.broken = rng.uniform(0, 2 * math.pi)

    def draw(self, canvas: Canvas) -> None:
        """Draw table, card, pockets and tablets."""
        canvas.ground(self.table, rough=0.03)
        card = canvas.shape(box(0.5, 0.5, 0.90, 0.82, radius=0.035))
        canvas.paint(card, self.foil, rim=0.010, shadow=0.45, grain=0.035)
        for (x, y), angle in zip(*self.wrinkles, strict=True):
            fold = move(curve(np.array([(-0.1, 0), (0, 0.02), (0.1, 0)])), x, y, angle)
            canvas.paint(canvas.within(canvas.line(fold, 0.004), card), (0.85, 0.86, 0.88), opacity=0.35)
        canvas.surface("foil", canvas.shape(box(0.5, 0.375, 0.8, 0.07)))
        canvas.surface("foil", canvas.shape(box(0.5, 0.625, 0.8, 0.07)))
        for at, (x, y) in enumerate(self.places):
            pocket = canvas.shape(ellipse(x, y, _POCKET))
            canvas.paint(pocket, self.foil * 1.12, rim=0.014, gloss=0.5, grain=0.02)
            canvas.paint(canvas.shape(ellipse(x, y, _POCKET - 0.008)), self.foil * 0.72, rim=0.012, hollow=True)
            if at == self.empty:
                canvas.mark(pocket)
            self._draw_tablets(canvas, self.pockets[at])
            canvas.paint(self._glare(canvas, x, y), (1.0, 1.0, 1.0), opacity=0.30)
        self._draw_tablets(canvas, self.loose)

    def _draw_tablets(self, canvas: Canvas, tablets: list[Tablet]) -> None:
        wrong = []
        for tablet in tablets:
            outline, holes = tablet.outlines()
            body = canvas.shape(outline, holes=holes)
            canvas.paint(body, tablet.colour, rim=0.022, shadow=0.45, gloss=0.1, rough=0.012)
            cos, sin = math.cos(tablet.angle), math.sin(tablet.angle)
            score = np.array([(-cos, -sin), (cos, sin)]) * 0.8 * _TABLET + (tablet.x, tablet.y)
            if not tablet.oblong:
                canvas.paint(canvas.within(canvas.line(score, 0.006), body), tablet.colour * 0.72, opacity=0.9)
            canvas.surface("tablet", body)
            if tablet.wrong:
                wrong.append(body)
            if tablet.broken is not None:
                canvas.mark(canvas.within(canvas.shape(ellipse(tablet.x, tablet.y, _TABLET)), canvas.shape(holes[0])))
        if wrong:
            canvas.mark(*wrong)

    def _glare(self, canvas: Canvas, x: float, y: float) -> Shape:
        """Reflection in the dome over a pocket."""
        turns = np.linspace(-0.5, 0.5, 12) + math.atan2(canvas.light[1], canvas.light[0])
        path = np.stack([x + 0.068 * np.cos(turns), y + 0.068 * np.sin(turns)], 1)
        return canvas.line(path, 0.009)

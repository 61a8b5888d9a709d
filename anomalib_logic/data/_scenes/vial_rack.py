# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Pairs that agree: four vials stand in a rack, and each cap has the colour of its own label's stripe."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .canvas import Canvas, Shape
from .damage import Harm, crack, dent, fibre, stain
from .scene import Saturation, Scene
from .shapes import box

COLOURS = {
    "red": (0.76, 0.13, 0.13),
    "blue": (0.12, 0.32, 0.70),
    "green": (0.12, 0.52, 0.26),
    "yellow": (0.90, 0.72, 0.14),
}
_PLACES = (0.155, 0.385, 0.615, 0.845)
_CAP = (0.135, 0.125)  # width and height
_LABEL = (0.150, 0.215)
_STRIPE = (0.150, 0.068)
_CAP_Y, _LABEL_Y, _STRIPE_Y = 0.195, 0.535, 0.482
_STRIPE_SHARE = _STRIPE[0] * _STRIPE[1] / (_STRIPE[0] * _STRIPE[1] + _CAP[0] * _CAP[1])


@dataclass
class Vial:
    """One vial; ``None`` is no cap or no label."""

    x: float
    y: float
    cap: str | None
    label: str | None
    level: float
    liquid: np.ndarray
    tint: float
    lines: np.ndarray
    wrong: bool = False


class VialRack(Scene):
    """``vials`` holds the vials from left to right."""

    logical = {
        "wrong_cap": Saturation(_STRIPE_SHARE),
        "swapped_caps": Saturation(_STRIPE_SHARE),
        "missing_cap": Saturation(),
        "missing_label": Saturation(),
    }
    structural = {
        "cracked_glass": Harm(crack, ("glass",)),
        "stained_label": Harm(stain, ("label",)),
        "dented_cap": Harm(dent, ("cap",)),
        "foreign_fibre": Harm(fibre, ("glass", "label")),
    }

    def __init__(self, rng: np.random.Generator) -> None:
        self.wall = np.array((0.80, 0.83, 0.84)) * rng.uniform(0.92, 1.06)
        self.rack = np.array((0.63, 0.48, 0.32)) * rng.uniform(0.88, 1.1)
        names = [str(name) for name in rng.choice(list(COLOURS), 4)]
        if len(set(names)) == 1:  # two of one rack must be able to swap their caps
            names[int(rng.integers(4))] = str(rng.choice([name for name in COLOURS if name != names[0]]))
        self.vials = [
            Vial(
                x=x + rng.normal(0, 0.005),
                y=rng.normal(0, 0.004),
                cap=name,
                label=name,
                level=rng.uniform(0.345, 0.375),
                liquid=np.array((0.82, 0.74, 0.52)) * rng.uniform(0.93, 1.05),
                tint=rng.normal(1, 0.04),
                lines=rng.uniform(0.05, 0.11, 3),
            )
            for x, name in zip(_PLACES, names, strict=True)
        ]

    def spoil(self, defect: str, rng: np.random.Generator) -> None:
        """Change the cap or the label of one vial, or swap the caps of two."""
        if defect == "swapped_caps":
            pairs = [(a, b) for a in self.vials for b in self.vials if a.x < b.x and a.cap != b.cap]
            first, second = pairs[rng.integers(len(pairs))]
            first.cap, second.cap = second.cap, first.cap
            first.wrong = second.wrong = True
            return
        vial = self.vials[rng.integers(len(self.vials))]
        vial.wrong = True
        if defect == "wrong_cap":
            vial.cap = str(rng.choice([name for name in COLOURS if name != vial.label]))
        elif defect == "missing_cap":
            vial.cap = None
        else:
            vial.label = None

    def draw(self, canvas: Canvas) -> None:
        """Draw the wall, the vials and the rack's front board."""
        canvas.ground(self.wall, fine=0.012, rough=0.008)
        canvas.paint(canvas.shape(box(0.5, 0.94, 1.3, 0.28)), self.rack * 0.75, rough=0.03, grain=0.03)
        for vial in self.vials:
            self._draw_vial(canvas, vial)
        front = canvas.shape(box(0.5, 0.865, 0.97, 0.175, radius=0.015))
        canvas.paint(front, self.rack, rim=0.012, shadow=0.4, grain=0.03, rough=0.03)
        canvas.brush(0.02, front.window)

    def _draw_vial(self, canvas: Canvas, vial: Vial) -> None:
        x, y = vial.x, vial.y
        glass = canvas.shape(
            box(x, 0.575 + y, 0.170, 0.52, radius=0.035), box(x, 0.30 + y, 0.085, 0.14), box(x, 0.232 + y, 0.105, 0.034)
        )
        canvas.paint(glass, (0.80, 0.86, 0.87), opacity=0.85, rim=0.03, shadow=0.25, gloss=0.5)
        liquid = canvas.within(
            canvas.shape(box(x, (vial.level + 0.85) / 2 + y, 0.148, 0.85 - vial.level, radius=0.015)), glass
        )
        canvas.paint(liquid, vial.liquid, opacity=0.8, rim=0.05)
        label = canvas.shape(box(x, _LABEL_Y + y, *_LABEL, radius=0.006))
        stripe = canvas.shape(box(x, _STRIPE_Y + y, *_STRIPE))
        if vial.label is not None:
            self._draw_label(canvas, vial, label, stripe)
        canvas.paint(self._reflection(canvas, glass, x), (1.0, 1.0, 1.0), opacity=0.35)
        canvas.surface("glass", canvas.shape(box(x, 0.715 + y, 0.13, 0.11)))
        cap = canvas.shape(box(x, _CAP_Y + y, *_CAP, radius=0.016))
        if vial.cap is not None:
            self._draw_cap(canvas, vial, cap)
        if vial.wrong:
            canvas.mark(*self._wrong_parts(vial, cap, label, stripe))

    @staticmethod
    def _wrong_parts(vial: Vial, cap: Shape, label: Shape, stripe: Shape) -> tuple[Shape, ...]:
        if vial.label is None:
            return (label,)
        return (cap,) if vial.cap is None else (cap, stripe)

    @staticmethod
    def _draw_label(canvas: Canvas, vial: Vial, label: Shape, stripe: Shape) -> None:
        canvas.paint(label, np.array((0.95, 0.94, 0.90)) * (0.5 + vial.tint / 2), grain=0.01)
        canvas.paint(stripe, np.array(COLOURS[str(vial.label)]) * vial.tint, grain=0.02)
        for row, width in enumerate(vial.lines):
            left = vial.x - 0.062 + width / 2
            line = canvas.shape(box(left, 0.548 + 0.028 * row + vial.y, width, 0.010))
            canvas.paint(line, (0.30, 0.31, 0.34), opacity=0.8)
        canvas.surface("label", label)

    @staticmethod
    def _draw_cap(canvas: Canvas, vial: Vial, cap: Shape) -> None:
        colour = np.array(COLOURS[str(vial.cap)]) * vial.tint
        canvas.paint(cap, colour, rim=0.035, shadow=0.3, gloss=0.35, grain=0.02)
        for offset in np.arange(-0.056, 0.057, 0.014):
            rib = canvas.shape(box(vial.x + offset, _CAP_Y + 0.012 + vial.y, 0.004, _CAP[1] - 0.035))
            canvas.paint(rib, colour * 0.6, opacity=0.6)
        canvas.surface("cap", cap)

    @staticmethod
    def _reflection(canvas: Canvas, glass: Shape, x: float) -> Shape:
        return canvas.within(canvas.shape(box(x - 0.064, 0.56, 0.009, 0.40, radius=0.004)), glass)

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Free places, fixed counts: three resistors, two capacitors, one red LED and one chip lie anywhere in a tray."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .canvas import Canvas, Shape
from .damage import Harm, crack, fibre, scratch, stain
from .scene import Saturation, Scene
from .shapes import band, box, curve, ellipse, move

COUNTS = {"chip": 1, "resistor": 3, "capacitor": 2, "led": 1}

_REACH = {"chip": 0.105, "resistor": 0.115, "diode": 0.115, "capacitor": 0.080, "led": 0.085}
_TRAY = (0.11, 0.89)  # inner edges
_STEEL = np.array((0.72, 0.73, 0.75))
_LED_COLOURS = {"red": (0.85, 0.10, 0.10), "green": (0.12, 0.66, 0.22), "yellow": (0.93, 0.78, 0.10)}
_BANDS = ((0.45, 0.10, 0.08), (0.12, 0.12, 0.12), (0.62, 0.45, 0.10))


@dataclass
class Part:
    """One part; ``colour`` is that of an LED, ``bend`` those of its two leads, in units of the image's side."""

    kind: str
    x: float
    y: float
    angle: float
    tint: float
    bend: np.ndarray
    colour: str = "red"
    there: bool = True
    wrong: bool = False


class ComponentTray(Scene):
    """``parts`` holds all parts, also those that are not there."""

    logical = {
        "missing_resistor": Saturation(0.12 * 0.045, relative=False),
        "missing_capacitor": Saturation(math.pi * 0.045**2, relative=False),
        "surplus_resistor": Saturation(0.25),
        "wrong_led": Saturation(),
        "wrong_part": Saturation(),
    }
    structural = {
        "scratched_chip": Harm(scratch, ("chip",)),
        "cracked_capacitor": Harm(crack, ("capacitor",)),
        "stain": Harm(stain, ("tray", "resistor", "capacitor")),
        "foreign_fibre": Harm(fibre, ("tray",)),
    }

    def __init__(self, rng: np.random.Generator) -> None:
        self.mat = np.array((0.36, 0.42, 0.46)) * rng.uniform(0.9, 1.1)
        self.tray = np.array((0.80, 0.80, 0.77)) * rng.uniform(0.93, 1.05)
        kinds = [kind for kind, count in COUNTS.items() for _ in range(count)]
        self.parts: list[Part] = []
        for kind in [*kinds, "resistor"]:
            x, y = self._free_place(_REACH[kind], rng)
            angle, tint = rng.uniform(0, 2 * math.pi), rng.normal(1, 0.05)
            self.parts.append(Part(kind, x, y, angle, tint, rng.normal(0, 0.012, 2)))
        self.reserve = self.parts[-1]
        self.reserve.there = False
        self.missing = False

    def _free_place(self, reach: float, rng: np.random.Generator) -> tuple[float, float]:
        """The first of many random places that touches no part, or the one farthest from all."""
        low, high = _TRAY[0] + 0.9 * reach, _TRAY[1] - 0.9 * reach
        places = rng.uniform(low, high, (300, 2))
        if not self.parts:
            return float(places[0, 0]), float(places[0, 1])
        others = np.array([(part.x, part.y) for part in self.parts])
        room = np.array([_REACH[part.kind] + reach for part in self.parts])
        gap = (np.linalg.norm(places[:, None] - others, axis=-1) / room).min(axis=1)
        free = np.flatnonzero(gap > 0.95)
        best = int(free[0]) if len(free) else int(gap.argmax())
        return float(places[best, 0]), float(places[best, 1])

    def spoil(self, defect: str, rng: np.random.Generator) -> None:
        """Take a part away, add one, or replace one."""
        if defect.startswith("missing"):
            self._pick(defect.removeprefix("missing_"), rng).there = False
            self.missing = True
        elif defect == "surplus_resistor":
            self.reserve.there = True
            for part in self.parts:
                part.wrong = part.kind == "resistor"
        elif defect == "wrong_led":
            part = self._pick("led", rng)
            part.colour, part.wrong = ("green", "yellow")[rng.integers(2)], True
        else:
            part = self._pick("resistor", rng)
            part.kind, part.wrong = "diode", True

    def _pick(self, kind: str, rng: np.random.Generator) -> Part:
        parts = [part for part in self.parts if part.kind == kind and part.there]
        return parts[rng.integers(len(parts))]

    def draw(self, canvas: Canvas) -> None:
        """Draw the tray and its parts."""
        canvas.ground(self.mat, rough=0.04)
        canvas.paint(canvas.shape(box(0.5, 0.5, 0.9, 0.9, radius=0.06)), self.tray, rim=0.02, shadow=0.5, gloss=0.2)
        floor = canvas.shape(box(0.5, 0.5, 0.80, 0.80, radius=0.03))
        canvas.paint(floor, self.tray * 0.93, rim=0.025, hollow=True, grain=0.025, rough=0.012)
        for x, y in ((0.3, 0.3), (0.7, 0.3), (0.3, 0.7), (0.7, 0.7)):
            canvas.surface("tray", canvas.shape(ellipse(x, y, 0.08)))
        if self.missing:
            canvas.mark(floor)
        drawn = [(part, self._draw_part(canvas, part)) for part in self.parts if part.there]
        wrong = [shape for part, shapes in drawn if part.wrong for shape in shapes]
        if wrong:
            canvas.mark(*wrong)

    def _draw_part(self, canvas: Canvas, part: Part) -> list[Shape]:
        """Draw a part; returns its body and its leads."""
        painters = {"chip": _chip, "capacitor": _capacitor, "led": _led}
        shapes = painters.get(part.kind, _axial)(canvas, part)
        canvas.surface(part.kind, shapes[0])
        return shapes


def _leads(
    canvas: Canvas, part: Part, starts: tuple[tuple[float, float], ...], ends: tuple[tuple[float, float], ...]
) -> list[Shape]:
    """Draw bent wires from the body outwards, in the part's own frame."""
    shapes = []
    for start, end, bend in zip(starts, ends, part.bend, strict=True):
        middle = np.mean([start, end], axis=0) + bend
        path = move(curve(np.array([start, middle, end]), 12), part.x, part.y, part.angle)
        shapes.append(canvas.shape(band(path, 0.010)))
        canvas.paint(shapes[-1], _STEEL, rim=0.004, shadow=0.4, gloss=0.3)
    return shapes


def _axial(canvas: Canvas, part: Part) -> list[Shape]:
    """A resistor with coloured bands, or a black diode with one silver ring."""
    leads = _leads(canvas, part, ((-0.05, 0), (0.05, 0)), ((-0.115, 0), (0.115, 0)))
    t = np.linspace(-1, 1, 24)
    is_resistor = part.kind == "resistor"
    width = 0.040 + (0.010 * t**4 if is_resistor else 0.004)
    path = np.stack([t * 0.058, 0 * t], 1)
    body = canvas.shape(move(band(path, width), part.x, part.y, part.angle))
    colour = np.array((0.83, 0.70, 0.48) if is_resistor else (0.13, 0.13, 0.14)) * part.tint
    canvas.paint(body, colour, rim=0.024, shadow=0.45, gloss=0.35)
    marks = zip((-0.024, -0.002, 0.020), _BANDS, strict=True) if is_resistor else [(0.034, (0.75, 0.76, 0.78))]
    for x, paint in marks:
        ring = canvas.shape(move(box(x, 0, 0.011, 0.06), part.x, part.y, part.angle))
        canvas.paint(canvas.within(ring, body), paint, opacity=0.85)
    return [body, *leads]


def _capacitor(canvas: Canvas, part: Part) -> list[Shape]:
    """A ceramic disc with two leads."""
    leads = _leads(canvas, part, ((-0.018, 0.03), (0.018, 0.03)), ((-0.026, 0.105), (0.026, 0.105)))
    body = canvas.shape(ellipse(part.x, part.y, 0.050, 0.046, part.angle))
    canvas.paint(body, np.array((0.80, 0.45, 0.16)) * part.tint, rim=0.03, shadow=0.45, gloss=0.3)
    for x, width in ((-0.012, 0.012), (0.006, 0.014)):
        digit = canvas.shape(move(box(x, -0.004, width, 0.02), part.x, part.y, part.angle))
        canvas.paint(digit, (0.25, 0.12, 0.05), opacity=0.7)
    return [body, *leads]


def _led(canvas: Canvas, part: Part) -> list[Shape]:
    """A round LED that lies on its side."""
    leads = _leads(canvas, part, ((0.03, -0.014), (0.03, 0.014)), ((0.125, -0.020), (0.108, 0.020)))
    outline = np.concatenate(
        [
            ellipse(-0.02, 0, 0.036, points=40)[10:31],
            [(0.034, -0.036), (0.034, -0.043), (0.046, -0.043), (0.046, 0.043), (0.034, 0.043), (0.034, 0.036)],
        ]
    )
    body = canvas.shape(move(outline, part.x, part.y, part.angle))
    colour = np.array(_LED_COLOURS[part.colour]) * part.tint
    canvas.paint(body, colour, rim=0.03, shadow=0.45, gloss=0.6)
    core = canvas.shape(move(box(0.012, 0, 0.03, 0.026), part.x, part.y, part.angle))
    canvas.paint(core, colour * 0.5, opacity=0.6)
    return [body, *leads]


def _chip(canvas: Canvas, part: Part) -> list[Shape]:
    """A black chip with eight legs, a notch and a line of print."""
    for x in (-0.057, -0.019, 0.019, 0.057):
        legs = [move(box(x, y, 0.014, 0.03), part.x, part.y, part.angle) for y in (-0.052, 0.052)]
        canvas.paint(canvas.shape(legs[0]), _STEEL, rim=0.005, shadow=0.3)
        canvas.paint(canvas.shape(legs[1]), _STEEL, rim=0.005, shadow=0.3)
    body = canvas.shape(box(part.x, part.y, 0.165, 0.088, part.angle, 0.006))
    canvas.paint(body, np.array((0.15, 0.15, 0.16)) * part.tint, rim=0.010, shadow=0.45, gloss=0.15, rough=0.03)
    canvas.paint(canvas.shape(move(ellipse(-0.068, 0, 0.011), part.x, part.y, part.angle)), (0.07, 0.07, 0.07))
    for x, width in ((-0.028, 0.03), (0.010, 0.034), (0.045, 0.022)):
        canvas.paint(
            canvas.shape(move(box(x, -0.010, width, 0.010), part.x, part.y, part.angle)),
            (0.62, 0.62, 0.60),
            opacity=0.7,
        )
    return [body]

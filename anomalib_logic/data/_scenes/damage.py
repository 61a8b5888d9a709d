# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Structural defects: each is painted on one surface of a finished drawing and marked in the ground truth."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .canvas import Canvas, Shape, Surface
from .shapes import blob, curve, ellipse, move

Damage = Callable[[Canvas, Surface, np.random.Generator], Shape]

_DARK = (0.10, 0.09, 0.08)


@dataclass(frozen=True)
class Harm:
    """A structural defect.

    Args:
        damage: What is painted over the finished drawing. ``None``: the scene draws it, told by ``spoil``.
        surfaces: Names of the surfaces that may be damaged.
    """

    damage: Damage | None = None
    surfaces: tuple[str, ...] = ()


def harm(canvas: Canvas, defect: Harm, rng: np.random.Generator) -> None:
    """Damage one surface of a finished drawing, unless the scene has drawn the defect itself."""
    if defect.damage is not None:
        surfaces = [surface for surface in canvas.surfaces if surface.name in defect.surfaces]
        canvas.mark(defect.damage(canvas, surfaces[rng.integers(len(surfaces))], rng))


def _spot(surface: Surface, rng: np.random.Generator, reach: float = 0.35) -> tuple[float, float]:
    """A point near the middle of a surface."""
    angle, distance = rng.uniform(0, 2 * math.pi), reach * surface.radius * math.sqrt(rng.uniform())
    return surface.centre[0] + distance * math.cos(angle), surface.centre[1] + distance * math.sin(angle)


def scratch(canvas: Canvas, surface: Surface, rng: np.random.Generator) -> Shape:
    """A long thin scratch with a bright edge and a dark one."""
    length = np.clip(1.5 * surface.radius, 0.11, 0.22) * rng.uniform(0.8, 1.15)
    bend = rng.normal(0, 0.08, 2) * length
    path = curve(np.array([(-length / 2, 0), (-length / 6, bend[0]), (length / 6, bend[1]), (length / 2, 0)]))
    path = move(path, *_spot(surface, rng), rng.uniform(0, math.pi))
    width = rng.uniform(0.008, 0.011)
    groove = canvas.within(canvas.line(path, width), surface.shape)
    canvas.paint(canvas.within(canvas.line(path + 0.004, width), surface.shape), (0.95, 0.95, 0.94), opacity=0.75)
    canvas.paint(groove, (0.20, 0.19, 0.18), opacity=0.85)
    return canvas.within(canvas.line(path + 0.002, width + 0.008), surface.shape)


def wear(canvas: Canvas, surface: Surface, rng: np.random.Generator) -> Shape:
    """A worn patch that shows copper."""
    outline = blob(*_spot(surface, rng), rng.uniform(0.026, 0.032), rng, rough=0.15)
    patch = canvas.within(canvas.shape(outline), surface.shape)
    canvas.paint(patch, (0.80, 0.50, 0.30), rim=0.008, gloss=0.5, rough=0.1, hollow=True)
    return patch


def crack(canvas: Canvas, surface: Surface, rng: np.random.Generator) -> Shape:
    """A dark jagged line across a surface."""
    length = np.clip(2.3 * surface.radius, 0.07, 0.24)
    steps = np.linspace(-length / 2, length / 2, 8)
    path = np.stack([steps, rng.normal(0, length / 16, 8)], 1)
    path = move(path, *_spot(surface, rng, 0.15), rng.uniform(0, math.pi))
    canvas.paint(canvas.within(canvas.line(path + 0.004, 0.006), surface.shape), (0.9, 0.9, 0.88), opacity=0.5)
    canvas.paint(canvas.within(canvas.line(path, 0.010), surface.shape), _DARK, opacity=0.9)
    return canvas.within(canvas.line(path, 0.018), surface.shape)


def stain(canvas: Canvas, surface: Surface, rng: np.random.Generator) -> Shape:
    """A translucent brown spot with a darker border."""
    x, y = _spot(surface, rng)
    radius = np.clip(0.55 * surface.radius, 0.028, 0.055) * rng.uniform(0.9, 1.2)
    outline = blob(x, y, radius, rng)
    outer = canvas.within(canvas.shape(outline), surface.shape)
    inner = canvas.within(canvas.shape((outline - (x, y)) * 0.8 + (x, y)), surface.shape)
    colour = np.array([(0.26, 0.15, 0.06), (0.11, 0.08, 0.06), (0.08, 0.12, 0.28)][rng.integers(3)])
    canvas.paint(outer, colour, opacity=0.8, rough=0.15)
    canvas.paint(inner, colour * 1.3, opacity=0.35, rough=0.2)
    return outer


def dent(canvas: Canvas, surface: Surface, rng: np.random.Generator) -> Shape:
    """A hollow with a shaded side and a bright one."""
    radius = np.clip(0.6 * surface.radius, 0.03, 0.06) * rng.uniform(0.85, 1.1)
    outline = blob(*_spot(surface, rng), radius, rng, rough=0.18)
    hollow = canvas.within(canvas.shape(outline), surface.shape)
    part = canvas.pixels[hollow.window]
    weight = hollow.cover[..., None]
    colour = (part * weight).sum((0, 1)) / max(float(weight.sum()), 1.0)
    canvas.paint(hollow, colour * 0.82, rim=0.7 * radius, gloss=0.5, hollow=True)
    return hollow


def fibre(canvas: Canvas, surface: Surface, rng: np.random.Generator) -> Shape:
    """A foreign body: a curled thread that lies on top."""
    length = rng.uniform(0.10, 0.15)
    controls = np.array([(-0.5, 0), (-0.2, rng.uniform(-1, 1)), (0.2, rng.uniform(-1, 1)), (0.5, 0.2)]) * length
    path = move(curve(controls, 30), *_spot(surface, rng), rng.uniform(0, 2 * math.pi))
    thread = canvas.line(path, 0.012)
    colour = [(0.10, 0.22, 0.62), (0.62, 0.10, 0.40), (0.08, 0.42, 0.22)][rng.integers(3)]
    canvas.paint(thread, colour, rim=0.006, shadow=0.5)
    return canvas.line(path, 0.016)


def chip(canvas: Canvas, surface: Surface, rng: np.random.Generator) -> Shape:
    """A lump of foreign material, with its shadow."""
    x, y = _spot(surface, rng)
    outline = blob(x, y, rng.uniform(0.032, 0.042), rng, rough=0.3)[::3]
    lump = canvas.shape(outline)
    colour = [(0.16, 0.34, 0.72), (0.72, 0.73, 0.75), (0.10, 0.10, 0.12)][rng.integers(3)]
    canvas.paint(lump, colour, rim=0.014, shadow=0.5, rough=0.15, gloss=0.25)
    return lump


def crumbs(canvas: Canvas, surface: Surface, rng: np.random.Generator) -> Shape:
    """Contamination: a group of dark grains."""
    x, y = _spot(surface, rng)
    reach = np.clip(0.6 * surface.radius, 0.03, 0.05)
    grains = []
    for _ in range(rng.integers(9, 14)):
        angle, distance = rng.uniform(0, 2 * math.pi), reach * math.sqrt(rng.uniform())
        place = (x + distance * math.cos(angle), y + distance * math.sin(angle))
        grains.append(blob(*place, rng.uniform(0.006, 0.011), rng))
    canvas.paint(canvas.shape(*grains), (0.16, 0.12, 0.09), rim=0.005, shadow=0.35, rough=0.2)
    return canvas.shape(ellipse(x, y, reach + 0.008))

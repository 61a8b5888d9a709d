# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Amounts: half of a dish is peas, a quarter is lentils and, clockwise after them, a quarter is beans."""

from __future__ import annotations

import math

import numpy as np

from .canvas import Canvas
from .damage import Harm, chip, crack, crumbs, stain
from .scene import Saturation, Scene
from .shapes import band, ellipse, move

PEA, LENTIL, BEAN, NONE = 0, 1, 2, -1
SHARES = {PEA: 0.5, LENTIL: 0.25, BEAN: 0.25}

_RADIUS = 0.385  # of the part of the dish that is filled
_SPACING = 0.040
_TURN = 2 * math.pi
_COLOURS = np.array([(0.80, 0.66, 0.40), (0.46, 0.56, 0.26), (0.64, 0.28, 0.20)])
_ROUND = ellipse(0, 0, 1, points=12)
_AXES = np.array([(0.0235, 0.0225), (0.022, 0.020), (0.029, 0.0185)])


class PelletDish(Scene):
    """``kinds`` holds the kind of each pellet, ``turns`` its place around the dish from the first pea, in [0, 1)."""

    logical = {
        "wrong_share": Saturation(),
        "missing_kind": Saturation(),
        "swapped_kinds": Saturation(),
        "missing_portion": Saturation(),
        "mixed_kinds": Saturation(),
    }
    structural = {
        "foreign_body": Harm(chip, ("filling",)),
        "stain": Harm(stain, ("filling",)),
        "contamination": Harm(crumbs, ("filling",)),
        "cracked_dish": Harm(crack, ("rim",)),
    }

    def __init__(self, rng: np.random.Generator) -> None:
        self.table = np.array((0.47, 0.40, 0.35)) * rng.uniform(0.88, 1.1)
        self.dish = np.array((0.84, 0.86, 0.88)) * rng.uniform(0.94, 1.04)
        self.start = rng.uniform(0, 1)
        self.places = _hexagons(rng)
        self.count = len(self.places)
        self.turns = self._around(self.places + rng.normal(0, 0.008, self.places.shape))
        self.kinds = _kinds_at(self.turns, SHARES[PEA], SHARES[PEA] + SHARES[LENTIL])
        self.angles = rng.uniform(0, math.pi, self.count)
        self.sizes = rng.normal(1, 0.06, self.count)
        self.tints = rng.normal(1, 0.08, (self.count, 1)) + rng.normal(0, 0.015, (self.count, 3))
        self.layers = rng.permutation(self.count)
        self.wrong: tuple[float, float] | None = None

    def _around(self, places: np.ndarray) -> np.ndarray:
        angles = np.arctan2(places[:, 1] - 0.5, places[:, 0] - 0.5)
        return (angles / _TURN - self.start) % 1

    def spoil(self, defect: str, rng: np.random.Generator) -> None:
        """Change the kinds of pellets in a part of the dish."""
        lentils = SHARES[PEA] + SHARES[LENTIL]
        if defect == "wrong_share":
            shift = float(rng.choice([-1, 1]) * rng.uniform(0.11, 0.17))
            self.kinds = _kinds_at(self.turns, SHARES[PEA] + shift, lentils)
            low, high = sorted((SHARES[PEA], SHARES[PEA] + shift))
            self.wrong = (low, high)
        elif defect == "missing_kind":
            gone, other = rng.permutation((LENTIL, BEAN))
            self.kinds[self.kinds == gone] = rng.choice((PEA, other))
            self.wrong = (SHARES[PEA], lentils) if gone == LENTIL else (lentils, 1.0)
        elif defect == "missing_portion":
            low = rng.uniform(0.0, 0.88)
            self.wrong = (low, low + rng.uniform(0.09, 0.12))
            self.kinds[(self.turns >= low) & (self.turns < self.wrong[1])] = NONE
        else:
            self.wrong = (SHARES[PEA], 1.0)
            lentil, bean = self.kinds == LENTIL, self.kinds == BEAN
            if defect == "swapped_kinds":
                self.kinds[lentil], self.kinds[bean] = BEAN, LENTIL
            elif defect == "mixed_kinds":
                self.kinds[lentil | bean] = rng.permutation(self.kinds[lentil | bean])

    def draw(self, canvas: Canvas) -> None:
        """Draw the table, the dish and the pellets."""
        canvas.ground(self.table, rough=0.05, broad=0.04)
        canvas.brush(0.03)
        outer = canvas.shape(ellipse(0.5, 0.5, 0.455, points=90))
        canvas.paint(outer, self.dish, rim=0.022, shadow=0.55, gloss=0.5, grain=0.008)
        floor = canvas.shape(ellipse(0.5, 0.5, 0.415, points=90))
        canvas.paint(floor, self.dish * 0.88, rim=0.03, hollow=True, grain=0.008)
        drawn = self.layers[self.kinds[self.layers] != NONE]
        canvas.scatter(self._outlines(drawn), _COLOURS[self.kinds[drawn]] * self.tints[drawn])
        self._note_surfaces(canvas)
        if self.wrong is not None:
            turns = np.linspace(*self.wrong, 40) + self.start
            arc = np.stack([np.cos(_TURN * turns), np.sin(_TURN * turns)], 1) * (_RADIUS + 0.02) + 0.5
            canvas.mark(canvas.shape(np.concatenate([[(0.5, 0.5)], arc])))

    def _outlines(self, pellets: np.ndarray) -> np.ndarray:
        """Outlines of some pellets, shape ``(N, P, 2)``."""
        cos, sin = np.cos(self.angles[pellets]), np.sin(self.angles[pellets])
        turn = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], -2)
        axes = _AXES[self.kinds[pellets]] * self.sizes[pellets, None]
        return (_ROUND * axes[:, None]) @ turn + self.places[pellets, None]

    @staticmethod
    def _note_surfaces(canvas: Canvas) -> None:
        for turn in np.arange(8) / 8 * _TURN:
            x, y = 0.5 + 0.22 * math.cos(turn), 0.5 + 0.22 * math.sin(turn)
            canvas.surface("filling", canvas.shape(ellipse(x, y, 0.09)))
            turns = turn + np.linspace(-0.18, 0.18, 12)
            rim = np.stack([np.cos(turns), np.sin(turns)], 1) * 0.437 + 0.5
            canvas.surface("rim", canvas.shape(band(rim, 0.044)))


def _hexagons(rng: np.random.Generator) -> np.ndarray:
    """Places of the pellets: a hexagonal grid in the dish, turned and shaken; shape ``(P, 2)``."""
    steps = np.arange(-12, 13)
    x, y = np.meshgrid(steps.astype(float), steps * math.sqrt(0.75))
    x += 0.5 * (steps[:, None] % 2)
    grid = np.stack([x.ravel(), y.ravel()], 1) * _SPACING + rng.uniform(0, _SPACING, 2)
    grid = grid[np.hypot(*grid.T) < _RADIUS]
    return move(grid, 0.5, 0.5, rng.uniform(0, _TURN)) + rng.normal(0, 0.0045, grid.shape)


def _kinds_at(turns: np.ndarray, lentils: float, beans: float) -> np.ndarray:
    """Kind at each place around the dish: peas, then lentils, then beans from the given places on."""
    return np.where(turns < lentils, PEA, np.where(turns < beans, LENTIL, BEAN))

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Outlines of parts, as points in units of the image's side: x to the right, y down, shape ``(P, 2)``."""

from __future__ import annotations

import math

import numpy as np

_CORNER_POINTS = 6
_TURNS = np.concatenate([np.linspace(k, k + 1, _CORNER_POINTS) for k in range(4)]) * math.pi / 2
_ARCS = np.stack([np.cos(_TURNS), np.sin(_TURNS)], 1)
_CORNERS = np.repeat(np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)]), _CORNER_POINTS, axis=0)


def ellipse(x: float, y: float, a: float, b: float | None = None, angle: float = 0.0, points: int = 40) -> np.ndarray:
    """Outline of an ellipse with the half axes ``a`` and ``b``; a circle without ``b``."""
    turns = np.linspace(0, 2 * math.pi, points, endpoint=False)
    outline = np.stack([a * np.cos(turns), (a if b is None else b) * np.sin(turns)], 1)
    return move(outline, x, y, angle)


def box(x: float, y: float, width: float, height: float, angle: float = 0.0, radius: float = 0.0) -> np.ndarray:
    """Outline of a rectangle around ``(x, y)`` with rounded corners."""
    radius = min(radius, width / 2, height / 2)
    corners = _CORNERS * (width / 2 - radius, height / 2 - radius)
    return move(corners + radius * _ARCS if radius else corners[::_CORNER_POINTS], x, y, angle)


def band(path: np.ndarray, width: float | np.ndarray) -> np.ndarray:
    """Outline of a band of the given width, one or one for each point, along a path that bends gently."""
    path = np.asarray(path, np.float64)
    slope = np.gradient(path, axis=0)
    normal = np.stack([-slope[:, 1], slope[:, 0]], 1) / np.linalg.norm(slope, axis=1, keepdims=True)
    half = np.broadcast_to(np.asarray(width) / 2, len(path))[:, None]
    return np.concatenate([path + half * normal, (path - half * normal)[::-1]])


def curve(points: np.ndarray, count: int = 24) -> np.ndarray:
    """Bezier curve of any order through its first and last control point, shape ``(count, 2)``."""
    points = np.asarray(points, np.float64)
    t = np.linspace(0, 1, count)[:, None]
    order = len(points) - 1
    weights = [math.comb(order, k) * t**k * (1 - t) ** (order - k) for k in range(order + 1)]
    return sum(weight * point for weight, point in zip(weights, points, strict=True))


def blob(x: float, y: float, radius: float, rng: np.random.Generator, rough: float = 0.25) -> np.ndarray:
    """Outline of an irregular round spot."""
    turns = np.linspace(0, 2 * math.pi, 36, endpoint=False)
    waves = sum(rng.normal(0, rough / k) * np.cos(k * turns + rng.uniform(0, 2 * math.pi)) for k in range(2, 6))
    radii = radius * np.clip(1 + waves, 0.45, 1.6)
    return np.stack([x + radii * np.cos(turns), y + radii * np.sin(turns)], 1)


def move(points: np.ndarray, x: float, y: float, angle: float = 0.0) -> np.ndarray:
    """Turn points around the origin, clockwise in radians, and shift them."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.asarray(points, np.float64) @ np.array([[cos, sin], [-sin, cos]]) + (x, y)

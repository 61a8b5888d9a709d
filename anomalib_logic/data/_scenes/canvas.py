# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""A picture that parts are painted on, with light, shadow, texture and a camera, and the masks of what is wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .relief import relief

Colour = Sequence[float] | np.ndarray

_SUPERSAMPLED = 400  # smaller images are drawn larger
_FACTOR = 1.5  # and so much
_SCATTER_RANGE = 230  # level of a full colour in 8 bits, which leaves room for highlights
_SHIFT = 4  # fractional bits of coordinates in OpenCV


@dataclass(frozen=True)
class Shape:
    """Where a part covers the drawing.

    Args:
        window: Rows and columns of the drawing.
        cover: Share of each pixel that is covered, float32 in [0, 1], shape of the window.
    """

    window: tuple[slice, slice]
    cover: np.ndarray

    def __bool__(self) -> bool:
        """Tell whether anything is covered."""
        return bool(self.cover.any())


@dataclass(frozen=True)
class Surface:
    """A part that damage can lie on.

    Args:
        name: What it is, such as ``"foil"``.
        shape: Where it is.
        centre: Its middle, in units of the image's side.
        radius: Half of its smaller extent, in the same units.
    """

    name: str
    shape: Shape
    centre: tuple[float, float]
    radius: float


class Canvas:
    """A drawing in colours of [0, 1], in units of the image's side.

    All random fields are made at once, so that what is painted does not change how the rest looks.

    Args:
        image_size: Height and width of the image in pixels.
        rng: Source of light, texture, camera and noise.
    """

    def __init__(self, image_size: int, rng: np.random.Generator) -> None:
        self.image_size = image_size
        self.side = round(image_size * (_FACTOR if image_size < _SUPERSAMPLED else 1))
        self.surfaces: list[Surface] = []
        self.channels: list[np.ndarray] = []
        angle = math.radians(rng.normal(225, 12))
        self.light = np.array([0.6 * math.cos(angle), 0.6 * math.sin(angle), 0.8], np.float32)
        turn, scale = rng.normal(0, math.radians(0.9)), rng.normal(1, 0.012)
        self._turn = scale * np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
        self._shift = 0.5 + rng.normal(0, 0.007, 2)
        self.rough = self._noise(rng, 48)
        self.broad = self._noise(rng, 5)
        self._gain = 1 + rng.normal(0, 0.05) + rng.normal(0, 0.012, 3)
        self._slope = rng.normal(0, 0.07, 2)
        self._focus = rng.uniform(0.35, 0.65)
        strength = rng.uniform(0.006, 0.012)
        # last: what follows the image's size must not change the rest
        self.fine = self._noise(rng, image_size)
        self._sensor = rng.standard_normal((image_size, image_size, 3), np.float32) * strength
        self.pixels = np.full((self.side, self.side, 3), 0.5, np.float32)

    def _noise(self, rng: np.random.Generator, cells: int) -> np.ndarray:
        """Smooth noise of standard deviation about 1 with so many grains along a side."""
        coarse = rng.standard_normal((cells, cells), np.float32)
        return cv2.resize(coarse, (self.side, self.side), interpolation=cv2.INTER_CUBIC)

    def ground(self, colour: Colour, fine: float = 0.02, rough: float = 0.0, broad: float = 0.02) -> None:
        """Fill the picture with a textured colour."""
        texture = 1 + fine * self.fine + broad * self.broad
        if rough:
            texture += rough * self.rough
        self.pixels[:] = np.asarray(colour, np.float32) * texture[..., None]

    def brush(self, strength: float, window: tuple[slice, slice] = np.s_[:, :]) -> None:
        """Add the streaks of brushed metal, along x."""
        streaks = cv2.blur(self.fine[window], (max(3, self.side // 6), 1))
        self.pixels[window] *= 1 + 3 * strength * streaks[..., None]

    def shape(self, *outlines: np.ndarray, holes: Sequence[np.ndarray] = ()) -> Shape:
        """Cover the union of outlines, less the holes."""
        placed = [self._to_pixels(outline) for outline in outlines]
        window = self._window(np.concatenate(placed), 2)
        (top, left), (height, width) = _origin(window), _extent(window)
        cover = np.zeros((height, width), np.uint8)
        for points in placed:
            self._fill(cover, points - (left, top), 255)
        for hole in holes:
            self._fill(cover, self._to_pixels(hole) - (left, top), 0)
        return Shape(window, cover.astype(np.float32) * np.float32(1 / 255))

    def _fill(self, cover: np.ndarray, points: np.ndarray, value: int) -> None:
        cv2.fillPoly(cover, [np.round(points * 2**_SHIFT).astype(np.int32)], value, cv2.LINE_AA, _SHIFT)

    def _to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Apply the camera's place; returns ``(P, 2)`` in pixels of the drawing."""
        return ((np.asarray(points) - 0.5) @ self._turn + self._shift) * self.side - 0.5

    def line(self, path: np.ndarray, thick: float) -> Shape:
        """Cover a line of any course with round ends."""
        points = self._to_pixels(path)
        thickness = max(1, round(thick * self.side))
        window = self._window(points, thickness / 2 + 2)
        (top, left), (height, width) = _origin(window), _extent(window)
        cover = np.zeros((height, width), np.uint8)
        fixed = np.round((points - (left, top)) * 2**_SHIFT).astype(np.int32)
        cv2.polylines(cover, [fixed], False, 255, thickness, cv2.LINE_AA, _SHIFT)
        return Shape(window, cover.astype(np.float32) * np.float32(1 / 255))

    def _window(self, points: np.ndarray, margin: float) -> tuple[slice, slice]:
        """Rows and columns of the drawing around points in pixels; at least one pixel."""
        low = np.clip(np.floor(points.min(0) - margin), 0, self.side - 1).astype(int)
        high = np.clip(np.ceil(points.max(0) + margin), low + 1, self.side).astype(int)
        return slice(low[1], high[1]), slice(low[0], high[0])

    def within(self, shape: Shape, other: Shape) -> Shape:
        """Cut a shape off where another one does not cover."""
        rows, columns = (
            slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(shape.window, other.window, strict=True)
        )
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return Shape(np.s_[0:1, 0:1], np.zeros((1, 1), np.float32))
        return Shape((rows, columns), self._part(shape, rows, columns) * self._part(other, rows, columns))

    @staticmethod
    def _part(shape: Shape, rows: slice, columns: slice) -> np.ndarray:
        top, left = shape.window[0].start, shape.window[1].start
        return shape.cover[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]

    def paint(
        self,
        shape: Shape,
        colour: Colour,
        *,
        opacity: float = 1.0,
        rim: float = 0.0,
        gloss: float = 0.0,
        shadow: float = 0.0,
        grain: float = 0.015,
        rough: float = 0.0,
        hollow: bool = False,
    ) -> None:
        """Paint a part.

        Args:
            shape: Where it is.
            colour: Its colour.
            opacity: Share of the light that it stops.
            rim: Width of its rounded edge, in units of the image's side; 0 is flat paper.
            gloss: Strength of its highlights.
            shadow: Darkness of the shadow that it casts.
            grain: Strength of its fine texture.
            rough: Strength of its coarse texture.
            hollow: Whether the edge leads down instead of up.
        """
        if not shape:
            return
        if shadow:
            self._cast_shadow(shape, shadow)
        pixels, cover = self.pixels[shape.window], shape.cover[..., None] * np.float32(opacity)
        texture = self._texture(shape.window, grain, rough)
        bright = None
        if rim:
            factor, bright = relief(shape.cover, float(rim) * self.side, self.light, gloss=gloss, hollow=hollow)
            texture *= factor
        fill = np.asarray(colour, np.float32) * texture[..., None]
        if bright is not None:
            fill += bright[..., None]
        pixels += cover * (fill - pixels)

    def _texture(self, window: tuple[slice, slice], grain: float, rough: float) -> np.ndarray:
        """Factor of a colour with fine and coarse grains."""
        texture = 1 + np.float32(grain) * self.fine[window]
        if rough:
            texture += np.float32(rough) * self.rough[window]
        return texture

    def scatter(self, outlines: np.ndarray, colours: np.ndarray) -> None:
        """Paint many small round bodies, later ones over earlier ones; faster than :meth:`paint` one by one.

        Args:
            outlines: Convex outlines, shape ``(N, P, 2)``.
            colours: Their colours, shape ``(N, 3)``.
        """
        points = self._to_pixels(outlines)
        middle = points.mean(1, keepdims=True)
        lit = middle + self.light[:2] * 0.3 * np.ptp(points, axis=1, keepdims=True).min(-1, keepdims=True)
        levels = np.clip(colours * _SCATTER_RANGE, 0, 255)
        layers = (  # from the dark border to the highlight: outline, colour
            (middle + 1.06 * (points - middle), 0.45 * levels),
            (points, 0.85 * levels),
            (lit + 0.62 * (points - middle), levels),
            (lit + 0.22 * (points - middle), np.minimum(1.12 * levels + 12, 255)),
        )
        fixed = [np.round(outline * 2**_SHIFT).astype(np.int32) for outline, _ in layers]
        values = [colour.tolist() for _, colour in layers]
        body = np.zeros((self.side, self.side, 3), np.uint8)
        for k in range(len(points)):
            for outline, value in zip(fixed, values, strict=True):
                cv2.fillConvexPoly(body, outline[k], value[k], cv2.LINE_AA, _SHIFT)
        cover = cv2.blur(body.max(-1, initial=0).astype(bool).astype(np.float32), (3, 3))
        reach = max(3, round(0.012 * self.side)) | 1
        self.pixels *= 1 - 0.4 * cv2.blur(cover, (reach, reach))[..., None]
        texture = (1 + 0.02 * self.fine + 0.04 * self.rough) * np.float32(1 / _SCATTER_RANGE)
        self.pixels += cover[..., None] * (body * texture[..., None] - self.pixels)

    def _cast_shadow(self, shape: Shape, strength: float) -> None:
        """Darken what is beside a shape, away from the light."""
        (top, left), (height, width) = _origin(shape.window), _extent(shape.window)
        reach = max(3, round(0.018 * self.side)) | 1
        x, y = (round(float(step)) for step in -self.light[:2] * 0.016 * self.side)
        pad = reach + max(abs(x), abs(y))
        moved = np.zeros((height + 2 * pad, width + 2 * pad), np.float32)
        moved[pad + y : pad + y + height, pad + x : pad + x + width] = shape.cover
        soft = cv2.blur(cv2.blur(moved, (reach, reach)), (reach, reach))
        soft[pad : pad + height, pad : pad + width] *= 1 - shape.cover
        rows, columns = slice(max(top - pad, 0), top + height + pad), slice(max(left - pad, 0), left + width + pad)
        target = self.pixels[rows, columns]
        soft = soft[rows.start - top + pad :, columns.start - left + pad :][: target.shape[0], : target.shape[1]]
        target *= 1 - strength * soft[..., None]

    def mark(self, *shapes: Shape) -> None:
        """Add one channel of the ground truth: the union of shapes."""
        region = np.zeros((self.side, self.side), np.float32)
        for shape in shapes:
            np.maximum(region[shape.window], shape.cover, out=region[shape.window])
        size = (self.image_size, self.image_size)
        self.channels.append(cv2.resize(region, size, interpolation=cv2.INTER_AREA) > 0.25)

    def surface(self, name: str, shape: Shape) -> None:
        """Note a part that damage can lie on."""
        rows, columns = (np.flatnonzero((shape.cover > 0.5).any(axis)) for axis in (1, 0))
        if not len(rows):
            return
        top, left = (side.start for side in shape.window)
        middle = np.array([columns[0] + columns[-1], rows[0] + rows[-1]]) / 2 + (left, top) + 0.5
        x, y = (middle / self.side - self._shift) @ np.linalg.inv(self._turn) + 0.5
        radius = min(np.ptp(rows), np.ptp(columns)) / 2 / self.side
        self.surfaces.append(Surface(name, shape, (float(x), float(y)), float(radius)))

    def finish(self) -> np.ndarray:
        """Photograph the drawing; returns uint8 RGB, shape ``(image_size, image_size, 3)``."""
        size = (self.image_size, self.image_size)
        image: np.ndarray = self.pixels
        if self.side != self.image_size:
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        image = cv2.GaussianBlur(image, (0, 0), self._focus * max(1.0, self.image_size / 256))
        place = (np.arange(self.image_size, dtype=np.float32) + 0.5) / self.image_size - 0.5
        light = 1 + self._slope[0] * place[None] + self._slope[1] * place[:, None]
        image = image * (light[..., None] * self._gain).astype(np.float32) + self._sensor
        return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def _origin(window: tuple[slice, slice]) -> tuple[int, int]:
    return window[0].start, window[1].start


def _extent(window: tuple[slice, slice]) -> tuple[int, int]:
    return window[0].stop - window[0].start, window[1].stop - window[1].start

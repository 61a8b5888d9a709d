# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Shading of bodies with rounded edges."""

from __future__ import annotations

import cv2
import numpy as np

_HEIGHT = 0.6  # of a body over the width of its rounded edge
_AMBIENT = 0.3  # share of the light that comes from everywhere
_SHARPNESS = 40  # of highlights


def relief(
    cover: np.ndarray, width: float, light: np.ndarray, *, gloss: float, hollow: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Light a body by the slope of its rounded edge.

    Args:
        cover: Share of each pixel that the body covers, float32 ``(h, w)``.
        width: Width of the rounded edge in pixels.
        light: Direction towards the light, three numbers.
        gloss: Strength of highlights.
        hollow: Whether the edge leads down instead of up.

    Returns:
        Factor of the body's colour, 1 where it is flat, and the highlights to add; ``None`` without gloss.
    """
    width = max(1.0, width)
    depth = cv2.distanceTransform((cover > 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    depth = np.minimum(depth / np.float32(width), 1)
    height = np.sqrt(np.maximum(1 - (1 - depth) ** 2, 0)) * np.float32(-_HEIGHT if hollow else _HEIGHT)
    soft = max(3, round(width / 2)) | 1
    height = cv2.blur(height, (soft, soft))
    x = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3, scale=width / 8)
    y = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3, scale=width / 8)
    length = 1 / np.sqrt(x * x + y * y + 1)
    facing = (light[2] - light[0] * x - light[1] * y) * length
    factor = _AMBIENT + (1 - _AMBIENT) * np.maximum(facing, 0) / light[2]
    if not gloss:
        return factor, None
    half = light + np.array((0, 0, 1), np.float32)
    half = half / np.linalg.norm(half)
    mirror = np.maximum((half[2] - half[0] * x - half[1] * y) * length, 0)
    flat = float(half[2]) ** _SHARPNESS
    return factor, gloss * np.maximum(cv2.pow(mirror, _SHARPNESS) - flat, 0)

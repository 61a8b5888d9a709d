# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Frames of objects: boxes, resampling of an object to a grid of its own, and back to the image (ours)."""

import torch
from torch.nn import functional as F


def bounding_boxes(masks: torch.Tensor) -> torch.Tensor:
    """Bounding boxes of masks.

    Args:
        masks: Masks with values in [0, 1], shape ``(N, K, H, W)``; what is above 0.5 belongs to the object.

    Returns:
        ``(top, left, bottom, right)`` in [0, 1], shape ``(N, K, 4)``; all 0 where a mask is empty.
    """
    top, bottom = _extent((masks > 0.5).any(dim=3).float())
    left, right = _extent((masks > 0.5).any(dim=2).float())
    return torch.stack([top, left, bottom, right], dim=-1)


def _extent(occupied: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """First and last occupied place of each line, as shares of its length, shape ``(N, K)``."""
    length = occupied.shape[-1]
    places = torch.arange(length, device=occupied.device, dtype=occupied.dtype)
    last = (occupied * (places + 1)).amax(dim=-1)
    first = length - (occupied * (length - places)).amax(dim=-1)
    return torch.minimum(first, last) / length, last / length


def crop(maps: torch.Tensor, boxes: torch.Tensor, size: int) -> torch.Tensor:
    """Resample the map under each box to a square grid, bilinearly.

    Args:
        maps: Shape ``(N, C, H, W)``.
        boxes: ``(top, left, bottom, right)`` in [0, 1], shape ``(N, K, 4)``.
        size: Height and width of the grid, g.

    Returns:
        Shape ``(N, K, C, g, g)``.
    """
    slots = boxes.shape[1]
    ticks = (torch.arange(size, device=maps.device, dtype=maps.dtype) + 0.5) / size
    top, left, bottom, right = (side.unsqueeze(-1) for side in boxes.to(maps.dtype).unbind(dim=-1))
    y = (top + (bottom - top) * ticks).unsqueeze(-1).expand(-1, -1, -1, size)
    x = (left + (right - left) * ticks).unsqueeze(-2).expand(-1, -1, size, -1)
    grid = (2 * torch.stack([x, y], dim=-1) - 1).flatten(1, 2)
    crops = _sample(maps, grid)
    return crops.unflatten(2, (slots, size)).transpose(1, 2)


def crop_own(maps: torch.Tensor, boxes: torch.Tensor, size: int) -> torch.Tensor:
    """Resample to a grid what is under each box of a map that belongs to the object alone, such as its mask.

    Args:
        maps: One map an object, shape ``(N, K, H, W)``.
        boxes: Shape ``(N, K, 4)``.
        size: Height and width of the grid, g.

    Returns:
        Shape ``(N, K, g, g)``.
    """
    number, slots = maps.shape[:2]
    crops = crop(maps.flatten(0, 1).unsqueeze(1), boxes.flatten(0, 1).unsqueeze(1), size)
    return crops.reshape(number, slots, size, size)


def paste(crops: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Put grids back to where their boxes are; the inverse of :func:`crop_own`.

    Args:
        crops: Shape ``(N, K, g, g)``.
        boxes: Shape ``(N, K, 4)``.
        size: Height and width of the result.

    Returns:
        Shape ``(N, K, H, W)``, 0 outside the boxes.
    """
    height, width = size
    top, left, bottom, right = (side[..., None] for side in boxes.unbind(dim=-1))
    y = (torch.arange(height, device=crops.device, dtype=crops.dtype) + 0.5) / height
    x = (torch.arange(width, device=crops.device, dtype=crops.dtype) + 0.5) / width
    y = (y - top) / (bottom - top).clamp_min(1e-6)
    x = (x - left) / (right - left).clamp_min(1e-6)
    grid = torch.stack([x.unsqueeze(-2).expand(-1, -1, height, -1), y.unsqueeze(-1).expand(-1, -1, -1, width)], dim=-1)
    inside = (grid > 0).all(dim=-1) & (grid < 1).all(dim=-1)
    # Far outside, coordinates could overflow in half precision.
    grid = (2 * grid - 1).clamp(-2, 2).flatten(0, 1)
    pasted = _sample(crops.flatten(0, 1).unsqueeze(1), grid)
    return pasted.reshape(*crops.shape[:2], height, width) * inside


def _sample(maps: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Sample maps bilinearly; beyond the centres of the outermost positions, their values.

    That is ``padding_mode="border"``, which the MPS backend lacks.

    Args:
        maps: Shape ``(N, C, H, W)``.
        grid: Coordinates ``(x, y)``, -1 and 1 at the borders, shape ``(N, h, w, 2)``.

    Returns:
        Shape ``(N, C, h, w)``.
    """
    height, width = maps.shape[2:]
    x, y = grid.unbind(dim=-1)
    x, y = x.clamp(1 / width - 1, 1 - 1 / width), y.clamp(1 / height - 1, 1 - 1 / height)
    return F.grid_sample(maps, torch.stack([x, y], dim=-1), align_corners=False)

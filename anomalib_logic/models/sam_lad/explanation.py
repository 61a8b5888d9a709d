# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What SAM-LAD saw: objects, their partners, missing objects, and a picture of them."""

import colorsys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from .comparison import Comparison

UNMATCHED = (255, 0, 0)


class Reason(NamedTuple):
    """What one score says of an image.

    Attributes:
        score: Name of the score.
        deviation: From the mean of normal images, in standard deviations, times the score's trust. The image score is
            the soft maximum of all.
        finding: What it is that a high value calls unusual.
    """

    score: str
    deviation: float
    finding: str


class Explanation(NamedTuple):
    """One image beside its nearest reference.

    Attributes:
        score: Image score.
        reasons: What each score says, the most unusual first.
        masks: Masks of the K' objects found, booleans of shape ``(K', s, s)``.
        scores: Mean distance of each object to its partners, as a multiple of that of normal images, shape ``(K',)``.
        partners: Object of the nearest reference that each object was matched with, -1 for none, shape ``(K',)``.
        surplus: Objects that no reference has, booleans of shape ``(K',)``.
        reference_masks: Masks of the nearest reference's L' objects, shape ``(L', s, s)``.
        missing: Which of those most references have and the image lacks, booleans of shape ``(L',)``.
        reference: Index of the nearest reference in the bank.
        pictures: The image and its nearest reference as bytes, shape ``(2, 3, p, p)``.
    """

    score: float
    reasons: tuple[Reason, ...]
    masks: torch.Tensor
    scores: torch.Tensor
    partners: torch.Tensor
    surplus: torch.Tensor
    reference_masks: torch.Tensor
    missing: torch.Tensor
    reference: int
    pictures: torch.Tensor

    def draw(self, size: int | tuple[int, int] = 384) -> Image.Image:
        """Draw image and reference side by side.

        Matched objects have one colour on both sides, objects without a partner are red on the left, and missing
        objects are outlined in red on both sides, where they should be.

        Args:
            size: Height and width of the image in pixels. One number makes a square of it, as the model sees it; the
                reference has the same size.
        """
        size = (size, size) if isinstance(size, int) else size
        left, right = (_canvas(picture, size) for picture in self.pictures)
        masks, reference_masks = _resize(self.masks, size), _resize(self.reference_masks, size)
        for i, mask in enumerate(masks):
            partner = int(self.partners[i])
            _fill(left, mask, UNMATCHED if partner < 0 else _colour(partner))
            if partner >= 0:
                _fill(right, reference_masks[partner], _colour(partner))
        for mask in reference_masks[self.missing.numpy()]:
            for canvas in (left, right):
                canvas[_outline(mask)] = UNMATCHED
        return Image.fromarray(np.concatenate([left, right], axis=1).astype(np.uint8))


def explain(
    compared: Comparison, objects: torch.Tensor, scores: torch.Tensor, reasons: Sequence[Sequence[Reason]]
) -> list[Explanation]:
    """Say of each image which objects it has, which partners they have, and what is missing.

    Args:
        compared: The images.
        objects: How unusual each of their objects is, see :meth:`.Score.of_objects`, shape ``(N, K)``.
        scores: Of the images, shape ``(N,)``.
        reasons: What each score says of each image.
    """
    query, matches = compared.query, compared.matches
    nearest = compared.references[:, 0]
    masks, valid, pictures = (compared.bank.get(name, nearest) for name in ("masks", "valid", "picture"))
    explanations = []
    for i in range(len(scores)):
        own, other = query["valid"][i], valid[i]
        # Slots of the reference's objects, counted without the empty ones.
        slots = other.cumsum(dim=0) - 1
        partners = slots[matches.partner[i, 0][own]]
        explanation = Explanation(
            score=scores[i].item(),
            reasons=tuple(sorted(reasons[i], key=lambda reason: -reason.deviation)),
            masks=query["masks"][i][own] > 0.5,
            scores=objects[i][own],
            partners=torch.where(matches.matched[i, 0][own], partners, torch.full_like(partners, -1)),
            surplus=compared.surplus[i][own],
            reference_masks=masks[i][other] > 0.5,
            missing=compared.missing[i, 0][other],
            reference=int(nearest[i]),
            pictures=torch.stack([query["picture"][i], pictures[i]]),
        )
        explanations.append(Explanation(*(v.cpu() if isinstance(v, torch.Tensor) else v for v in explanation)))  # type: ignore[arg-type]
    return explanations


def _canvas(picture: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    image = Image.fromarray(picture.permute(1, 2, 0).numpy())
    return np.asarray(image.resize(size[::-1])).astype(float)


def _resize(masks: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    # Objects are the batch: interpolation refuses maps of no channels, but not batches of no maps.
    return (F.interpolate(masks[:, None].float(), size, mode="bilinear")[:, 0] > 0.5).numpy()


def _colour(index: int) -> tuple[int, ...]:
    """Colours that differ from one another and from red."""
    hue = 0.12 + 0.76 * ((index * 0.618) % 1)
    return tuple(round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, 1, 1))


def _fill(canvas: np.ndarray, mask: np.ndarray, colour: tuple[int, ...]) -> None:
    canvas[mask] = 0.5 * canvas[mask] + 0.5 * np.array(colour)
    canvas[_outline(mask)] = colour


def _outline(mask: np.ndarray, width: int = 5) -> np.ndarray:
    inner = -F.max_pool2d(-torch.from_numpy(mask)[None].float(), width, stride=1, padding=width // 2)[0].numpy()
    return mask & (inner < 0.5)

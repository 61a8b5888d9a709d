# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Precision, recall and F1 of object matching by descriptor, on image pairs whose true correspondence is known.

    python benchmarks/matching.py --weights mobilenetv2_100.safetensors --mnist MNIST_FOLDER

Two kinds of pairs: DigitAnatomy's nine digits in other handwriting, shuffled to other cells for every image; and shapes
that are placed anywhere, of which an image may lack one that the other has. Masks are the true ones, place and size
have no weight, and the dustbin is calibrated on the first half of the images; pairs are from the second half.
"""

import argparse
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from PIL import Image, ImageDraw
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from anomalib_logic.data._digit_source import load_source
from anomalib_logic.models.components.normal_statistics import ChannelStandardization
from anomalib_logic.models.components.patch_features import PatchFeatures
from anomalib_logic.models.components.upsampling import resize
from anomalib_logic.models.sam_lad.descriptor import Descriptor, ObjectDescriptor
from anomalib_logic.models.sam_lad.frames import bounding_boxes, crop, crop_own
from anomalib_logic.models.sam_lad.matching import ObjectMatching

SIZE, CELL, SLOTS = 256, 80, 9


def shapes(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Image, masks and kinds of objects placed anywhere; one in three images lacks one of them."""
    image = Image.fromarray(np.clip(rng.normal(90, 6, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8))
    kinds = [int(kind) for kind in rng.permutation(6)]
    kinds = kinds[1:] if rng.random() < 1 / 3 else kinds
    masks = []
    for kind, cell in zip(kinds, rng.permutation(9), strict=False):
        mask = Image.new("L", (SIZE, SIZE))
        x, y = (CELL * int(cell % 3) + rng.integers(12, 30), CELL * int(cell // 3) + rng.integers(12, 30))
        box = [x, y, x + 44, y + 44]
        for target, colour in ((ImageDraw.Draw(image), (200, 150, 60)), (ImageDraw.Draw(mask), 255)):
            if kind == 0:
                target.ellipse(box, fill=colour)
            elif kind == 1:
                target.rectangle(box, fill=colour)
            elif kind == 2:
                target.polygon([(x, y + 44), (x + 44, y + 44), (x + 22, y)], fill=colour)
            elif kind == 3:
                target.ellipse(box, outline=colour, width=9)
            elif kind == 4:
                target.rectangle([x + 16, y, x + 28, y + 44], fill=colour)
            else:
                target.rectangle(box, outline=colour, width=9)
        masks.append(np.array(mask) > 0)
    return np.array(image), np.stack(masks), kinds


def digits(
    rng: np.random.Generator, images: list[np.ndarray], labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Image, masks and kinds of the digits 1 to 9 in shuffled cells."""
    canvas, masks, kinds = np.zeros((SIZE, SIZE), np.uint8), [], [int(k) + 1 for k in rng.permutation(9)]
    for cell, kind in enumerate(kinds):
        digit = Image.fromarray(images[rng.choice(np.flatnonzero(labels == kind))]).resize((64, 64))
        mask = np.zeros((SIZE, SIZE), bool)
        y, x = CELL * (cell // 3) + int(rng.integers(4, 14)), CELL * (cell % 3) + int(rng.integers(4, 14))
        canvas[y : y + 64, x : x + 64] = np.array(digit)
        mask[y : y + 64, x : x + 64] = np.array(digit) > 60
        masks.append(mask)
    return np.repeat(canvas[..., None], 3, axis=2), np.stack(masks), kinds


@torch.no_grad()
def represent(samples: list, backbone: PatchFeatures) -> tuple[torch.Tensor, ...]:
    """Crops, masks in the same frames, boxes, validity and kinds of all objects, with standardised features."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    pictures = [torch.from_numpy(image).permute(2, 0, 1) / 255 for image, _, _ in samples]
    maps = [torch.cat(m) for m in zip(*(backbone(((p - mean) / std)[None]) for p in pictures), strict=True)]
    standardization = ChannelStandardization(backbone.channels)
    standardization.update(maps)
    standardization.finalize()
    features = torch.cat([resize(m / m.shape[1] ** 0.5, (64, 64)) for m in standardization(maps)], dim=1)
    masks = torch.zeros(len(samples), SLOTS, SIZE, SIZE)
    kinds = torch.full((len(samples), SLOTS), -1)
    for i, (_, own, names) in enumerate(samples):
        masks[i, : len(names)] = torch.from_numpy(own).float()
        kinds[i, : len(names)] = torch.tensor(names)
    boxes = bounding_boxes(masks)
    return crop(features, boxes, 16), crop_own(masks, boxes, 16), boxes, kinds >= 0, kinds


def evaluate(method: str, objects: tuple[torch.Tensor, ...], channels: int) -> tuple[float, float, float]:
    """Precision, recall and F1 over pairs of images that the calibration has not seen."""
    crops, crop_masks, boxes, valid, kinds = objects
    described = ObjectDescriptor(channels, method)(crops, crop_masks, valid)
    half = len(kinds) // 2
    matching = ObjectMatching(geometry=0.0)
    neighbors = (torch.arange(half)[:, None] + torch.arange(1, 3)) % half
    matching.calibrate(described[:half], boxes[:half], valid[:half], neighbors)
    first, second = slice(half, None), torch.arange(half, len(kinds)).roll(1)
    scores = matching.scores(described[first], boxes[first], described[second, None], boxes[second, None])
    matches = matching(scores, valid[first], valid[second, None])
    partner = kinds[second].gather(1, matches.partner[:, 0])
    matched = matches.matched[:, 0]
    right = (matched & (partner == kinds[first])).sum().item()
    pairs = ((kinds[first].unsqueeze(2) == kinds[second].unsqueeze(1)) & valid[first].unsqueeze(2)).sum().item()
    precision, recall = right / max(1, matched.sum().item()), right / pairs
    return precision, recall, 2 * precision * recall / max(1e-9, precision + recall)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="weights of timm's mobilenetv2_100")
    parser.add_argument("--mnist", default="sklearn", help="folder of MNIST's IDX files; scikit-learn's digits else")
    parser.add_argument("--images", type=int, default=60, help="of each kind")
    args = parser.parse_args()
    torch.manual_seed(0)
    backbone = PatchFeatures("mobilenetv2_100", False, args.weights, (SIZE, SIZE), {"pad_type": "same"})
    images, labels = load_source(args.mnist)
    rng = np.random.default_rng(0)
    sets = {
        "digits": represent([digits(rng, images, np.array(labels)) for _ in range(args.images)], backbone),
        "shapes": represent([shapes(rng) for _ in range(args.images)], backbone),
    }
    print(f"| descriptor | {' | '.join(f'{name}: precision / recall / F1' for name in sets)} |\n|{' --- |' * 3}")
    for method in get_args(Descriptor):
        figures = [evaluate(method, objects, sum(backbone.channels)) for objects in sets.values()]
        print(f"| `{method}` | {' | '.join(' / '.join(f'{100 * x:.1f}' for x in row) for row in figures)} |")


if __name__ == "__main__":
    main()

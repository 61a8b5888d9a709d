# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Images to verify, calibrate and evaluate exported models with."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from anomalib.data import AnomalibDataModule, AnomalibDataset
from torch.nn import functional as F
from torchvision.transforms.v2.functional import resize

NUMBER = 3  # images that a file is verified with
LONGEST_SIDE = 512  # pixels, of images that travel in checkpoints
GENERATED_SIZE = 256  # height and width in pixels


class NamedImage(NamedTuple):
    """An image of a data set.

    Attributes:
        name: Folder and file name.
        image: Values in [0, 1], shape ``(3, H, W)``.
        anomalous: Whether it is, where that is known.
    """

    name: str
    image: torch.Tensor
    anomalous: bool | None = None


def splits_of(datamodule: AnomalibDataModule, *names: str) -> list[AnomalibDataset]:
    """The data sets of a data module that there are, set up if they were not.

    Args:
        datamodule: Data module.
        *names: ``"train"``, ``"val"`` or ``"test"``.
    """
    if not any(hasattr(datamodule, f"{name}_data") for name in names):
        datamodule.prepare_data()
        datamodule.setup()
    found = [getattr(datamodule, f"{name}_data", None) for name in names]
    return [dataset for dataset in found if isinstance(dataset, AnomalibDataset) and len(dataset)]


def spread(datasets: list[AnomalibDataset], number: int) -> Iterator[NamedImage]:
    """Images at equal distances over data sets, or all where there are fewer.

    Args:
        datasets: Data sets, seen as one.
        number: Most images.
    """
    places = [(dataset, i) for dataset in datasets for i in range(len(dataset))]
    for place in np.linspace(0, len(places) - 1, min(number, len(places))).round().astype(int):
        dataset, i = places[place]
        item = dataset[i]
        path = Path(item.image_path or f"image/{i}")
        label = None if item.gt_label is None else bool(item.gt_label)
        yield NamedImage(f"{path.parent.name}/{path.name}", torch.as_tensor(item.image).float(), label)


def from_datamodule(datamodule: AnomalibDataModule, number: int = NUMBER) -> list[NamedImage]:
    """Images of the validation and test set, or of the training set where there is neither.

    Raises:
        ValueError: If the data module has no images.
    """
    images = list(spread(splits_of(datamodule, "val", "test"), number))
    images = images or list(spread(splits_of(datamodule, "train"), number))
    if not images:
        msg = f"the data module {type(datamodule).__name__} has no images to verify an exported model with"
        raise ValueError(msg)
    return images


def to_bytes(images: list[NamedImage]) -> dict[str, torch.Tensor]:
    """Images to keep in a checkpoint: bytes of at most ``LONGEST_SIDE`` pixels, by name."""
    kept = {}
    for name, image, _ in images:
        scale = min(1.0, LONGEST_SIDE / max(image.shape[1:]))
        size = [max(1, round(side * scale)) for side in image.shape[1:]]
        small = image if scale == 1 else resize(image, size, antialias=True)
        kept[name] = (small.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    return kept


def from_bytes(kept: dict[str, torch.Tensor]) -> list[NamedImage]:
    """Undo :func:`to_bytes`."""
    return [NamedImage(name, image.float() / 255) for name, image in kept.items()]


def generate(number: int = NUMBER, size: tuple[int, int] | None = None) -> list[NamedImage]:
    """Make images without any data: coarse and fine random structure, always the same.

    Args:
        number: How many.
        size: Height and width in pixels.
    """
    generator = torch.Generator().manual_seed(0)
    size = size or (GENERATED_SIZE, GENERATED_SIZE)
    layers = [
        weight * F.interpolate(torch.rand(number, 3, side, side, generator=generator), size, mode="bicubic")
        for side, weight in ((4, 0.5), (16, 0.3), (64, 0.2))
    ]
    return [NamedImage(f"generated/{i}", image) for i, image in enumerate(torch.stack(layers).sum(dim=0).clamp(0, 1))]


def as_batch(images: list[NamedImage], size: tuple[int, int] | None = None) -> np.ndarray:
    """Stack images.

    Args:
        images: Images.
        size: Height and width in pixels; the first image's by default.

    Returns:
        Single precision, shape ``(N, 3, H, W)``.
    """
    size = list(size or images[0].image.shape[1:])
    resized = [i.image if list(i.image.shape[1:]) == size else resize(i.image, size, antialias=True) for i in images]
    return torch.stack(resized).clamp(0, 1).contiguous().numpy()

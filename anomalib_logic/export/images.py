# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Images to verify, calibrate and evaluate exported models with."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.data.utils import read_image
from torch.nn import functional as F
from torchvision.transforms.v2.functional import resize

NUMBER = 3  # images that a file is verified with
LONGEST_SIDE = 512  # pixels, of images that travel in checkpoints
GENERATED_SIZE = (256, 256)  # where the model's own is not known

Size = tuple[int, int]


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

    @property
    def size(self) -> Size:
        """Height and width in pixels."""
        height, width = self.image.shape[1:]
        return height, width


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
    """Images at equal distances over data sets, or all where there are fewer, as their files have them.

    Data sets resize what they give to the model's size; exported files see images at their own.

    Args:
        datasets: Data sets, seen as one.
        number: Most images.
    """
    places = [(dataset, i) for dataset in datasets for i in range(len(dataset))]
    for place in np.linspace(0, len(places) - 1, min(number, len(places))).round().astype(int):
        dataset, i = places[place]
        sample = dataset.samples.iloc[i]
        path, label = Path(sample.image_path), sample.get("label_index")
        yield NamedImage(
            f"{path.parent.name}/{path.name}",
            read_image(path, as_tensor=True).as_subclass(torch.Tensor),  # type: ignore[union-attr]
            None if label is None else bool(label),
        )


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
    for image in images:
        scale = min(1.0, LONGEST_SIDE / max(image.size))
        height, width = (max(1, round(side * scale)) for side in image.size)
        small = _resized(image, (height, width))
        kept[image.name] = (small.image.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    return kept


def from_bytes(kept: dict[str, torch.Tensor]) -> list[NamedImage]:
    """Undo :func:`to_bytes`."""
    return [NamedImage(name, image.float() / 255) for name, image in kept.items()]


def generate(sizes: Sequence[Size]) -> list[NamedImage]:
    """Make images without any data, always the same: coarse structure, squares of 4 pixels and noise of 1 pixel.

    Fine texture is what images differ in that were resized in different ways.

    Args:
        sizes: Height and width of each image in pixels.

    Returns:
        Images whose values are multiples of 1 / 255, as those of files are.
    """
    generator = torch.Generator().manual_seed(0)
    images = []
    for i, (height, width) in enumerate(sizes):
        texture = torch.zeros(1, 3, height, width)
        for rows, columns, mode, weight in (
            (4, 4, "bicubic", 0.4),
            (-(-height // 4), -(-width // 4), "nearest", 0.3),
            (height, width, "nearest", 0.3),
        ):
            layer = torch.rand(1, 3, rows, columns, generator=generator)
            texture += weight * F.interpolate(layer, (height, width), mode=mode)
        images.append(NamedImage(f"generated/{i}", (texture[0].clamp(0, 1) * 255).round() / 255))
    return images


def sizes_around(size: Size | None) -> list[Size]:
    """Sizes of images to generate: three of a model's own size, one smaller, one of 3 to 4 times the size.

    Args:
        size: The model's own height and width in pixels.
    """
    height, width = size or GENERATED_SIZE
    return [(height, width)] * 3 + [(height * 3 // 5, width * 3 // 4), (height * 3 + 1, width * 4)]


def batches_of(images: Sequence[NamedImage], number: int) -> list[list[NamedImage]]:
    """Batches of images of equal size.

    Args:
        images: Images.
        number: Images in a batch. Where no size has so many, mirrored copies are added to the images of the first size.

    Returns:
        All full batches.
    """
    groups: dict[Size, list[NamedImage]] = {}
    for image in images:
        groups.setdefault(image.size, []).append(image)
    if all(len(group) < number for group in groups.values()):
        first = next(iter(groups.values()))
        first += [_mirrored(first[i % len(first)], i // len(first)) for i in range(number - len(first))]
    return [group[i : i + number] for group in groups.values() for i in range(0, len(group) - number + 1, number)]


def _mirrored(image: NamedImage, kind: int) -> NamedImage:
    axes = ((2,), (1,), (1, 2))[kind % 3]
    return image._replace(name=f"{image.name}, mirrored", image=image.image.flip(axes))


def as_batch(images: Sequence[NamedImage], size: Size | None = None) -> np.ndarray:
    """Stack images.

    Args:
        images: Images.
        size: Height and width in pixels; the first image's by default.

    Returns:
        Single precision, shape ``(N, 3, H, W)``.
    """
    size = size or images[0].size
    return torch.stack([_resized(image, size).image for image in images]).clamp(0, 1).contiguous().numpy()


def _resized(image: NamedImage, size: Size) -> NamedImage:
    """Resize as the engine does, unless the image has the size."""
    if image.size == tuple(size):
        return image
    return image._replace(image=resize(image.image, list(size), antialias=True))

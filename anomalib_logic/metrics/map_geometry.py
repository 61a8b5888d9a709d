# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Where on an image a model's anomaly map lies, after the resizes and centre crops of its pre-processing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from anomalib.data import PredictDataset
from anomalib.data.transforms import ExportableCenterCrop
from torchvision.transforms.v2 import CenterCrop, Compose, Lambda, Resize, Transform

from .functional import resize_anomaly_map

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lightning.pytorch import LightningModule

Size = tuple[int, int]

_CROPS = (CenterCrop, ExportableCenterCrop)
# Modules of torchvision whose transforms leave every pixel where it is
_PIXELWISE = tuple(f"torchvision.transforms.v2.{name}" for name in ("_augment", "_color", "_meta", "_misc"))
_CONVERSIONS = tuple(f"torchvision.transforms.v2.{name}" for name in ("_deprecated", "_type_conversion"))


class MapGeometry:
    """Undoes resizes and centre crops, so that a map covers the whole image again.

    A crop's surroundings, of which the model says nothing, get the lowest score of the map: no threshold calls them
    anomalous before all of the crop. Defects there count as missed.

    Args:
        *transforms: Transforms of an image file, in their order: of the data set, then of the model's pre-processor.

    Raises:
        ValueError: If a transform is random, another one that moves pixels, or unknown.
    """

    def __init__(self, *transforms: Transform | None) -> None:
        self._steps = [step for transform in transforms if transform is not None for step in _steps(transform)]

    def restore(self, anomaly_map: torch.Tensor, size: Size) -> torch.Tensor:
        """Place a map on its image.

        Args:
            anomaly_map: Map, real dtype, shape ``(h, w)``, of any resolution.
            size: Height and width of the image file in pixels.

        Returns:
            Map, float32, shape ``(H, W)``.

        Raises:
            ValueError: If the map is not 2-D or has a score that is not finite.
        """
        if not any(isinstance(step, _CROPS) for step in self._steps):
            return resize_anomaly_map(anomaly_map, size)
        sizes = [size]
        for step in self._steps:
            sizes.append(_size_after(step, sizes[-1]))
        for i in reversed(range(len(self._steps))):
            # A resize needs no undoing of its own: whatever the map's resolution, it covers the same part
            if isinstance(self._steps[i], _CROPS):
                anomaly_map = _undo_crop(resize_anomaly_map(anomaly_map, sizes[i + 1]), sizes[i])
        return resize_anomaly_map(anomaly_map, size)


def map_geometry(datasets: Sequence[Any], module: LightningModule | None) -> MapGeometry:
    """Return the geometry of a run's maps.

    Args:
        datasets: Anomalib data sets of the run, or anything else.
        module: Model with, perhaps, Anomalib's pre-processor.

    Raises:
        ValueError: If a transform of the data or of the pre-processor cannot be undone, or the data sets differ.
    """
    pre_processing = getattr(getattr(module, "pre_processor", None), "transform", None)
    augmentations = [_transform_of(dataset) for dataset in datasets] or [None]
    if any(transform is not augmentations[0] for transform in augmentations):
        msg = "the data sets must have the same augmentations, for maps to be placed on their images"
        raise ValueError(msg)
    return MapGeometry(augmentations[0], pre_processing)


def _transform_of(dataset: Any) -> Transform | None:
    """The transform that a data set applies to its images."""
    return dataset.transform if isinstance(dataset, PredictDataset) else getattr(dataset, "augmentations", None)


def _steps(transform: Transform) -> Iterator[Transform]:
    """Yield the resizes and centre crops of a transform."""
    if isinstance(transform, Compose):
        for part in transform.transforms:
            yield from _steps(part)
    elif isinstance(transform, (Resize, *_CROPS)):
        yield transform
    elif not _keeps_places(transform):
        msg = (
            f"maps cannot be placed on their images again after {type(transform).__name__}, which the pre-processor or "
            "the test augmentations apply; only Resize, CenterCrop and transforms that move no pixel can be there"
        )
        raise ValueError(msg)


def _keeps_places(transform: Transform) -> bool:
    """Tell whether a transform leaves every pixel where it is."""
    parts = getattr(transform, "transforms", None)
    if parts is not None:
        return all(_keeps_places(part) for part in parts)
    modules = {parent.__module__ for parent in type(transform).__mro__}
    return bool(modules.intersection((*_PIXELWISE, *_CONVERSIONS))) and not isinstance(transform, Lambda)


def _size_after(step: Transform, size: Size) -> Size:
    """Height and width of an image after a step."""
    if isinstance(step, Resize):
        height, width = Resize(step.size, max_size=step.max_size)(torch.empty(1, *size, device="meta")).shape[-2:]
        return height, width
    height, width = step.size if len(step.size) == 2 else step.size * 2
    return int(height), int(width)


def _undo_crop(crop: torch.Tensor, size: Size) -> torch.Tensor:
    """Put a crop back into the middle of a map of the size before."""
    whole = crop.new_full(size, float(crop.min()))
    inner, outer = zip(*(_overlap(part, all_) for part, all_ in zip(crop.shape, size, strict=True)), strict=True)
    whole[outer] = crop[inner]
    return whole


def _overlap(crop: int, whole: int) -> tuple[slice, slice]:
    """Slices of a crop and of the whole that show the same, along one side; a larger crop was padded."""
    if crop > whole:
        padding = (crop - whole) // 2
        return slice(padding, padding + whole), slice(0, whole)
    start = round((whole - crop) / 2)  # as torchvision rounds it
    return slice(0, crop), slice(start, start + crop)

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Pre-processing that is the same in Anomalib's engine and in exported files."""

import copy
from typing import Literal

import torch
from anomalib.pre_processing import PreProcessor
from anomalib.pre_processing.utils.transform import convert_center_crop_transform
from torch import nn
from torchvision.transforms.v2 import Compose, InterpolationMode, Resize, Transform

Filter = Literal["bilinear", "bicubic"]
TILE = 16  # positions of the result that one product computes: more need more arithmetic, fewer more copies
RADIUS = {"bilinear": 1, "bicubic": 2}  # of the filters, in steps of the coarser of the two grids


class AntialiasedResize(nn.Module):
    """Resize images as ``torchvision.transforms.v2.Resize(size, interpolation, antialias=True)`` does, as products.

    Anomalib switches antialiasing off in exported graphs, and OpenVINO's conversion of ONNX drops it. Each axis is
    resized by products of blocks of rows with matrices of filter weights, which every runtime computes alike. The
    weights come from the images' size, which may be dynamic.

    Positions are whole numbers: computed in half precision, they would be off by whole pixels.

    Args:
        size: Height and width of the result in pixels.
        interpolation: ``"bilinear"`` (a triangle) or ``"bicubic"`` (Keys' kernel with a = -0.5).
    """

    def __init__(self, size: tuple[int, int], interpolation: Filter = "bilinear") -> None:
        super().__init__()
        self.size = (size[0], size[1])
        self.interpolation = interpolation

    def extra_repr(self) -> str:
        """Size and filter."""
        return f"size={self.size}, interpolation={self.interpolation}"

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Resize.

        Args:
            images: Shape ``(..., H, W)``, floating point.

        Returns:
            Shape ``(..., *size)``.
        """
        height, width = self.size
        planes = images.reshape(-1, images.shape[-2], images.shape[-1])
        columns = _resize_rows(planes, height, self.interpolation).transpose(1, 2)
        resized = _resize_rows(columns, width, self.interpolation).transpose(1, 2)
        return resized.reshape(*images.shape[:-2], height, width)


def _resize_rows(planes: torch.Tensor, out: int, interpolation: Filter) -> torch.Tensor:
    """Resize the first of two axes.

    Args:
        planes: Shape ``(M, L, W)``.
        out: New length of the axis.
        interpolation: See :class:`AntialiasedResize`.

    Returns:
        Shape ``(M, out, W)``.
    """
    number, length, width = planes.shape
    tiles = -(-out // TILE)
    radius = RADIUS[interpolation]
    # Distances are in units of 1 / (2 * out) of a row of the input; the coarser grid has steps of `step`.
    end = torch.ones_like(planes[0, :, 0], dtype=torch.int64).sum()
    step = 2 * end.clamp(min=out)
    targets = torch.arange(tiles * TILE, device=planes.device).reshape(tiles, TILE, 1)
    centers = (2 * targets + 1) * end
    first = (centers[:, :1] - radius * step).clamp(min=0) // (2 * out)
    taps = (TILE - 1 + 2 * radius) * length // out + 2 * radius + 3
    rows = first + torch.arange(taps, device=planes.device).reshape(1, 1, -1)
    distances = ((2 * rows + 1) * out - centers).abs().minimum(radius * step)
    weights = _filter(distances.to(planes.dtype) / step.to(planes.dtype), interpolation)
    weights = torch.where(rows < end, weights, 0.0)
    weights = weights / weights.sum(dim=2, keepdim=True).clamp(min=1e-3)  # rows beyond `out` have no weights
    blocks = planes.index_select(1, rows.minimum(end - 1).flatten()).reshape(number * tiles, -1, width)
    resized = weights.repeat(number, 1, 1) @ blocks  # OpenVINO's CPU plug-in is at its best with three dimensions
    return resized.reshape(number, tiles * TILE, width)[:, :out]


def _filter(distance: torch.Tensor, interpolation: Filter) -> torch.Tensor:
    """Value of the filter at a distance of at most its radius."""
    if interpolation == "bilinear":
        return 1 - distance
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return torch.where(distance < 1, near, far)


def make_exact(pre_processor: nn.Module | None) -> None:
    """Let a pre-processor compute the same in ``forward``, which exported files contain, as in Anomalib's engine.

    Anomalib's ``export_transform`` is replaced: each antialiased bilinear or bicubic ``Resize`` to a fixed height and
    width becomes an :class:`AntialiasedResize`, anything else is that of ``transform``. Other modules than Anomalib's
    ``PreProcessor`` have one way only, and stay as they are.

    Args:
        pre_processor: A model's pre-processor.
    """
    if isinstance(pre_processor, PreProcessor) and pre_processor.transform is not None:
        exportable = convert_center_crop_transform(copy.deepcopy(pre_processor.transform))
        pre_processor.export_transform = _exact(exportable)


def _exact(transform: Transform) -> nn.Module:
    if isinstance(transform, Compose):
        return Compose([_exact(part) for part in transform.transforms])
    if not isinstance(transform, Resize) or not _antialiased(transform) or not _fixed(transform):
        return transform
    return AntialiasedResize(tuple(transform.size), InterpolationMode(transform.interpolation).value)


def _antialiased(resize: Resize) -> bool:
    return bool(resize.antialias) and str(InterpolationMode(resize.interpolation).value) in RADIUS


def _fixed(resize: Resize) -> bool:
    return resize.size is not None and len(resize.size) == 2


def check_exportable(pre_processor: nn.Module | None) -> None:
    """Refuse transforms that a graph cannot compute as the engine does.

    Args:
        pre_processor: A model's pre-processor.

    Raises:
        ValueError: If an antialiased ``Resize`` keeps the aspect ratio, so that its result has no fixed size.
    """
    for part in _parts(getattr(pre_processor, "export_transform", None)):
        if isinstance(part, Resize) and _antialiased(part):
            msg = (
                f"an exported graph cannot resize as the pre-processor's {part} does, which keeps the aspect ratio: "
                "give Resize a height and a width, for example Resize((224, 224))"
            )
            raise ValueError(msg)


def engine_resize(pre_processor: nn.Module | None) -> tuple[int, int] | None:
    """Size to which the engine resizes an image before anything else, antialiased and bilinear.

    Args:
        pre_processor: A model's pre-processor.

    Returns:
        Height and width in pixels; ``None`` if the pre-processor begins with anything else.
    """
    first = next(iter(_parts(getattr(pre_processor, "export_transform", None))), None)
    return first.size if isinstance(first, AntialiasedResize) and first.interpolation == "bilinear" else None


def _parts(transform: nn.Module | None) -> list[nn.Module]:
    """Single transforms in their order."""
    if isinstance(transform, Compose):
        return [part for child in transform.transforms for part in _parts(child)]
    return [] if transform is None else [transform]

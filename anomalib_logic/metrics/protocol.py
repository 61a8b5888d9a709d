# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The MVTec LOCO AD protocol: which images and regions each metric considers.

A *logical* metric considers the good images and those with logical anomalies, a *structural* one the good images and
those with structural anomalies, and the *mean* is the mean of the two. In AutoVI's layout each folder of anomalies is a
kind, whose metric considers the good images and that folder's, and the mean is over all kinds. A metric of one defect
type considers the good images and those that show the defect, and of the latter's regions only the defect's.
"""

from __future__ import annotations

import ctypes
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from anomalib_logic.data.image_files import read_size
from anomalib_logic.data.loco_layout import (
    ANOMALY_KINDS,
    GOOD,
    GROUND_TRUTH_FOLDER,
    LOGICAL_ANOMALIES,
    SPLIT_FOLDERS,
    STRUCTURAL_ANOMALIES,
    DefectConfig,
    anomaly_kind,
    has_ground_truth,
    mask_folder,
    read_defect_channels,
    read_defects_config,
)
from anomalib_logic.data.mask_files import list_masks

from .functional import (
    ScoreCounts,
    SproCurve,
    au_spro,
    auroc,
    count_scores,
    resize_anomaly_map,
    saturation_area,
    spro_curve,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MEAN = "mean"
KIND_FOLDERS: Mapping[str, str] = {"logical": LOGICAL_ANOMALIES, "structural": STRUCTURAL_ANOMALIES}
KINDS = (*KIND_FOLDERS, MEAN)


class Region(NamedTuple):
    """Scores in one defect channel.

    Attributes:
        pixel_value: The defect's type.
        saturation: Saturation area in pixels.
        scores: The channel's scores.
        number: How many channels of that type it stands for.
    """

    pixel_value: int
    saturation: float
    scores: ScoreCounts
    number: int = 1


@dataclass(frozen=True)
class ImageScores:
    """What is kept of one image's anomaly map: some 150 kB however large the map.

    Attributes:
        kind: Name of the image's folder.
        defect_free: Scores of the pixels that are free in every channel.
        regions: One for each defect channel; none for a good image.
    """

    kind: str
    defect_free: ScoreCounts
    regions: list[Region] = field(default_factory=list)

    @property
    def image_score(self) -> float:
        """Maximum of the map at the image's original size."""
        parts = [self.defect_free, *(region.scores for region in self.regions)]
        return max(float(part.values[-1]) for part in parts if len(part.values))


def measure_image(
    anomaly_map: torch.Tensor,
    image_path: str | Path,
    configs: Sequence[DefectConfig] | None,
    restore: Callable[[torch.Tensor, tuple[int, int]], torch.Tensor] = resize_anomaly_map,
) -> ImageScores:
    """Place a map on its image at the original size, and count the scores in each of the image's defect channels.

    Args:
        anomaly_map: Map, real dtype, shape ``(h, w)``.
        image_path: ``<category>/test/<kind>/<stem>.<suffix>``; masks are read from the category's ``ground_truth``.
        configs: The category's defects; ``None``: masks are not read, and all scores count as defect-free.
        restore: Places a map on an image of the given height and width.

    Returns:
        The image's scores, on the map's device.

    Raises:
        FileNotFoundError: If an anomalous image has no masks.
        ValueError: If the path is not in the LOCO layout, a file is broken, a mask does not fit its image or the
            configuration, or the map is not 2-D or not finite.
    """
    image_path = Path(image_path)
    kind = anomaly_kind(image_path)
    size = read_size(image_path)
    try:
        scores = restore(anomaly_map, size)
    except ValueError as error:
        msg = f"{image_path}: {error}"
        raise ValueError(msg) from error
    if kind == GOOD or configs is None:
        return ImageScores(kind, count_scores(scores))
    regions = []
    defective = torch.zeros(size, dtype=torch.bool, device=scores.device)
    for channel in read_defect_channels(mask_folder(image_path), configs, image_size=size):
        mask = channel.mask.to(scores.device)
        defective |= mask
        inside = _select(scores, mask)
        config = channel.config
        assert config is not None  # there are configs
        saturation = saturation_area(len(inside), config.saturation_threshold, config.relative_saturation)
        regions.append(Region(channel.pixel_value, saturation, count_scores(inside)))
    return ImageScores(kind, count_scores(_select(scores, ~defective)), regions)


def return_free_memory() -> None:
    """Give memory that the C library holds as free back to the system, where it is glibc; elsewhere do nothing.

    Each image's large temporary arrays leave gaps in the heap that what is kept of the image splits. Without this, 300
    maps of 1600 x 1280 pixels held gigabytes.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _select(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Index with a mask; on CPUs NumPy takes a tenth of PyTorch's time."""
    if scores.device.type != "cpu":
        return scores[mask]
    return torch.from_numpy(scores.numpy()[mask.numpy()])


def image_auroc(kinds: Sequence[str], scores: torch.Tensor, kind: str) -> float:
    """Image AUROC of one kind of anomalies against the good images, or the mean over the kinds.

    Args:
        kinds: Folder name of each image.
        scores: Score of each image, shape ``(N,)``.
        kind: One of ``KINDS``, or the name of a folder of anomalies.

    Raises:
        ValueError: If there is no image of a kind that the metric needs.
    """

    def value(folder: str) -> float:
        parts = [scores[[name == wanted for name in kinds]] for wanted in (GOOD, folder)]
        return float(auroc(*parts))

    require_kinds(kinds, kind)
    return _mean_over_kinds(value, kinds, kind)


def image_au_spro(
    images: Sequence[ImageScores], limit: float, kind: str = MEAN, pixel_value: int | None = None
) -> float:
    """AU-sPRO of one kind of anomalies, of the mean over the kinds, or of one defect type.

    Args:
        images: All images of the test set.
        limit: False positive rate up to which the curve counts, in (0, 1].
        kind: One of ``KINDS``, or the name of a folder of anomalies.
        pixel_value: Pixel value of a defect type, instead of a kind.

    Returns:
        The metric, in [0, 1]; NaN if no image shows the defect.

    Raises:
        ValueError: If there is no image of a kind that the metric needs, or no defect-free pixel.
    """
    if pixel_value is not None:
        curve = defect_curve(images, pixel_value)
        return math.nan if curve is None else float(au_spro(curve.fpr, curve.spro, limit))

    def value(folder: str) -> float:
        curve = kind_curve(images, folder)
        return float(au_spro(curve.fpr, curve.spro, limit))

    kinds = [image.kind for image in images]
    require_kinds(kinds, kind)
    return _mean_over_kinds(value, kinds, kind)


def kind_curve(images: Iterable[ImageScores], folder: str) -> SproCurve:
    """Curve over the good images and those of one kind.

    Args:
        images: All images of the test set.
        folder: Name of the kind's folder.

    Raises:
        ValueError: If there is no defect-free pixel or no region.
    """
    images = [image for image in images if image.kind in (GOOD, folder)]
    return _curve(images, [region for image in images for region in image.regions])


def defect_curve(images: Iterable[ImageScores], pixel_value: int) -> SproCurve | None:
    """Curve over the good images and those that show one defect type, or ``None`` if no image shows it."""
    images = [
        image for image in images if image.kind == GOOD or any(r.pixel_value == pixel_value for r in image.regions)
    ]
    regions = [region for image in images for region in image.regions if region.pixel_value == pixel_value]
    return _curve(images, regions) if regions else None


def _curve(images: Sequence[ImageScores], regions: Sequence[Region]) -> SproCurve:
    return spro_curve(
        [image.defect_free for image in images],
        [region.scores for region in regions],
        [region.saturation for region in regions],
        [region.number for region in regions],
    )


def _mean_over_kinds(value: Callable[[str], float], kinds: Iterable[str], kind: str) -> float:
    values = [value(folder) for folder in _anomaly_folders(kinds, kind)]
    return math.fsum(values) / len(values)  # exact, for processes may know the folders in different orders


def _anomaly_folders(kinds: Iterable[str], kind: str) -> tuple[str, ...]:
    """Return the folders of anomalies that a metric needs, where the images have the given kinds."""
    return mean_folders(kinds) if kind == MEAN else (KIND_FOLDERS.get(kind, kind),)


def mean_folders(kinds: Iterable[str]) -> tuple[str, ...]:
    """Return the folders of anomalies that the mean is over: LOCO's two, or all that there are in AutoVI's layout."""
    others = tuple(sorted(set(kinds).difference(ANOMALY_KINDS)))
    return others or tuple(KIND_FOLDERS.values())


def metric_kinds(kinds: Iterable[str]) -> tuple[str, ...]:
    """Return the kinds of metrics of a test set: ``KINDS``, or in AutoVI's layout its folders and the mean.

    Args:
        kinds: Folder name of each image.

    Raises:
        ValueError: If two folders have the same name in metrics (see :func:`metric_name`).
    """
    folders = mean_folders(kinds)
    if folders == tuple(KIND_FOLDERS.values()):
        return KINDS
    names = [metric_name(folder) for folder in folders]
    for name in names:
        if names.count(name) > 1:
            same = [folder for folder in folders if metric_name(folder) == name]
            msg = f"the folders {same} of test images have the same name in metrics, {name!r}; rename one"
            raise ValueError(msg)
    return (*folders, MEAN)


def metric_name(kind: str) -> str:
    """Return a kind as metrics and files of loggers can have it in their names: letters, digits and underscores."""
    return re.sub(r"\W+", "_", kind)


def require_kinds(kinds: Iterable[str], kind: str) -> None:
    """Raise ``ValueError`` unless there are good images and images of the kinds that a metric needs.

    Args:
        kinds: Folder name of each image.
        kind: One of ``KINDS``, or the name of a folder of anomalies.
    """
    present = set(kinds)
    needed = (GOOD, *_anomaly_folders(present, kind))
    missing = [folder for folder in needed if folder not in present]
    if missing:
        msg = f"the {kind} metric needs test images in each of the folders {needed}, but there are none in {missing}"
        raise ValueError(msg)


def check_test_images(image_paths: Iterable[str | Path]) -> Path:
    """Check that images form the test set of one category in the layout of LOCO or AutoVI.

    Args:
        image_paths: Paths of all test images.

    Returns:
        The category's folder.

    Raises:
        ValueError: If there are no images, one lies elsewhere than in ``<category>/test/<kind>``, or the images are
            of several categories.
    """
    folders = set()
    for path in map(Path, image_paths):
        anomaly_kind(path)
        if len(path.parents) < 4 or path.parents[1].name != SPLIT_FOLDERS["test"]:
            msg = f"test images must lie in <category>/test/<kind>/, got {path}"
            raise ValueError(msg)
        folders.add(path.parents[2])
    if len(folders) != 1:
        found = sorted(map(str, folders)) or "none"
        msg = f"metrics are computed for one category at a time, got test images of {found}"
        raise ValueError(msg)
    return folders.pop()


def check_ground_truth(image_paths: Iterable[str | Path]) -> list[DefectConfig]:
    """Check that a category has its defect configuration and each anomalous image its masks, without decoding them.

    Args:
        image_paths: Paths of all test images.

    Returns:
        The category's defects.

    Raises:
        FileNotFoundError: If the ground truth, the configuration or an image's masks are missing.
        ValueError: If the configuration is malformed, or as :func:`check_test_images` does.
    """
    image_paths = list(image_paths)
    category = check_test_images(image_paths)
    if not has_ground_truth(category):
        msg = f"{category} has no {GROUND_TRUTH_FOLDER} folder, so there are no masks for pixel metrics"
        raise FileNotFoundError(msg)
    configs = read_defects_config(category)
    for path in image_paths:
        if anomaly_kind(path) != GOOD:
            list_masks(mask_folder(path))
    return configs

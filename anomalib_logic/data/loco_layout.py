# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The folder layout of MVTec LOCO AD: images by split and kind, defect channels, defect configuration.

A category is one folder::

    train/good/*.png
    validation/good/*.png
    test/{good,logical_anomalies,structural_anomalies}/*.png
    ground_truth/{logical_anomalies,structural_anomalies}/<image stem>/*.png    one file for each defect
    defects_config.json                                                         one entry for each defect type

In AutoVI's layout the folders of anomalies are named after defects, each of them a kind of its own, and there is no
``validation``. Images may have any of Anomalib's formats, masks any lossless one of them (see
:mod:`~anomalib_logic.data.image_files` and :mod:`~anomalib_logic.data.mask_files`). Without ``ground_truth`` no image
has masks. Everything here reads such a folder and refuses what is broken, naming the file and the remedy.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .image_files import list_images, read_size
from .left_out import name_left_out
from .mask_files import list_masks, read_mask_size, read_mask_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

GOOD = "good"
LOGICAL_ANOMALIES = "logical_anomalies"
STRUCTURAL_ANOMALIES = "structural_anomalies"
ANOMALY_KINDS = (GOOD, LOGICAL_ANOMALIES, STRUCTURAL_ANOMALIES)
SPLIT_FOLDERS = {"train": "train", "val": "validation", "test": "test"}
GROUND_TRUTH_FOLDER = "ground_truth"
DEFECTS_CONFIG_FILE = "defects_config.json"

_MANIFESTS = ("loco_scenes.json", "digit_anatomy.json")  # of rendered data sets
_KNOWN_NAMES = (*SPLIT_FOLDERS.values(), GROUND_TRUTH_FOLDER, DEFECTS_CONFIG_FILE, *_MANIFESTS)
_RESERVED_NAMES = ("logical", "structural", "mean")  # of metrics
_CONFIG_KEYS = ("defect_name", "pixel_value", "saturation_threshold", "relative_saturation")


@dataclass(frozen=True)
class DefectConfig:
    """One entry of ``defects_config.json``.

    Args:
        defect_name: Name of the defect type.
        pixel_value: Value, 1 to 255, of the defect's pixels in its masks.
        saturation_threshold: Share of the defect's area in (0, 1] if ``relative_saturation``, else pixels.
        relative_saturation: Whether the threshold is a share of the area.
    """

    defect_name: str
    pixel_value: int
    saturation_threshold: float
    relative_saturation: bool


@dataclass(frozen=True)
class DefectChannel:
    """One defect of one image.

    Args:
        path: File that the channel was read from.
        mask: Defect pixels at the original resolution, bool, shape ``(H, W)``.
        pixel_value: The file's one non-zero value, which names the defect type.
        config: Entry of ``defects_config.json`` for that value, or ``None`` if read without a configuration.
    """

    path: Path
    mask: torch.Tensor
    pixel_value: int
    config: DefectConfig | None = None


@dataclass(frozen=True)
class LocoImage:
    """One image of a category.

    Args:
        path: File of the image.
        kind: Name of the image's folder, one of :func:`category_kinds`.
        mask_folder: Folder with the image's masks, ``None`` if the image is normal or the category has no
            ``ground_truth``.
    """

    path: Path
    kind: str
    mask_folder: Path | None = None


def category_kinds(category_folder: str | Path) -> tuple[str, ...]:
    """Return the kinds that a category's test images may have.

    Args:
        category_folder: The category's folder.

    Returns:
        ``ANOMALY_KINDS``; in AutoVI's layout ``"good"`` and the names of the other folders in ``test``, sorted. A
        category has AutoVI's layout if ``test`` has none of LOCO's two folders of anomalies, and there is
        ``defects_config.json`` or a folder of masks for each image.

    Raises:
        ValueError: If a folder has a name that a metric has.
    """
    folder = Path(category_folder)
    names = [path.name for path in _folders(folder / SPLIT_FOLDERS["test"]) if path.name != GOOD]
    if not names or any(name in ANOMALY_KINDS for name in names) or not _has_channels(folder, names):
        return ANOMALY_KINDS
    reserved = [name for name in names if name in _RESERVED_NAMES]
    if reserved:
        msg = f"{folder / SPLIT_FOLDERS['test'] / reserved[0]} has the name of a metric; rename it as its masks' folder"
        raise ValueError(msg)
    return (GOOD, *names)


def _has_channels(folder: Path, names: Sequence[str]) -> bool:
    """Tell whether a category has what the masks of LOCO and AutoVI have: a configuration, or a folder an image."""
    truth = folder / GROUND_TRUTH_FOLDER
    return (folder / DEFECTS_CONFIG_FILE).is_file() or any(_folders(truth / name) for name in names)


def has_ground_truth(category_folder: str | Path) -> bool:
    """Tell whether a category has a ``ground_truth`` folder, without which no image has masks."""
    return (Path(category_folder) / GROUND_TRUTH_FOLDER).is_dir()


def _folders(folder: Path) -> list[Path]:
    """Return the folders right below a folder, which need not exist, sorted and without hidden ones."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in paths if path.is_dir() and not path.name.startswith("."))


def anomaly_kind(image_path: str | PurePath) -> str:
    """Tell from an image's path whether it is normal, a logical or a structural anomaly, or which defect AutoVI's has.

    The name of the folder that holds the image counts, in POSIX as in Windows paths. Only other names than LOCO's
    need the category on disk, in AutoVI's layout.

    Args:
        image_path: Path of an image in the layout of LOCO or AutoVI. The file need not exist.

    Returns:
        ``"good"``, ``"logical_anomalies"`` or ``"structural_anomalies"``; in AutoVI's layout the folder's name.

    Raises:
        ValueError: If the image's folder is none of these.
    """
    kind = PureWindowsPath(str(image_path)).parent.name
    if kind in ANOMALY_KINDS:
        return kind
    path = Path(image_path)
    if len(path.parents) > 2 and path.parents[1].name == SPLIT_FOLDERS["test"]:
        kind = path.parent.name
        if kind in category_kinds(path.parents[2]):
            return kind
    msg = f"image_path must lie in a folder named one of {ANOMALY_KINDS}, got {str(image_path)!r}"
    raise ValueError(msg)


def anomaly_kinds(image_paths: Iterable[str | PurePath]) -> list[str]:
    """Apply :func:`anomaly_kind` to each path, for example to ``batch.image_path``."""
    return [anomaly_kind(path) for path in image_paths]


def mask_folder(image_path: str | Path) -> Path:
    """Return the folder that holds the masks of an anomalous image.

    Args:
        image_path: ``<category>/test/<kind>/<stem>.<suffix>`` of an anomalous image.

    Returns:
        ``<category>/ground_truth/<kind>/<stem>``, whether or not it exists.

    Raises:
        ValueError: If the image is normal or does not lie in the LOCO layout.
    """
    image_path = Path(image_path)
    kind = anomaly_kind(image_path)
    if kind == GOOD:
        msg = f"image_path must be an anomalous image, got {str(image_path)!r}: normal images have no masks"
        raise ValueError(msg)
    return image_path.parents[2] / GROUND_TRUTH_FOLDER / kind / image_path.stem


def read_defects_config(path: str | Path) -> list[DefectConfig]:
    """Read a category's ``defects_config.json``.

    Args:
        path: The file, or the category's folder that holds it.

    Returns:
        Entries in the file's order.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no valid list of defects, naming the entry and the key.
    """
    path = Path(path)
    if path.is_dir():
        path = path / DEFECTS_CONFIG_FILE
    if not path.is_file():
        msg = f"{path} does not exist; it must list the category's defects with the keys {_CONFIG_KEYS}"
        raise FileNotFoundError(msg)
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        msg = f"{path} is not valid JSON ({error}); restore the data set's own file"
        raise ValueError(msg) from error
    if not isinstance(entries, list) or not entries:
        msg = f"{path} must hold a non-empty list of defects, got {type(entries).__name__}: {str(entries)[:80]}"
        raise ValueError(msg)
    configs = [_parse_defect(entry, f"{path}, entry {index}") for index, entry in enumerate(entries)]
    values = [config.pixel_value for config in configs]
    for value in values:
        if values.count(value) > 1:
            names = [config.defect_name for config in configs if config.pixel_value == value]
            msg = f"{path}: pixel_value must be unique, got {value} for {names}"
            raise ValueError(msg)
    return configs


def _parse_defect(entry: Any, where: str) -> DefectConfig:
    """Check one entry of the configuration and convert it."""
    missing = [key for key in _CONFIG_KEYS if not isinstance(entry, dict) or key not in entry]
    if missing:
        msg = f"{where} must be an object with the keys {_CONFIG_KEYS}, but {missing} are missing: {entry!r}"
        raise ValueError(msg)
    name, value, threshold, relative = (entry[key] for key in _CONFIG_KEYS)
    if not isinstance(name, str) or not name:
        msg = f"{where}: defect_name must be a non-empty string, got {name!r}"
        raise ValueError(msg)
    if type(value) is not int or not 1 <= value <= 255:
        msg = f"{where}: pixel_value must be an integer from 1 to 255, got {value!r}"
        raise ValueError(msg)
    if not isinstance(relative, bool):
        msg = f"{where}: relative_saturation must be true or false, got {relative!r}"
        raise ValueError(msg)
    if type(threshold) not in (int, float) or not 0 < threshold <= (1 if relative else float("inf")):
        wanted = "a share of the area in (0, 1]" if relative else "a positive number of pixels"
        msg = f"{where}: saturation_threshold must be {wanted}, got {threshold!r}"
        raise ValueError(msg)
    return DefectConfig(name, value, float(threshold), relative)


def read_defect_channels(
    folder: str | Path,
    configs: Sequence[DefectConfig] | None = None,
    image_size: tuple[int, int] | None = None,
) -> list[DefectChannel]:
    """Read all masks of one image, one channel for each file, in the order of the file names.

    Args:
        folder: The image's mask folder, see :func:`mask_folder`.
        configs: Known defects, see :func:`read_defects_config`. ``None``: accept any pixel value.
        image_size: Height and width in pixels that every mask must have. ``None``: accept any size.

    Returns:
        At least one channel.

    Raises:
        FileNotFoundError: If the folder does not exist or holds no image file.
        ValueError: If a file is no mask (see :mod:`~anomalib_logic.data.mask_files`), has another size, has not exactly
            one non-zero value, or has a value that ``configs`` does not list.
    """
    folder = Path(folder)
    by_value = None if configs is None else {config.pixel_value: config for config in configs}
    channels = []
    for path in list_masks(folder):
        pixels = read_mask_values(path)
        if image_size is not None and pixels.shape != tuple(image_size):
            msg = f"mask {path} must be as large as its image, {_size(image_size)}, got {_size(pixels.shape)}"
            raise ValueError(msg)
        value = int(pixels.max())
        mask = pixels != 0
        if not value or (mask & (pixels != value)).any():
            msg = f"mask {path} must have exactly one non-zero pixel value, got {np.unique(pixels[mask]).tolist()}"
            raise ValueError(msg)
        if by_value is not None and value not in by_value:
            known = {entry.pixel_value: entry.defect_name for entry in by_value.values()}
            msg = f"mask {path} has the unknown pixel value {value}; {DEFECTS_CONFIG_FILE} knows {known}"
            raise ValueError(msg)
        config = None if by_value is None else by_value[value]
        channels.append(DefectChannel(path, torch.from_numpy(mask), value, config))
    return channels


def find_categories(root: str | Path) -> list[str]:
    """Return the names of the folders right below ``root`` that hold a ``train`` and a ``test`` folder, sorted."""
    root = Path(root)
    if not root.is_dir():
        return []
    folders = (path for path in root.iterdir() if not path.name.startswith("."))
    return sorted(path.name for path in folders if (path / "train").is_dir() and (path / "test").is_dir())


def find_images(category_folder: str | Path, split: str) -> list[LocoImage]:
    """List a split's images and check its layout without decoding pixels.

    Checked: folders and kinds, that no split is empty, that images and mask folders belong together, that every image
    and mask has the header of an image file of one picture, and that masks are as large as their image. A warning names
    what is left out: hidden files, files of other formats, and folders that the layout does not know.

    Args:
        category_folder: The category's folder.
        split: ``"train"``, ``"val"`` or ``"test"``.

    Returns:
        Images sorted by kind and file name.

    Raises:
        FileNotFoundError: If a folder, an image or a mask is missing, or a link to nothing.
        ValueError: If ``split`` or a folder's name is unknown, a file is no image or no mask, or has several pictures,
            two files differ only in their suffix, or a mask's size differs.
    """
    if split not in SPLIT_FOLDERS:
        msg = f"split must be one of {tuple(SPLIT_FOLDERS)}, got {split!r}"
        raise ValueError(msg)
    category_folder = Path(category_folder)
    split_folder = category_folder / SPLIT_FOLDERS[split]
    kinds = category_kinds(category_folder) if split == "test" else (GOOD,)
    _check_kind_folders(split_folder, split, kinds)
    images = [LocoImage(path, GOOD) for path in list_images(split_folder / GOOD)]
    if not images:
        hint = " or choose another val_split_mode than 'from_dir'" if split == "val" else ""
        msg = f"{split_folder / GOOD} holds no image: the {split} split is empty. Put normal images there{hint}"
        raise FileNotFoundError(msg)
    anomalous = [image for kind in kinds if kind != GOOD for image in _find_anomalous(category_folder, kind)]
    if split == "test" and not anomalous:
        msg = f"{split_folder} has no anomalous image: at least one of {kinds[1:]} must hold an image"
        raise FileNotFoundError(msg)
    images += anomalous
    used = [path for image in images for path in (image.path, *_check_headers(image))]
    name_left_out(category_folder, known=_KNOWN_NAMES)
    name_left_out(split_folder, used)
    if split == "test":
        name_left_out(category_folder / GROUND_TRUTH_FOLDER, used)
    return images


def _check_kind_folders(split_folder: Path, split: str, kinds: Sequence[str]) -> None:
    """Refuse a missing split folder and kinds that the split must not have."""
    if not split_folder.is_dir():
        msg = f"{split_folder} does not exist: the {split} split is missing. "
        if split == "val":
            msg += "Add it, or choose another val_split_mode than 'from_dir', such as 'from_test' or 'same_as_test'"
        else:
            msg += f"Add it, or remove {split_folder.parent} to have an official category downloaded again"
        raise FileNotFoundError(msg)
    for folder in _folders(split_folder):
        if folder.name not in kinds:
            hint = f" (or all after defects, as in AutoVI, beside {DEFECTS_CONFIG_FILE})" if split == "test" else ""
            msg = f"unknown folder {folder}: folders in {split_folder.name} must be named one of {kinds}{hint}"
            raise ValueError(msg)


def _find_anomalous(category_folder: Path, kind: str) -> list[LocoImage]:
    """Pair the anomalous images of one kind with their mask folders."""
    paths = list_images(category_folder / SPLIT_FOLDERS["test"] / kind)
    truth_folder = category_folder / GROUND_TRUTH_FOLDER / kind
    masked = has_ground_truth(category_folder)
    stems = {path.stem for path in paths}
    for folder in _folders(truth_folder):
        if folder.name not in stems:
            image = category_folder / SPLIT_FOLDERS["test"] / kind / f"{folder.name}.png"
            msg = f"mask folder {folder} has no image {image}; restore the image or remove the masks"
            raise FileNotFoundError(msg)
    return [LocoImage(path, kind, truth_folder / path.stem if masked else None) for path in paths]


def _check_headers(image: LocoImage) -> list[Path]:
    """Compare the sizes in the headers of an image and its masks; return the masks."""
    size = read_size(image.path)
    if image.mask_folder is None:
        return []
    if not image.mask_folder.is_dir():
        msg = f"image {image.path} has no mask: {image.mask_folder} does not exist; add that folder or remove the image"
        raise FileNotFoundError(msg)
    masks = list_masks(image.mask_folder)
    for path in masks:
        mask_size = read_mask_size(path)
        if mask_size != size:
            msg = f"mask {path} must be as large as its image {image.path}, {_size(size)}, got {_size(mask_size)}"
            raise ValueError(msg)
    return masks


def _size(size: Sequence[int]) -> str:
    """Format height and width as people write image sizes."""
    return f"{size[1]} x {size[0]} pixels"

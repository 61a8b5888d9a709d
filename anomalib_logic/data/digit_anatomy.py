# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Digit anatomy: grids of handwritten digits whose order is the logic, made on the spot and never downloaded."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from anomalib.data.utils import TestSplitMode, ValSplitMode
from anomalib.utils.path import resolve_dataset_root
from PIL import Image
from torchvision.transforms.v2 import Transform

from ._digit_grid import DEFECT_NAMES, MIN_IMAGE_SIZE, draw_grid
from ._digit_source import BUNDLED_SOURCE, DigitPool, fingerprint_source, load_source, split_pools
from .loco_layout import DEFECTS_CONFIG_FILE, GOOD, LOGICAL_ANOMALIES, SPLIT_FOLDERS, mask_folder
from .mvtec_loco import MVTecLoco

MANIFEST_FILE = "digit_anatomy.json"

_FORMAT = 1  # raise when the same arguments give other images
_PIXEL_VALUES = {name: 255 - index for index, name in enumerate(DEFECT_NAMES)}


class DigitAnatomy(MVTecLoco):
    """3 x 3 grids of real handwritten digits; 1 to 9 in reading order is normal.

    Test anomalies, all logical: a missing digit, two digits in the wrong order, a flipped digit, a zero instead of a
    digit. The grid's scale and position and each digit's vary. Masks mark the wrong cells. Training, validation and
    test images are drawn from different digit images (by image: neither source names its writers).

    :meth:`prepare_data` writes the images once as PNG files in the LOCO layout, with ``defects_config.json``, to
    a folder below ``root`` whose name holds a digest of all arguments that shape the images, so other arguments never
    meet stale files.

    Args:
        root: Folder that receives the data. ``None``: Anomalib's folder for data sets.
        source: ``"sklearn"`` for the 1,797 digits (8 x 8 pixels) that scikit-learn brings along, or a folder of
            MNIST IDX files, plain or ``.gz``; all pairs of image and label files in it are used.
        seed: Seed of the images and of random splits, not negative.
        image_size: Height and width of the images in pixels, at least 48.
        train_images: Number of normal training images.
        val_images: Number of normal validation images.
        test_images: Number of normal test images.
        anomalies_per_defect: Number of anomalous test images of each of the four defects.
        train_batch_size: Images in a training batch.
        eval_batch_size: Images in a validation or test batch.
        num_workers: Processes that load images.
        train_augmentations: Augmentations of the training images.
        val_augmentations: Augmentations of the validation images.
        test_augmentations: Augmentations of the test images.
        augmentations: Augmentations of every split that has none of its own.
        test_split_mode: As in :class:`MVTecLoco`.
        val_split_mode: As in :class:`MVTecLoco`.
        test_split_ratio: As in :class:`MVTecLoco`.
        val_split_ratio: As in :class:`MVTecLoco`.

    Raises:
        ValueError: If a number is out of range, or ``source`` is no folder with pairs of IDX files.

    Example:
        >>> from anomalib_logic.data import DigitAnatomy
        >>> datamodule = DigitAnatomy()
        >>> datamodule.prepare_data()
        >>> datamodule.setup()
        >>> batch = next(iter(datamodule.train_dataloader()))
    """

    def __init__(
        self,
        root: Path | str | None = None,
        source: Path | str = BUNDLED_SOURCE,
        seed: int = 0,
        image_size: int = 256,
        train_images: int = 200,
        val_images: int = 50,
        test_images: int = 50,
        anomalies_per_defect: int = 25,
        train_batch_size: int = 8,
        eval_batch_size: int = 32,
        num_workers: int = 0,
        train_augmentations: Transform | None = None,
        val_augmentations: Transform | None = None,
        test_augmentations: Transform | None = None,
        augmentations: Transform | None = None,
        test_split_mode: TestSplitMode | str = TestSplitMode.FROM_DIR,
        val_split_mode: ValSplitMode | str = ValSplitMode.FROM_DIR,
        test_split_ratio: float | None = None,
        val_split_ratio: float | None = None,
    ) -> None:
        """Check the arguments and name the folder; nothing is written yet."""
        numbers = {
            "seed": seed,
            "image_size": image_size,
            "train_images": train_images,
            "val_images": val_images,
            "test_images": test_images,
            "anomalies_per_defect": anomalies_per_defect,
        }
        for name, number in numbers.items():
            least = {"seed": 0, "image_size": MIN_IMAGE_SIZE}.get(name, 1)
            if type(number) is not int or number < least:
                msg = f"{name} must be an integer of at least {least}, got {number!r}"
                raise ValueError(msg)
        self.source = source
        self.arguments: dict[str, Any] = {"format": _FORMAT, "source": fingerprint_source(source), **numbers}
        super().__init__(
            root=resolve_dataset_root(root, "DigitAnatomy"),
            category=_folder_name(self.arguments),
            train_batch_size=train_batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            train_augmentations=train_augmentations,
            val_augmentations=val_augmentations,
            test_augmentations=test_augmentations,
            augmentations=augmentations,
            test_split_mode=test_split_mode,
            val_split_mode=val_split_mode,
            test_split_ratio=test_split_ratio,
            val_split_ratio=val_split_ratio,
            seed=seed,
        )

    def _check_category(self) -> None:
        """Accept the folder's name, which follows from the arguments."""

    def prepare_data(self) -> None:
        """Write the data set unless it is there and whole.

        Raises:
            ValueError: If the source's files are broken or hold too few digits.
        """
        folder = self.root / self.category
        if _is_complete(folder, self.arguments):
            return
        pools = split_pools(*load_source(self.source), seed=self.arguments["seed"])
        self.root.mkdir(parents=True, exist_ok=True)
        # Written aside and renamed: an interrupted write is never taken for the data set, and of two processes that
        # write at once one is late and drops its copy
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=self.root) as parent:
            written = Path(parent) / folder.name
            _write_dataset(written, pools, self.arguments)
            _move_into_place(written, folder, self.arguments)


def _folder_name(arguments: dict[str, Any]) -> str:
    """Name the data set's folder after its source, its seed and a digest of all arguments."""
    digest = hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()[:8]
    return f"{arguments['source'].partition('-')[0]}_seed{arguments['seed']}_{digest}"


def _is_complete(folder: Path, arguments: dict[str, Any]) -> bool:
    """Tell whether a folder holds all files that were written for these arguments."""
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return manifest == _manifest(folder, arguments)


def _manifest(folder: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Describe a folder's content: the arguments and the number of PNG files."""
    return {"arguments": arguments, "png_files": sum(1 for _ in folder.rglob("*.png"))}


def _move_into_place(written: Path, folder: Path, arguments: dict[str, Any]) -> None:
    """Rename a written data set to its final name, unless another process was faster; put an incomplete one aside."""
    if folder.exists() and not _is_complete(folder, arguments):
        with contextlib.suppress(FileNotFoundError):
            folder.rename(written.parent / "incomplete")
    try:
        written.rename(folder)
    except OSError:
        if not _is_complete(folder, arguments):
            raise


def _write_dataset(folder: Path, pools: dict[str, DigitPool], arguments: dict[str, Any]) -> None:
    """Write all images and masks, the defect configuration, and last the manifest."""
    defects = [
        {"defect_name": name, "pixel_value": value, "saturation_threshold": 1.0, "relative_saturation": True}
        for name, value in _PIXEL_VALUES.items()
    ]
    folder.mkdir()
    (folder / DEFECTS_CONFIG_FILE).write_text(json.dumps(defects, indent=4), encoding="utf-8")
    for number, split in enumerate(SPLIT_FOLDERS):
        for index in range(arguments[f"{split}_images"]):
            path = folder / SPLIT_FOLDERS[split] / GOOD / f"{index:03d}.png"
            _write_image(path, pools[split], None, arguments, stream=(number, index))
    for number, defect in enumerate(DEFECT_NAMES):
        for index in range(arguments["anomalies_per_defect"]):
            stem = f"{number * arguments['anomalies_per_defect'] + index:03d}"
            path = folder / SPLIT_FOLDERS["test"] / LOGICAL_ANOMALIES / f"{stem}.png"
            stream = (len(SPLIT_FOLDERS) + number, index)
            _write_image(path, pools["test"], defect, arguments, stream=stream)
    manifest = _manifest(folder, arguments)
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest, indent=4), encoding="utf-8")


def _write_image(
    path: Path, pool: DigitPool, defect: str | None, arguments: dict[str, Any], stream: tuple[int, int]
) -> None:
    """Draw and write one image and, if it has a defect, its mask. Each image has a random stream of its own."""
    rng = np.random.default_rng([arguments["seed"], *stream])
    image, mask = draw_grid(pool, defect, arguments["image_size"], rng)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).convert("RGB").save(path)
    if defect is not None:
        folder = mask_folder(path)
        folder.mkdir(parents=True)
        Image.fromarray(mask.astype(np.uint8) * np.uint8(_PIXEL_VALUES[defect])).save(folder / "000.png")

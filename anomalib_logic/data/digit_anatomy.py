# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Digit anatomy: grids of handwritten digits whose order is the logic, made on the spot and never downloaded."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from anomalib.data.utils import TestSplitMode, ValSplitMode
from anomalib.utils.path import resolve_dataset_root
from torchvision.transforms.v2 import Transform

from ._digit_grid import DEFECT_NAMES, MIN_IMAGE_SIZE, draw_grid
from ._digit_source import BUNDLED_SOURCE, DigitPool, fingerprint_source, load_source, split_pools
from ._rendered import Picture, RenderedData, anomaly_path, check_numbers, folder_name, good_path
from .loco_layout import LOGICAL_ANOMALIES, SPLIT_FOLDERS, DefectConfig

_FORMAT = 1  # raise when the same arguments give other images


class DigitAnatomy(RenderedData):
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

    manifest_file = "digit_anatomy.json"

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
        check_numbers(numbers, {"seed": 0, "image_size": MIN_IMAGE_SIZE})
        self.source = source
        self.arguments: dict[str, Any] = {"format": _FORMAT, "source": fingerprint_source(source), **numbers}
        super().__init__(
            root=resolve_dataset_root(root, "DigitAnatomy"),
            category=folder_name(str(self.arguments["source"]).partition("-")[0], self.arguments),
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

    def _defects(self) -> list[DefectConfig]:
        return [DefectConfig(name, 255 - index, 1.0, True) for index, name in enumerate(DEFECT_NAMES)]

    def _pictures(self) -> list[Picture]:
        pools = split_pools(*load_source(self.source), seed=self.arguments["seed"])
        pictures = [
            Picture(good_path(split, index), partial(self._draw, pools[split], None, (number, index)))
            for number, split in enumerate(SPLIT_FOLDERS)
            for index in range(self.arguments[f"{split}_images"])
        ]
        count = self.arguments["anomalies_per_defect"]
        for number, defect in enumerate(DEFECT_NAMES):
            for index in range(count):
                path = anomaly_path(LOGICAL_ANOMALIES, f"{number * count + index:03d}")
                draw = partial(self._draw, pools["test"], defect, (len(SPLIT_FOLDERS) + number, index))
                pictures.append(Picture(path, draw, defect))
        return pictures

    def _draw(
        self, pool: DigitPool, defect: str | None, stream: tuple[int, int]
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Draw one image and its mask. Each image has a random stream of its own."""
        rng = np.random.default_rng([self.arguments["seed"], *stream])
        image, mask = draw_grid(pool, defect, self.arguments["image_size"], rng)
        return image, [mask]

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Scenes that obey a rule, rendered on the spot in the layout of MVTec LOCO AD and never downloaded."""

from __future__ import annotations

import zlib
from functools import partial
from pathlib import Path
from typing import Any

from anomalib.data.utils import TestSplitMode, ValSplitMode
from anomalib.utils.path import resolve_dataset_root
from torchvision.transforms.v2 import Transform

from ._rendered import Picture, RenderedData, anomaly_path, check_numbers, folder_name, good_path
from ._scenes import SCENES, render
from .loco_layout import LOGICAL_ANOMALIES, SPLIT_FOLDERS, STRUCTURAL_ANOMALIES, DefectConfig

MIN_IMAGE_SIZE = 64

_FORMAT = 1  # raise when the same arguments give other images


class LocoScenes(RenderedData):
    """Pictures of an industrial or laboratory scene whose rule is the logic.

    The categories and the rule that all their normal images obey:

    * ``"tablet_blister"``, fixed places: 12 pockets, exactly one round white tablet in each.
    * ``"component_tray"``, fixed counts: three resistors, two capacitors, a red LED and a chip, anywhere.
    * ``"vial_rack"``, pairs: four vials, the cap of each in the colour of its label's stripe.
    * ``"wire_plug"``, order: six wires in the order of the colours, the seventh place empty.
    * ``"pellet_dish"``, amounts: half peas, a quarter lentils and, clockwise after them, a quarter beans, turned at
      random.

    Each has four or five logical defects (every part is normal in itself) and four or five structural ones. They follow
    each other in the test images, whose names end in them: ``003_surplus_wire`` has the fourth. Light, colours,
    textures, places and camera vary. Every image has a random stream of its own, so data sets of other numbers of
    images share those that both have. Masks have one channel for each wrong region, and ``defects_config.json`` says
    for each defect how much of it has to be found.

    :meth:`prepare_data` writes the images once as PNG files, to a folder below ``root`` whose name holds the category
    and a digest of all arguments that shape the images. ``category`` of the data module is this folder's name.

    Args:
        root: Folder that receives the data. ``None``: Anomalib's folder for data sets.
        category: One of the categories above.
        seed: Seed of the images and of random splits, not negative.
        image_size: Height and width of the images in pixels, at least 64.
        train_images: Number of normal training images.
        val_images: Number of normal validation images.
        test_images: Number of normal test images.
        anomalies_per_defect: Number of anomalous test images of each logical and of each structural defect.
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
        ValueError: If the category is unknown or a number is out of range.

    Example:
        >>> from anomalib_logic.data import LocoScenes
        >>> datamodule = LocoScenes(category="wire_plug")
        >>> datamodule.prepare_data()  # doctest: +SKIP
        >>> datamodule.setup()  # doctest: +SKIP
        >>> batch = next(iter(datamodule.test_dataloader()))  # doctest: +SKIP
    """

    manifest_file = "loco_scenes.json"

    def __init__(
        self,
        root: Path | str | None = None,
        category: str = "tablet_blister",
        seed: int = 0,
        image_size: int = 256,
        train_images: int = 80,
        val_images: int = 20,
        test_images: int = 30,
        anomalies_per_defect: int = 6,
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
        if category not in SCENES:
            msg = f"category must be one of {tuple(SCENES)}, got {category!r}"
            raise ValueError(msg)
        numbers = {
            "seed": seed,
            "image_size": image_size,
            "train_images": train_images,
            "val_images": val_images,
            "test_images": test_images,
            "anomalies_per_defect": anomalies_per_defect,
        }
        check_numbers(numbers, {"seed": 0, "image_size": MIN_IMAGE_SIZE})
        self.scene = category
        self.arguments: dict[str, Any] = {"format": _FORMAT, "category": category, **numbers}
        super().__init__(
            root=resolve_dataset_root(root, "LocoScenes"),
            category=folder_name(category, self.arguments),
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
        scene, size = SCENES[self.scene], self.arguments["image_size"]
        limits = {name: (saturation.threshold(size), saturation.relative) for name, saturation in scene.logical.items()}
        limits |= dict.fromkeys(scene.structural, (1.0, True))
        return [DefectConfig(name, 255 - index, *limit) for index, (name, limit) in enumerate(limits.items())]

    def _pictures(self) -> list[Picture]:
        pictures = [
            Picture(good_path(split, index), self._drawing(None, split, index))
            for split in SPLIT_FOLDERS
            for index in range(self.arguments[f"{split}_images"])
        ]
        scene = SCENES[self.scene]
        for kind, defects in ((LOGICAL_ANOMALIES, list(scene.logical)), (STRUCTURAL_ANOMALIES, list(scene.structural))):
            for index in range(self.arguments["anomalies_per_defect"] * len(defects)):
                defect = defects[index % len(defects)]
                path = anomaly_path(kind, f"{index:03d}_{defect}")
                pictures.append(Picture(path, self._drawing(defect, kind, index), defect))
        return pictures

    def _drawing(self, defect: str | None, part: str, index: int) -> partial:
        """Prepare one image. Its random stream follows from seed, category, part of the data set and index."""
        stream = (self.arguments["seed"], zlib.crc32(self.scene.encode()), zlib.crc32(part.encode()), index)
        return partial(render, self.scene, defect, self.arguments["image_size"], stream)

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""MVTec LOCO AD and every data set in its folder layout.

Anomalib's own data module for MVTec LOCO keeps one mask of an image and does not run with pandas 3; this one merges
all masks, keeps one plain string in each cell of its table, checks the layout, and takes any category in that layout.
"""

from __future__ import annotations

import logging
import shutil
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from anomalib import TaskType
from anomalib.data.dataclasses import ImageItem
from anomalib.data.datamodules.base.image import AnomalibDataModule
from anomalib.data.datasets.base.image import AnomalibDataset
from anomalib.data.datasets.image.mvtec_loco import CATEGORIES, DOWNLOAD_INFO
from anomalib.data.utils import Split, TestSplitMode, ValSplitMode, download_and_extract
from anomalib.data.utils.download import check_hash
from anomalib.utils.path import resolve_dataset_root
from pandas import DataFrame, Series
from torchvision.transforms.v2 import Transform
from torchvision.tv_tensors import Mask

from .image_files import check_header, read_image
from .loco_layout import (
    ANOMALY_KINDS,
    DEFECTS_CONFIG_FILE,
    GOOD,
    SPLIT_FOLDERS,
    DefectConfig,
    category_kinds,
    find_categories,
    find_images,
    has_ground_truth,
    read_defect_channels,
    read_defects_config,
)

if TYPE_CHECKING:
    from lightning.pytorch.utilities.types import EVAL_DATALOADERS

logger = logging.getLogger(__name__)

_HELD_OUT = 5  # one image in so many is held out for validation where a category in AutoVI's layout has none


class MVTecLocoDataset(AnomalibDataset):
    """Images of one category in the layout of LOCO or AutoVI, each with all its masks merged into one.

    Building the data set checks the layout and all headers (see :func:`~.loco_layout.find_images`), and refuses images
    that Anomalib would misread (see :mod:`~.image_files`). In a category without ``ground_truth`` no item has a mask,
    and the task is classification. Pixels are decoded, and mask values compared with ``defects_config.json`` where the
    category has that file, when an item is read. :func:`~.loco_layout.anomaly_kinds` tells the kinds of a batch from
    ``batch.image_path``.

    Args:
        root: Folder that holds the category's folder. ``None``: Anomalib's folder for data sets.
        category: Name of the category's folder.
        augmentations: Transform applied to image and mask together.
        split: ``"train"``, ``"val"`` or ``"test"``; ``None``: all that exist.

    Raises:
        FileNotFoundError: If a folder, an image or a mask is missing.
        ValueError: If a folder's name is unknown, a file is no image or one that Anomalib would misread, or a mask's
            size or pixel value is wrong.
    """

    def __init__(
        self,
        root: Path | str | None = None,
        category: str = "breakfast_box",
        augmentations: Transform | None = None,
        split: str | Split | None = None,
    ) -> None:
        """List the images and check the layout."""
        super().__init__(augmentations=augmentations)
        self.root_category = resolve_dataset_root(root, "MVTec_LOCO") / category
        self.category = category
        self.split = split
        self._defects_configs: dict[str, list[DefectConfig] | None] = {}
        self._defects_config(str(self.root_category))
        self.samples = make_loco_samples(self.root_category, split)

    def __getitem__(self, index: int) -> ImageItem:
        """Read one image and its merged mask.

        Args:
            index: Row of the table of samples.

        Returns:
            Item with ``image`` (float32 in [0, 1], ``(3, H, W)``), ``gt_mask`` (bool, ``(H, W)``; ``None`` in a
            category without ``ground_truth``), ``gt_label``, ``image_path`` and ``mask_path`` (the folder of the masks;
            ``None`` for a normal image).

        Raises:
            FileNotFoundError: If a file has gone since the data set was built.
            ValueError: If a file cannot be decoded or would be misread, or a mask's size or pixel value is wrong.
        """
        sample = self.samples.iloc[index]
        image = read_image(sample.image_path)
        gt_mask = None
        if self.task == TaskType.SEGMENTATION:
            gt_mask = self._merged_mask(sample, image.shape[-2:])
        if self.augmentations:
            image, gt_mask = self.augmentations(image, gt_mask)
        return ImageItem(
            image=image,
            gt_mask=gt_mask,
            gt_label=torch.tensor(int(sample.label_index)),
            image_path=sample.image_path,
            mask_path=sample.mask_path,
        )

    def _merged_mask(self, sample: Series, size: torch.Size) -> Mask:
        """Read all masks of a row of the table and merge them; uint8, shape ``(H, W)``."""
        merged = torch.zeros(size, dtype=torch.bool)
        if sample.mask_path:
            configs = self._defects_config(sample.path)
            for channel in read_defect_channels(sample.mask_path, configs, image_size=(size[0], size[1])):
                merged |= channel.mask
        # torchvision resizes no bool masks, and treats a plain tensor beside an image as no mask at all
        return Mask(merged.to(torch.uint8))

    def _defects_config(self, category_folder: str) -> list[DefectConfig] | None:
        """Read a category's defects once; added data sets may hold rows of several categories."""
        if category_folder not in self._defects_configs:
            path = Path(category_folder) / DEFECTS_CONFIG_FILE
            self._defects_configs[category_folder] = read_defects_config(path) if path.exists() else None
        return self._defects_configs[category_folder]


def make_loco_samples(category_folder: str | Path, split: str | Split | None = None) -> DataFrame:
    """Make Anomalib's table of samples from a category's folder.

    Args:
        category_folder: Folder in the LOCO layout.
        split: ``"train"``, ``"val"`` or ``"test"``; ``None``: all, ``"val"`` only if it exists.

    Returns:
        One row an image with the strings ``path`` (the category's folder), ``split``, ``label`` (the kind),
        ``image_path``, ``mask_path`` (the folder of the image's masks, ``""`` if it has none), and ``label_index``
        (0 normal, 1 anomalous). The attribute ``task`` is classification if there is no ``ground_truth``.

    Raises:
        FileNotFoundError: If a folder, an image or a mask is missing.
        ValueError: If ``split`` or a folder's name is unknown, a file is no image or one that Anomalib would misread,
            or a mask's size differs.
    """
    folder = Path(category_folder)
    if split is not None:
        splits = [split.value if isinstance(split, Split) else split]
    else:
        splits = [name for name in SPLIT_FOLDERS if name != "val" or (folder / SPLIT_FOLDERS[name]).is_dir()]
    images = [(name, image) for name in splits for image in find_images(folder, name)]
    for _, image in images:
        check_header(image.path)
    rows = [
        {
            "path": str(folder),
            "split": name,
            "label": image.kind,
            "image_path": str(image.path),
            "mask_path": "" if image.mask_folder is None else str(image.mask_folder),
            "label_index": int(image.kind != GOOD),
        }
        for name, image in images
    ]
    samples = DataFrame(rows)
    masked = has_ground_truth(folder)
    samples.attrs["task"] = (TaskType.SEGMENTATION if masked else TaskType.CLASSIFICATION).value
    if not masked:
        _warn_once(f"{folder} has no ground_truth folder: there are no masks, and so no pixel metrics")
    return samples


@lru_cache
def _warn_once(message: str) -> None:
    logger.warning(message)


class MVTecLoco(AnomalibDataModule):
    """MVTec LOCO AD, or any folder of categories in its layout or AutoVI's.

    An official category that is not on disk is downloaded (CC BY-NC-SA 4.0); any other folder below ``root`` that has
    the layout is taken as it is.

    Args:
        root: Folder that holds the categories. ``None``: Anomalib's folder for data sets.
        category: Name of an official category or of a folder below ``root``.
        train_batch_size: Images in a training batch.
        eval_batch_size: Images in a validation or test batch.
        num_workers: Processes that load images.
        train_augmentations: Augmentations of the training images.
        val_augmentations: Augmentations of the validation images.
        test_augmentations: Augmentations of the test images.
        augmentations: Augmentations of every split that has none of its own.
        test_split_mode: As in Anomalib: ``"from_dir"``, ``"synthetic"`` or ``"none"``.
        val_split_mode: As in Anomalib. ``"from_dir"`` takes the normal images of the ``validation`` folder, which only
            this mode needs; of a category in AutoVI's layout, which has none, every fifth training image instead. With
            ``"none"`` there is no validation.
        test_split_ratio: As in Anomalib, for test modes that split.
        val_split_ratio: Share of the images that become the validation set, for validation modes that split.
        seed: Seed of random splits.

    Raises:
        ValueError: If ``category`` is neither official nor a folder below ``root``.

    Example:
        >>> from anomalib_logic.data import MVTecLoco, anomaly_kinds
        >>> datamodule = MVTecLoco(category="juice_bottle")
        >>> datamodule.prepare_data()  # doctest: +SKIP
        >>> datamodule.setup()  # doctest: +SKIP
        >>> batch = next(iter(datamodule.test_dataloader()))  # doctest: +SKIP
        >>> kinds = anomaly_kinds(batch.image_path)  # doctest: +SKIP
    """

    def __init__(
        self,
        root: Path | str | None = "./datasets/MVTec_LOCO",
        category: str = "breakfast_box",
        train_batch_size: int = 8,
        eval_batch_size: int = 32,
        num_workers: int = 8,
        train_augmentations: Transform | None = None,
        val_augmentations: Transform | None = None,
        test_augmentations: Transform | None = None,
        augmentations: Transform | None = None,
        test_split_mode: TestSplitMode | str = TestSplitMode.FROM_DIR,
        val_split_mode: ValSplitMode | str = ValSplitMode.FROM_DIR,
        test_split_ratio: float | None = None,
        val_split_ratio: float | None = None,
        seed: int | None = None,
    ) -> None:
        """Store the settings and check the category."""
        super().__init__(
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
        self.root = resolve_dataset_root(root, "MVTec_LOCO")
        self.category = category
        self._check_category()

    def prepare_data(self) -> None:
        """Download MVTec LOCO AD if the category is official and its folder is missing.

        Raises:
            ValueError: If ``category`` is neither official nor a folder below ``root``.
            RuntimeError: If the download fails.
        """
        self._check_category()
        if not (self.root / self.category).is_dir():
            download_loco(self.root)

    def _check_category(self) -> None:
        """Refuse a category that can neither be found nor downloaded."""
        is_name = self.category != "" and Path(self.category).name == self.category
        if not is_name or not (self.category in CATEGORIES or (self.root / self.category).is_dir()):
            msg = (
                f"category must be one of the official categories {CATEGORIES} or of the categories found in "
                f"{self.root}: {tuple(find_categories(self.root))}, got {self.category!r}"
            )
            raise ValueError(msg)

    def _setup(self, _stage: str | None = None) -> None:
        """Build the data sets of the folders; Anomalib's base class then makes the other splits from them."""
        folder = self.root / self.category
        if not folder.is_dir():
            msg = f"{folder} does not exist; call prepare_data() first, or put the category's folder there"
            raise FileNotFoundError(msg)
        self.train_data = self._make_dataset(Split.TRAIN)
        self.test_data = self._make_dataset(Split.TEST)
        if self.val_split_mode == ValSplitMode.FROM_DIR:
            self._take_validation_images(folder)

    def _take_validation_images(self, folder: Path) -> None:
        """Take the validation folder, or training images where a category in AutoVI's layout has none."""
        count = len(self.train_data)
        if (folder / SPLIT_FOLDERS["val"]).is_dir() or category_kinds(folder) == ANOMALY_KINDS or count < _HELD_OUT:
            self.val_data = self._make_dataset(Split.VAL)
            return
        held_out = range(_HELD_OUT - 1, count, _HELD_OUT)
        _warn_once(
            f"{folder} has no {SPLIT_FOLDERS['val']} folder: {len(held_out)} of its {count} training images are the "
            "validation set and are not trained on; set val_split_mode to choose another one"
        )
        train_data = self.train_data
        self.val_data = train_data.subsample(list(held_out))
        self.train_data = train_data.subsample([i for i in range(count) if i not in held_out])

    def _make_dataset(self, split: Split) -> MVTecLocoDataset:
        return MVTecLocoDataset(root=self.root, category=self.category, split=split)

    def val_dataloader(self) -> EVAL_DATALOADERS:
        """Return the validation loader, or an empty list (no validation) for ``val_split_mode="none"``."""
        return [] if self.val_split_mode == ValSplitMode.NONE else super().val_dataloader()


def download_loco(root: Path) -> None:
    """Download MVTec LOCO AD with Anomalib's address and hash, and add its categories to ``root``.

    The archive is unpacked in a hidden folder and its categories are moved when they are complete, so that an
    interrupted download never looks like a category.

    Args:
        root: Folder that receives the categories; those that it has already are kept.

    Raises:
        RuntimeError: If the download, its hash or the unpacking fails.
    """
    staging = root / ".mvtec_loco_download"
    archive = staging / DOWNLOAD_INFO.url.rsplit("/", 1)[-1]
    try:
        _discard_incomplete(staging, archive)
        download_and_extract(staging, DOWNLOAD_INFO)
        for folder in sorted(path for path in staging.iterdir() if not (root / path.name).exists()):
            folder.rename(root / folder.name)
        shutil.rmtree(staging)
    except Exception as error:
        example = root / CATEGORIES[0] / SPLIT_FOLDERS["train"] / GOOD
        msg = (
            f"MVTec LOCO could not be downloaded from {DOWNLOAD_INFO.url} to {root}: {type(error).__name__}: {error}. "
            f"Try again, or download and unpack the archive by hand so that {example} exists"
        )
        raise RuntimeError(msg) from error


def _discard_incomplete(staging: Path, archive: Path) -> None:
    """Remove what an interrupted attempt left, except an archive that arrived whole."""
    for path in staging.iterdir() if staging.is_dir() else []:
        if path == archive:
            try:
                check_hash(path, DOWNLOAD_INFO.hashsum)
            except ValueError:
                path.unlink()
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()

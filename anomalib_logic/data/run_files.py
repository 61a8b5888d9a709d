# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The files of a run of Anomalib's engine: checked before anything reads them, and what lies beside them named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.data.utils import ValSplitMode
from anomalib.data.utils.path import resolve_path
from anomalib.data.utils.synthetic import SyntheticAnomalyDataset

from .image_files import check_files, check_image_files, is_image_name, require_file
from .left_out import find_left_out, name_left_out, names_by_folder
from .mvtec_loco import MVTecLocoDataset

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lightning.pytorch import Trainer

SPLITS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("test",)}  # of a stage
_FOLDER_ARGUMENTS = ("normal_dir", "abnormal_dir", "normal_test_dir", "mask_dir")  # of Anomalib's Folder


def set_up_data(trainer: Trainer) -> None:
    """Set a data module of Anomalib up, and say in a sentence what it does not take.

    Raises:
        FileNotFoundError: If a file is missing, with the name of a link that leads to nothing.
        ValueError: If there are no images to validate with.
    """
    datamodule = getattr(trainer, "datamodule", None)
    if not isinstance(datamodule, AnomalibDataModule):
        return
    mode = datamodule.val_split_mode
    try:
        datamodule.setup(trainer.state.fn)
    except FileNotFoundError:
        _refuse_dead_links(_given_folders(datamodule))
        raise
    except ValueError as error:
        if mode != ValSplitMode.FROM_TEST or len(datamodule.test_data):
            raise
        msg = (
            f"val_split_mode {mode.value!r} takes validation images from the test images, and there are none; take "
            "them from the training images (--data.val_split_mode from_train), or do without (none)"
        )
        raise ValueError(msg) from error


def check_run(trainer: Trainer, stage: str) -> None:
    """Refuse files of a stage that Anomalib would misread, and name what is left out of their folders.

    Args:
        trainer: Trainer whose data module, if there is one, is set up.
        stage: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If Anomalib would misread a file, see :mod:`~.image_files`, or there are no validation images.
    """
    datamodule = getattr(trainer, "datamodule", None)
    if isinstance(datamodule, AnomalibDataModule):
        if "val" in SPLITS[stage]:
            _require_validation(datamodule)
        datasets = [getattr(datamodule, f"{split}_data", None) for split in SPLITS[stage]]
    else:
        datamodule, datasets = None, _datasets_of_loaders(trainer, stage)
    images, masks = _files(datasets)
    check_image_files(images)
    check_files(masks)
    if datamodule is not None:
        _name_left_out(datamodule)
    elif images:
        _name_left_out_beside(images)


def _require_validation(datamodule: AnomalibDataModule) -> None:
    """Give a data module without validation an empty set, which its loader asks for."""
    mode = datamodule.val_split_mode
    if hasattr(datamodule, "val_data"):
        return
    if mode != ValSplitMode.NONE:
        msg = (
            f"val_split_mode {mode.value!r} is not known to {type(datamodule).__name__}, which has no folder of "
            "validation images; take training images (--data.val_split_mode from_train), or none"
        )
        raise ValueError(msg)
    datamodule.val_data = datamodule.train_data.subsample([])


def _datasets_of_loaders(trainer: Trainer, stage: str) -> list[Any]:
    """Data sets of the loaders that a trainer is going to read."""
    loops = {
        "fit": (trainer.fit_loop, trainer.fit_loop.epoch_loop.val_loop),
        "validate": (trainer.validate_loop,),
        "test": (trainer.test_loop,),
        "predict": (trainer.predict_loop,),
    }
    sources = [loop._data_source for loop in loops[stage]]  # type: ignore[attr-defined]
    given = [source.dataloader() for source in sources if source.is_defined()]
    loaders = [loader for item in given for loader in (item if isinstance(item, list | tuple) else [item])]
    return [getattr(loader, "dataset", None) for loader in loaders]


def _files(datasets: Iterable[Any]) -> tuple[list[str], list[str]]:
    """Image files and mask files of data sets, as far as they list them."""
    images: list[str] = []
    masks: list[str] = []
    for dataset in datasets:
        if isinstance(dataset, AnomalibDataset):
            images += map(str, dataset.samples.image_path)
            if not isinstance(dataset, MVTecLocoDataset) and "mask_path" in dataset.samples:
                masks += [path for path in dataset.samples.mask_path if isinstance(path, str) and path]
        else:
            images += map(str, getattr(dataset, "image_filenames", []))  # Anomalib's PredictDataset
    return images, masks


def _given_folders(datamodule: AnomalibDataModule) -> list[Path]:
    """Folders of images and masks that a data module was given, as far as its arguments tell."""
    root, category = getattr(datamodule, "root", None), datamodule.category
    given = [getattr(datamodule, name, None) for name in _FOLDER_ARGUMENTS]
    names = [name for item in given if item for name in ([item] if isinstance(item, str | Path) else item)]
    if not names and root and category:
        return [Path(root) / category]
    return [resolve_path(name, root) for name in names]


def _refuse_dead_links(folders: Iterable[Path]) -> None:
    """Name the first link to nothing among the images below folders."""
    for folder in folders:
        for path, _, names in os.walk(folder):
            for name in sorted(filter(is_image_name, names)):
                require_file(Path(path) / name)


def _name_left_out(datamodule: AnomalibDataModule) -> None:
    """Warn of what no data set of a data module uses in the folders that it was given, or else beside its files."""
    datasets = [getattr(datamodule, f"{split}_data", None) for split in ("train", "val", "test")]
    if any(isinstance(dataset, MVTecLocoDataset) for dataset in datasets):
        return  # which warn by themselves
    images, masks = _files(datasets)
    sources = [dataset.source_samples for dataset in datasets if isinstance(dataset, SyntheticAnomalyDataset)]
    used = [*images, *masks, *(str(path) for source in sources for path in source.image_path)]
    holding = names_by_folder(used)
    folders = [os.path.realpath(folder) for folder in _given_folders(datamodule)]
    if not any(_holds(folder, path) for folder in folders for path in holding):
        folders = list(holding)
    for folder in _outermost(folders):
        name_left_out(folder, used)


def _name_left_out_beside(images: list[str]) -> None:
    """Warn of what lies beside images whose folder was given; where other images do, files were given."""
    for folder in _outermost(names_by_folder(images)):
        if not any(is_image_name(name) for name in find_left_out(folder, images)):
            name_left_out(folder, images)


def _outermost(folders: Iterable[str]) -> list[str]:
    """Folders that lie in no other one of them."""
    kept: list[str] = []
    for folder in sorted(folders):
        if not any(_holds(other, folder) for other in kept):
            kept.append(folder)
    return kept


def _holds(folder: str, path: str) -> bool:
    """Whether a path is a folder or lies in it."""
    return Path(path).is_relative_to(folder)

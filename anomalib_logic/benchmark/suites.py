# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What is measured: the data, categories, models and seeds of each suite.

Data sets without validation images hold out a fifth of their normal training images, the same for all models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anomalib.data import AnomalibDataModule

OURS = ("glcf", "lgfdr", "sam_lad")
QUICK = (*OURS, "patchcore", "padim")
PEERS = (
    "patchcore",
    "padim",
    "efficient_ad",
    "reverse_distillation",
    "dinomaly",
    "fastflow",
    "draem",
    "cflow",
    "ganomaly",
)
OWN_BACKBONE = ("efficient_ad", "dinomaly", "draem", "ganomaly")  # they take no other
UNTRAINED = ("sam_lad", "patchcore", "padim")  # a number of epochs says nothing about them
SCENES = ("tablet_blister", "component_tray", "vial_rack", "wire_plug", "pellet_dish")
LOCO = ("breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors")
MVTEC_TEXTURES = ("carpet", "grid", "leather", "tile", "wood")
MVTEC = (
    *MVTEC_TEXTURES,
    *("bottle", "cable", "capsule", "hazelnut", "metal_nut", "pill", "screw", "toothbrush", "transistor", "zipper"),
)
VISA = (
    *("candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2", "pcb1", "pcb2", "pcb3", "pcb4"),
    "pipe_fryum",
)
DISEASES = ("CNV", "DME", "DRUSEN")
HELD_OUT: dict[str, Any] = {"val_split_mode": "from_train", "val_split_ratio": 0.2}

DataMaker = Callable[..., "AnomalibDataModule"]


@dataclass(frozen=True)
class Suite:
    """Data and what is measured on it by default.

    Attributes:
        about: What the data is, for people.
        data: Makes the data module of a root folder, a category and a seed, with more arguments of data loading.
        folder: Root of the data below Anomalib's usual ``datasets``; ``None`` if there is no usual place.
        categories: Names of the categories; none: all folders of the root.
        models: Models by default.
        seeds: Seeds by default.
        image_size: Side of the images by default.
        epochs: Epochs of models that are trained, where the suite differs.
        mean_over_kinds: Whether a category's figure is the mean over its kinds of anomalies, as in MVTec LOCO AD, or
            one of all anomalies together.
    """

    about: str
    data: DataMaker
    folder: str | None
    categories: tuple[str, ...] = ()
    models: tuple[str, ...] = (*OURS, *PEERS)
    seeds: tuple[int, ...] = (0, 1, 2)
    image_size: int = 256
    epochs: dict[str, int] | None = None
    mean_over_kinds: bool = True


def _quick(root: Path, category: str, seed: int, **loading: Any) -> AnomalibDataModule:
    if category == "digits":
        numbers = {"train_images": 40, "val_images": 12, "test_images": 12, "anomalies_per_defect": 4}
        return _digits(root, category, seed, image_size=128, **numbers, **loading)
    numbers = {"train_images": 24, "val_images": 8, "test_images": 12, "anomalies_per_defect": 2}
    return _scenes(root, category, seed, **numbers, **loading)


def _scenes(root: Path, category: str, seed: int, **arguments: Any) -> AnomalibDataModule:
    from anomalib_logic.data import LocoScenes

    return LocoScenes(root, category, seed=seed, **arguments)


def _digits(root: Path, category: str, seed: int, **arguments: Any) -> AnomalibDataModule:
    from anomalib_logic.data import DigitAnatomy

    return DigitAnatomy(root, seed=seed, **arguments)


def _loco(root: Path, category: str, seed: int, **loading: Any) -> AnomalibDataModule:
    from anomalib_logic.data import MVTecLoco

    return MVTecLoco(root, category, seed=seed, **loading)


def _mvtec(root: Path, category: str, seed: int, **loading: Any) -> AnomalibDataModule:
    from anomalib.data import MVTecAD

    return MVTecAD(root, category, seed=seed, **HELD_OUT, **loading)


def _visa(root: Path, category: str, seed: int, **loading: Any) -> AnomalibDataModule:
    from anomalib.data import Visa

    return Visa(root, category, seed=seed, **HELD_OUT, **loading)


def _oct(root: Path, category: str, seed: int, **loading: Any) -> AnomalibDataModule:
    from anomalib.data import Folder

    folders: dict[str, Any] = {"abnormal_dir": [f"test/{name}" for name in DISEASES], "normal_test_dir": "test/NORMAL"}
    return Folder(category, "train/NORMAL", root, **folders, seed=seed, **HELD_OUT, **loading)


def _parts(root: Path, category: str, seed: int, **loading: Any) -> AnomalibDataModule:
    from anomalib.data import Folder

    masks = "masks" if (root / category / "masks").is_dir() else None
    split: dict[str, Any] = {"test_split_ratio": 0.33, "seed": seed, **HELD_OUT}
    return Folder(category, "good", root / category, "bad", mask_dir=masks, **split, **loading)


SUITES = {
    "quick": Suite(
        "one small scene and small digits, rendered on the spot: shows in minutes that all works",
        _quick,
        "benchmark",
        categories=("tablet_blister", "digits"),
        models=QUICK,
        seeds=(0, 1),
        image_size=128,
        epochs={"glcf": 45, "lgfdr": 50},
    ),
    "scenes": Suite(
        "LocoScenes: five rendered scenes with a rule, logical and structural anomalies",
        _scenes,
        "LocoScenes",
        categories=SCENES,
        models=QUICK,
    ),
    "digits": Suite(
        "DigitAnatomy: grids of handwritten digits in the wrong order", _digits, "DigitAnatomy", ("digits",), QUICK
    ),
    "loco": Suite("MVTec LOCO AD", _loco, "MVTec_LOCO", LOCO),
    "autovi": Suite("AutoVI, or any folder of categories in the layout of MVTec LOCO AD or AutoVI", _loco, "AutoVI"),
    "mvtec": Suite("MVTec AD", _mvtec, "MVTecAD", MVTEC, mean_over_kinds=False),
    "visa": Suite("VisA", _visa, "visa", VISA, mean_over_kinds=False),
    "oct": Suite("Retinal OCT", _oct, "RetinalOCT", ("retina",), mean_over_kinds=False),
    "folder": Suite(
        "folders of your own parts, each with `good` and `bad` and, if there are any, `masks`; a third of the good "
        "images is tested, drawn by the seed",
        _parts,
        None,
        mean_over_kinds=False,
    ),
}


def categories_in(root: Path) -> tuple[str, ...]:
    """Names of the folders of a data set.

    Raises:
        FileNotFoundError: If there is no such folder, or none in it.
    """
    names = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")) if root.is_dir() else []
    if not names:
        msg = f"{root} has no folders of categories; pass the data set's folder as --root"
        raise FileNotFoundError(msg)
    if {"good", "train"} & set(names):
        msg = f"{root} is one category, not a folder of categories: pass the folder in which it lies as --root"
        raise FileNotFoundError(msg)
    return tuple(names)

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Settings, data and runs that several benchmarks share."""

import tempfile
import time
from pathlib import Path
from typing import Any

from anomalib.data import AnomalibDataModule, Batch, Folder
from anomalib.engine import Engine
from anomalib.models.components import AnomalibModule

from anomalib_logic import MVTecLoco

LITE = "tf_efficientnet_lite0"
BACKBONE = "mobilenetv2_100"
BACKBONE_ARGS = {"pad_type": "same"}  # the weights come from TensorFlow


def arguments_of(backbone: str) -> dict[str, Any]:
    """Arguments of timm for the weights that are used of a backbone."""
    return BACKBONE_ARGS if backbone == BACKBONE else {}


def parts_of(folder: Path, split: int) -> Folder:
    """Data of a folder with ``good`` and ``bad``: two thirds of the good images train, all others are tested."""
    arguments = {"train_batch_size": 8, "eval_batch_size": 8, "num_workers": 0, "seed": split, "test_split_ratio": 0.33}
    masks = "masks" if (folder / "masks").is_dir() else None
    data = Folder(folder.name, "good", folder, "bad", mask_dir=masks, val_split_mode="none", **arguments)
    data.val_dataloader = lambda: []
    return data


def data_of(folder: Path, **arguments: Any) -> AnomalibDataModule:
    """Data of a category in MVTec LOCO's layout, with more arguments, or of a folder of good and bad parts."""
    if (folder / "train").is_dir():
        return MVTecLoco(folder.parent, folder.name, num_workers=0, **arguments)
    return parts_of(folder, split=0)


def fit_and_predict(model: AnomalibModule, data: AnomalibDataModule, **trainer: Any) -> tuple[float, list[Batch]]:
    """Fit a model and predict the test images; returns the seconds that the fit took, and the predictions."""
    trainer = {"accelerator": "cpu", "enable_progress_bar": False, "logger": False, **trainer}
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(default_root_dir=folder, **trainer)
        start = time.perf_counter()
        engine.fit(model, datamodule=data)
        seconds = time.perf_counter() - start
        return seconds, engine.predict(model, datamodule=data)

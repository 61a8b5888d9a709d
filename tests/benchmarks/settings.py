# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Settings that several benchmarks share."""

from pathlib import Path
from typing import Any

from anomalib.data import Folder

BACKBONE = "mobilenetv2_100"
BACKBONE_ARGS = {"pad_type": "same"}  # the weights come from TensorFlow
NARROW = {"depth": 2, "decoder_depths": (1, 1, 1, 1), "decoder_widths": (32, 64, 96, 160)}  # GLCF with MobileNetV2


def arguments_of(backbone: str) -> dict[str, Any]:
    """timm's arguments for the weights that are used of a backbone."""
    return BACKBONE_ARGS if backbone == BACKBONE else {}


def parts_of(folder: Path, split: int) -> Folder:
    """Data of a folder with ``good`` and ``bad``: two thirds of the good images train, all others are tested."""
    arguments = {"train_batch_size": 8, "eval_batch_size": 8, "num_workers": 0, "seed": split, "test_split_ratio": 0.33}
    masks = "masks" if (folder / "masks").is_dir() else None
    data = Folder(folder.name, "good", folder, "bad", mask_dir=masks, val_split_mode="none", **arguments)
    data.val_dataloader = lambda: []
    return data

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""A folder of odd image files, and an Anomalib model without weights that calls bright images anomalous."""

import json
import os
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib import LearningType
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.models.components import AnomalibModule
from PIL import Image
from torch import nn

SCRIPT = "<script>alert(1)<"  # with the next part of a path, "script>..", it closes itself
ODD = {  # name: (shape, type) of dark images with a bright square
    "plain.png": ((48, 64, 3), np.uint8),
    "one pixel high.png": ((1, 40, 3), np.uint8),
    "grey.png": ((40, 40), np.uint8),
    "sixteen bits.png": ((40, 40), np.uint16),
    'it\'s "quoted" & <b>bold<.png': ((40, 40, 3), np.uint8),
    "größe 漢字.png": ((40, 40, 3), np.uint8),
    "'; drop.jpg": ((64, 30, 3), np.uint8),
    "tall.bmp": ((200, 2, 3), np.uint8),
}


class Brightness(AnomalibModule):
    """Any Anomalib model: the map is the brightness of the resized image; thresholds are in the middle."""

    trainer_arguments = {}
    learning_type = LearningType.ONE_CLASS

    def __init__(self, **components):
        super().__init__(evaluator=False, **components)
        self.model = nn.Identity()
        for name, value in {"min": 0.0, "max": 1.0}.items():
            getattr(self.post_processor, f"image_{name}").fill_(value)
            getattr(self.post_processor, f"pixel_{name}").fill_(value)
        self.post_processor._image_threshold.fill_(0.5)
        self.post_processor._pixel_threshold.fill_(0.5)

    @staticmethod
    def configure_pre_processor(image_size=None):
        from anomalib.pre_processing import PreProcessor
        from torchvision.transforms.v2 import Resize

        return PreProcessor(Resize((32, 32), antialias=True))

    def validation_step(self, batch, *args):
        maps = batch.image.mean(dim=1, keepdim=True)
        return batch.update(anomaly_map=maps, pred_score=maps.amax(dim=(1, 2, 3)))

    test_step = predict_step = validation_step

    def training_step(self, *args):
        pytest.fail("no test trains")

    def configure_optimizers(self):
        return None


def write(path: Path, shape, kind=np.uint8, value: float = 0.1, background: float = 0.1) -> Path:
    """Write an image with a square of a brightness."""
    pixels = np.full(shape, background)
    height, width = shape[:2]
    pixels[height // 4 : max(1, height // 2), width // 4 : max(1, width // 2)] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((pixels * np.iinfo(kind).max).astype(kind)).save(path)
    return path


def make_parts(root: Path) -> Path:
    """Good and bad parts in folders of odd names, with masks of the bad ones."""
    for i in range(3):
        write(root / "good & new" / f"{i}.png", (40, 60, 3))
    write(root / "good & new" / "too bright.png", (40, 60, 3), value=0.95)
    for name, (shape, kind) in ODD.items():
        write(root / f"{SCRIPT}" / "script>" / name, shape, kind, value=0.9)
        write(root / "masks" / f"{Path(name).stem}.png", shape[:2], value=1.0, background=0.0)
    write(root / f"{SCRIPT}" / "script>" / "missed.png", (40, 60, 3), value=0.2)
    write(root / "masks" / "missed.png", (40, 60), value=1.0, background=0.0)
    return root


@pytest.fixture
def parts(tmp_path) -> Path:
    """See :func:`make_parts`."""
    return make_parts(tmp_path / "parts")


def data(root: Path, masks: bool = False, **arguments) -> Folder:
    """The parts as Anomalib's data; with masks it does not take images that are one pixel high."""
    masks = {"mask_dir": "masks"} if masks else {}
    usual = {"num_workers": 0, "eval_batch_size": 4, "val_split_mode": "same_as_test", "test_split_mode": "from_dir"}
    bad = f"{SCRIPT}/script>"
    return Folder("parts", "good & new", root, bad, "good & new", **masks, **{**usual, **arguments})


def engine(folder: Path, *callbacks) -> Engine:
    quiet = {"enable_progress_bar": False, "logger": False, "accelerator": "cpu"}
    return Engine(default_root_dir=folder / "results", callbacks=list(callbacks), **quiet)


def tensor(rows: list[str]) -> torch.Tensor:
    """A boolean mask from text, ``#`` for true."""
    return torch.tensor([[character == "#" for character in row] for row in rows])


def surrogate_name() -> str:
    """A name that is not UTF-8, as an old disk may have it."""
    return os.fsdecode(b"caf\xe9.png")


@pytest.fixture(scope="session")
def schema():
    """Validator of the shipped JSON schema."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed (extra dev)")
    text = resources.files("anomalib_logic.explanations").joinpath("schema.json").read_text(encoding="utf-8")
    jsonschema.Draft202012Validator.check_schema(json.loads(text))
    return jsonschema.Draft202012Validator(json.loads(text))

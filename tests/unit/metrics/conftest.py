# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""A category in the LOCO layout with ground truth, and maps for its test images."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch
from PIL import Image

from anomalib_logic.data.loco_layout import find_images, read_defects_config
from anomalib_logic.metrics.functional import resize_anomaly_map, saturation_area

SIZE = (40, 48)
CONFIG = [
    {"defect_name": "missing", "pixel_value": 255, "saturation_threshold": 0.5, "relative_saturation": True},
    {"defect_name": "scratch", "pixel_value": 254, "saturation_threshold": 30, "relative_saturation": False},
    {"defect_name": "unseen", "pixel_value": 7, "saturation_threshold": 1.0, "relative_saturation": True},
]
MASKS = {
    "logical_anomalies": {
        "000": [(255, slice(2, 12), slice(3, 20))],
        "001": [(255, slice(20, 30), slice(5, 25)), (254, slice(25, 35), slice(15, 40))],
        "002": [(254, slice(0, 4), slice(0, 5))],
    },
    "structural_anomalies": {"000": [(254, slice(8, 9), slice(8, 9))], "001": [(255, slice(30, 40), slice(0, 48))]},
}


def write_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def category(tmp_path) -> Path:
    """A category with 4 good, 3 logical and 2 structural test images; two channels of one image overlap."""
    folder = tmp_path / "data" / "tray"
    for split, count in (("train", 1), ("test", 4)):
        for i in range(count):
            write_png(folder / split / "good" / f"{i:03}.png", np.zeros((*SIZE, 3), np.uint8))
    for kind, images in MASKS.items():
        for stem, channels in images.items():
            write_png(folder / "test" / kind / f"{stem}.png", np.zeros((*SIZE, 3), np.uint8))
            for number, (value, rows, columns) in enumerate(channels):
                pixels = np.zeros(SIZE, np.uint8)
                pixels[rows, columns] = value
                write_png(folder / "ground_truth" / kind / stem / f"{number:03}.png", pixels)
    (folder / "defects_config.json").write_text(json.dumps(CONFIG))
    return folder


@pytest.fixture
def test_set(category):
    """Paths of the test images, a map of 12 x 10 for each, with higher scores on anomalous images."""
    generator = torch.Generator().manual_seed(0)
    images = find_images(category, "test")
    shift = {"good": 0.0, "logical_anomalies": 0.7, "structural_anomalies": 0.4}
    maps = torch.stack([torch.randn(12, 10, generator=generator) * 3 + shift[image.kind] for image in images])
    return SimpleNamespace(
        category=category,
        configs=read_defects_config(category),
        paths=[str(image.path) for image in images],
        kinds=[image.kind for image in images],
        maps=maps,
        scores=maps.amax(dim=(1, 2)),
    )


@pytest.fixture
def autovi_set(test_set):
    """The same images, masks and maps in AutoVI's layout: defect folders "no clip" and "scratch", RGB masks."""
    names = {"good": "good", "logical_anomalies": "no clip", "structural_anomalies": "scratch"}
    for folder in ("test", "ground_truth"):
        for kind in MASKS:
            (test_set.category / folder / kind).rename(test_set.category / folder / names[kind])
    for path in (test_set.category / "ground_truth").rglob("*.png"):
        with Image.open(path) as mask:
            mask.convert("RGB").save(path)
    test_set.kinds = [names[kind] for kind in test_set.kinds]
    images = zip(test_set.paths, test_set.kinds, strict=True)
    test_set.paths = [str(test_set.category / "test" / kind / Path(path).name) for path, kind in images]
    return test_set


def batches(test_set, size):
    """The test set as Anomalib's batches of a model's output."""
    for i in range(0, len(test_set.paths), size):
        paths = test_set.paths[i : i + size]
        yield ImageBatch(
            image=torch.zeros(len(paths), 3, *test_set.maps.shape[1:]),
            anomaly_map=test_set.maps[i : i + size],
            pred_score=test_set.scores[i : i + size],
            image_path=paths,
        )


def arguments_of_reference(test_set, kinds, defect=None):
    """Resized maps, channels and saturation areas of the images of some kinds, for reference_curve.

    With a pixel value: only the images that are good or show that defect, and in a second list of channels and areas
    only the defect's.
    """
    maps, channels, areas, chosen, chosen_areas = [], [], [], [], []
    entries = {entry["pixel_value"]: entry for entry in CONFIG}
    for path, kind, anomaly_map in zip(test_set.paths, test_set.kinds, test_set.maps, strict=True):
        defects = MASKS.get(kind, {}).get(Path(path).stem, [])
        values = [value for value, _, _ in defects]
        if kind not in kinds or (defect is not None and defects and defect not in values):
            continue
        masks = torch.zeros(len(defects), *SIZE, dtype=torch.bool)
        for mask, (_, rows, columns) in zip(masks, defects, strict=True):
            mask[rows, columns] = True
        thresholds = [(entries[v]["saturation_threshold"], entries[v]["relative_saturation"]) for v in values]
        maps.append(resize_anomaly_map(anomaly_map, SIZE))
        channels.append(list(masks))
        areas.append([saturation_area(int(m.sum()), *t) for m, t in zip(masks, thresholds, strict=True)])
        chosen.append([mask for mask, value in zip(masks, values, strict=True) if value == defect])
        chosen_areas.append([area for area, value in zip(areas[-1], values, strict=True) if value == defect])
    return (maps, channels, areas) if defect is None else (maps, channels, areas, chosen, chosen_areas)

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile
from anomalib.data import AnomalibDataModule
from anomalib.utils.path import get_datasets_dir
from jsonargparse import ArgumentParser
from PIL import Image

from anomalib_logic.data import LocoScenes, MVTecLoco, anomaly_kinds, read_defect_channels, read_defects_config
from anomalib_logic.data._scenes import SCENES
from anomalib_logic.metrics import loco

SMALL = {"image_size": 64, "train_images": 3, "val_images": 1, "test_images": 2, "anomalies_per_defect": 1}
KINDS = {"logical_anomalies": "logical", "structural_anomalies": "structural"}

every_category = pytest.mark.parametrize("category", SCENES)


def make_datamodule(root: Path, category: str = "wire_plug", **arguments) -> LocoScenes:
    datamodule = LocoScenes(root=root, category=category, **(SMALL | arguments))
    datamodule.prepare_data()
    return datamodule


def folder_of(datamodule: LocoScenes) -> Path:
    return datamodule.root / datamodule.category


def read_files(datamodule: LocoScenes) -> dict[str, bytes]:
    folder = folder_of(datamodule)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module", params=SCENES)
def written(request, tmp_path_factory) -> LocoScenes:
    """Each category, written once for the tests that only read."""
    return make_datamodule(tmp_path_factory.mktemp("scenes"), request.param)


@every_category
def test_same_arguments_give_the_same_bytes(category, tmp_path):
    first, second = (read_files(make_datamodule(tmp_path / name, category)) for name in ("one", "two"))
    assert first == second


@every_category
def test_every_defect_is_there_as_often_as_asked_for_and_in_its_files_name(category, tmp_path):
    folder = folder_of(make_datamodule(tmp_path, category, anomalies_per_defect=2))
    configs = read_defects_config(folder)
    for kind, attribute in KINDS.items():
        stems = [path.stem for path in (folder / "test" / kind).iterdir()]
        defects = getattr(SCENES[category], attribute)
        assert Counter(stem.partition("_")[2] for stem in stems) == dict.fromkeys(defects, 2)
        assert sorted(stem[:3] for stem in stems) == [f"{index:03d}" for index in range(2 * len(defects))]
        for stem in stems:
            channels = read_defect_channels(folder / "ground_truth" / kind / stem, configs, image_size=(64, 64))
            assert {channel.config.defect_name for channel in channels} == {stem.partition("_")[2]}


def test_thresholds_in_pixels_are_no_larger_than_the_regions(written):
    folder, scene = folder_of(written), SCENES[written.scene]
    configs = read_defects_config(folder)
    assert [config.defect_name for config in configs] == [*scene.logical, *scene.structural]
    for masks in (folder / "ground_truth").glob("*/*"):
        for channel in read_defect_channels(masks, configs):
            if not channel.config.relative_saturation:
                assert channel.config.saturation_threshold <= 1.1 * channel.mask.sum()


def test_pixel_thresholds_grow_with_the_image(tmp_path):
    thresholds = [
        read_defects_config(folder_of(make_datamodule(tmp_path, "tablet_blister", image_size=size)))[0]
        for size in (64, 128)
    ]
    assert not thresholds[0].relative_saturation
    assert thresholds[1].saturation_threshold == pytest.approx(4 * thresholds[0].saturation_threshold, rel=0.05)


def test_images_are_rgb_png_files_of_the_size_asked_for(tmp_path):
    folder = folder_of(make_datamodule(tmp_path, image_size=67))
    with Image.open(folder / "train" / "good" / "000.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (67, 67))


def test_batches_have_kinds_and_masks(written):
    written.setup()
    assert [len(written.train_data), len(written.val_data)] == [3, 1]
    batch = next(iter(written.test_dataloader()))
    kinds = anomaly_kinds(batch.image_path)
    scene = SCENES[written.scene]
    assert Counter(kinds) == {
        "good": 2,
        "logical_anomalies": len(scene.logical),
        "structural_anomalies": len(scene.structural),
    }
    assert batch.gt_mask.flatten(1).any(dim=1).tolist() == [kind != "good" for kind in kinds]


def test_written_folder_is_a_category_of_its_own_right(tmp_path):
    datamodule = make_datamodule(tmp_path)
    plain = MVTecLoco(root=tmp_path, category=datamodule.category, num_workers=0)
    plain.setup()
    assert len(plain.test_data) == 2 + 5 + 5


def test_maps_that_are_the_masks_get_full_marks_in_the_loco_protocol_of_every_defect(tmp_path):
    datamodule = make_datamodule(tmp_path / "data")
    folder, maps = folder_of(datamodule), tmp_path / "maps" / datamodule.category / "test"
    for image in (folder / "test").glob("*/*.png"):
        heat = np.zeros((64, 64), np.float32)
        for mask in (folder / "ground_truth" / image.parent.name / image.stem).glob("*.png"):
            heat += np.asarray(Image.open(mask)) > 0
        (maps / image.parent.name).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(maps / image.parent.name / f"{image.stem}.tiff", heat)
    output = tmp_path / "metrics.json"
    arguments = ["--dataset", tmp_path / "data", "--object", datamodule.category, "--anomaly-maps", tmp_path / "maps"]
    assert loco.main([str(argument) for argument in [*arguments, "--output", output, "--per-defect"]]) == 0
    metrics = json.loads(output.read_text())
    assert metrics["classification"]["auc_roc"] == dict.fromkeys((*KINDS, "mean"), 1)
    of_kinds, of_defects = (metrics["localization"][name] for name in ("auc_spro", "auc_spro_per_defect"))
    scene = SCENES["wire_plug"]
    assert set(of_kinds) == {*KINDS, "mean"}
    assert set(of_defects) == {*scene.logical, *scene.structural}
    for figures in (*of_kinds.values(), *of_defects.values()):
        assert list(figures.values()) == pytest.approx([1] * 5)


def test_more_images_keep_the_first_ones(tmp_path):
    few = read_files(make_datamodule(tmp_path))
    many = read_files(make_datamodule(tmp_path, train_images=4, test_images=3, val_images=2, anomalies_per_defect=2))
    pictures = [name for name in few if name.endswith(".png")]
    assert all(few[name] == many[name] for name in pictures)
    assert len([name for name in many if name.endswith(".png")]) > len(pictures)


def test_other_seed_gives_other_images(tmp_path):
    first, second = (read_files(make_datamodule(tmp_path, seed=seed)) for seed in (3, 4))
    images = [name for name in first if name.startswith(("train", "validation", "test"))]
    assert not any(first[name] == second[name] for name in images)


def test_all_images_differ(written):
    files = read_files(written)
    images = [content for name, content in files.items() if name.startswith(("train", "validation", "test"))]
    assert len(set(images)) == len(images)


@pytest.mark.parametrize(
    "change",
    [{"category": "vial_rack"}, {"seed": 1}, {"image_size": 65}, *({n: SMALL[n] + 1} for n in list(SMALL)[1:])],
    ids=lambda change: next(iter(change)),
)
def test_argument_that_shapes_the_images_gives_another_folder(change, tmp_path):
    assert LocoScenes(root=tmp_path, **SMALL).category != LocoScenes(root=tmp_path, **(SMALL | change)).category


def test_folder_is_named_after_category_and_seed(tmp_path):
    assert LocoScenes(root=tmp_path, category="vial_rack", seed=7).category.startswith("vial_rack_seed7_")


def test_unknown_category_lists_those_that_exist(tmp_path):
    message = rf"category must be one of \({', '.join(map(repr, SCENES))}\), got 'bottle'"
    with pytest.raises(ValueError, match=message):
        LocoScenes(root=tmp_path, category="bottle")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
        ({"seed": None}, "seed must be an integer of at least 0, got None"),
        ({"image_size": 63}, "image_size must be an integer of at least 64, got 63"),
        ({"train_images": 0}, "train_images must be an integer of at least 1, got 0"),
        ({"val_images": 2.5}, "val_images must be an integer of at least 1, got 2.5"),
        ({"test_images": True}, "test_images must be an integer of at least 1, got True"),
        ({"anomalies_per_defect": 0}, "anomalies_per_defect must be an integer of at least 1, got 0"),
    ],
)
def test_number_out_of_range_is_refused(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        LocoScenes(root=tmp_path, **arguments)


def test_default_root_is_in_anomalibs_folder_for_data_sets():
    assert LocoScenes().root == get_datasets_dir() / "LocoScenes"


@pytest.mark.parametrize("name", ["LocoScenes", "anomalib_logic.LocoScenes"])
def test_arguments_parse_from_the_command_line(name, tmp_path):
    parser = ArgumentParser()
    parser.add_subclass_arguments(AnomalibDataModule, "data")
    arguments = [f"--data={name}", f"--data.root={tmp_path}", "--data.category=pellet_dish", "--data.seed=5"]
    datamodule = parser.instantiate_classes(parser.parse_args(arguments)).data
    assert datamodule.category == LocoScenes(category="pellet_dish", seed=5).category

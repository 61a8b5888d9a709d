# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pytest
from PIL import Image

from anomalib_logic.data import (
    DefectConfig,
    anomaly_kind,
    anomaly_kinds,
    category_kinds,
    mask_folder,
    read_defect_channels,
    read_defects_config,
)
from anomalib_logic.data.loco_layout import find_categories, find_images

LOGICAL = Path("ground_truth") / "logical_anomalies"


@pytest.mark.parametrize(
    "path",
    [
        "data/tray/test/logical_anomalies/000.png",
        r"C:\data\tray\test\logical_anomalies\000.png",
        PurePosixPath("/data/tray/test/logical_anomalies/000.png"),
        PureWindowsPath(r"D:\tray\test\logical_anomalies\000.png"),
        "data/good/test/logical_anomalies/good.png",
    ],
)
def test_kind_is_the_name_of_the_folder_that_holds_the_image(path):
    assert anomaly_kind(path) == "logical_anomalies"


def test_kinds_keep_the_order_of_the_batch():
    paths = ["test/structural_anomalies/1.png", "test/good/0.png", "test/logical_anomalies/2.png"]
    assert anomaly_kinds(paths) == ["structural_anomalies", "good", "logical_anomalies"]


def test_kind_of_an_image_outside_the_layout_is_refused():
    with pytest.raises(ValueError, match=r"one of \('good', .*got 'test/broken/000.png'"):
        anomaly_kind("test/broken/000.png")


def test_mask_folder_lies_in_the_ground_truth_of_the_same_kind():
    path = Path("tray") / "test" / "structural_anomalies" / "007.png"
    assert mask_folder(path) == Path("tray") / "ground_truth" / "structural_anomalies" / "007"


def test_normal_image_has_no_mask_folder():
    with pytest.raises(ValueError, match="normal images have no masks"):
        mask_folder("tray/test/good/000.png")


def test_defects_config_is_read_from_the_category_folder(category):
    assert read_defects_config(category) == [
        DefectConfig("missing", 255, 1.0, True),
        DefectConfig("scratch", 254, 20.0, False),
    ]


def test_missing_defects_config_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"defects_config\.json does not exist"):
        read_defects_config(tmp_path)


def test_defects_config_that_is_no_json_is_named(category):
    (category / "defects_config.json").write_text("[{")
    with pytest.raises(ValueError, match=r"defects_config\.json is not valid JSON"):
        read_defects_config(category)


@pytest.mark.parametrize("content", ["{}", "[]", "3"])
def test_defects_config_without_a_list_of_defects_is_refused(category, content):
    (category / "defects_config.json").write_text(content)
    with pytest.raises(ValueError, match="must hold a non-empty list of defects"):
        read_defects_config(category)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"defect_name": ""}, "entry 1: defect_name must be a non-empty string, got ''"),
        ({"pixel_value": 0}, "entry 1: pixel_value must be an integer from 1 to 255, got 0"),
        ({"pixel_value": 256}, "entry 1: pixel_value must be an integer from 1 to 255, got 256"),
        ({"pixel_value": True}, "entry 1: pixel_value must be an integer from 1 to 255, got True"),
        ({"pixel_value": 255}, r"pixel_value must be unique, got 255 for \['missing', 'scratch'\]"),
        ({"relative_saturation": 1}, "entry 1: relative_saturation must be true or false, got 1"),
        ({"saturation_threshold": 0}, "entry 1: saturation_threshold must be a positive number of pixels, got 0"),
        ({"saturation_threshold": "9"}, "entry 1: saturation_threshold must be a positive number of pixels, got '9'"),
        (
            {"saturation_threshold": 1.5, "relative_saturation": True},
            r"entry 1: saturation_threshold must be a share of the area in \(0, 1\], got 1.5",
        ),
    ],
)
def test_malformed_defect_names_entry_key_and_value(category, change, message):
    entries = json.loads((category / "defects_config.json").read_text())
    entries[1] |= change
    (category / "defects_config.json").write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=message):
        read_defects_config(category)


def test_defect_without_a_key_is_refused(category):
    (category / "defects_config.json").write_text('[{"defect_name": "missing", "pixel_value": 255}]')
    with pytest.raises(ValueError, match=r"entry 0 .*\['saturation_threshold', 'relative_saturation'\] are missing"):
        read_defects_config(category)


def test_every_mask_file_is_one_channel_with_its_defect(category):
    channels = read_defect_channels(category / LOGICAL / "001", read_defects_config(category))
    found = [(channel.config.defect_name, channel.mask.any(dim=1).nonzero().tolist()) for channel in channels]
    assert found == [("missing", [[3]]), ("scratch", [[9]])]


def test_unknown_pixel_value_names_file_value_and_known_defects(category):
    path = category / LOGICAL / "000" / "000.png"
    Image.fromarray(np.full((40, 48), 77, np.uint8)).save(path)
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} has the unknown pixel value 77.*255: 'missing'"):
        read_defect_channels(path.parent, read_defects_config(category))


def test_any_pixel_value_is_accepted_without_a_configuration(category):
    path = category / LOGICAL / "000" / "000.png"
    Image.fromarray(np.full((40, 48), 77, np.uint8)).save(path)
    assert [channel.pixel_value for channel in read_defect_channels(path.parent)] == [77]


@pytest.mark.parametrize("values", [[0], [254, 255]])
def test_mask_without_exactly_one_value_is_refused(category, values):
    path = category / LOGICAL / "000" / "000.png"
    Image.fromarray(np.resize(np.array(values, np.uint8), (40, 48))).save(path)
    with pytest.raises(ValueError, match="must have exactly one non-zero pixel value, got"):
        read_defect_channels(path.parent, read_defects_config(category))


def test_mask_of_16_bits_is_refused(category):
    path = category / LOGICAL / "000" / "000.png"
    Image.fromarray(np.full((40, 48), 255, np.uint16)).save(path)
    with pytest.raises(ValueError, match="must be an 8-bit greyscale, palette, RGB or RGBA image, got mode 'I;16'"):
        read_defect_channels(path.parent)


def test_mask_of_another_size_is_refused_when_read(category):
    with pytest.raises(ValueError, match=r"must be as large as its image, 30 x 20 pixels, got 48 x 40 pixels"):
        read_defect_channels(category / LOGICAL / "000", image_size=(20, 30))


def test_categories_are_the_folders_with_train_and_test(category):
    (category.parent / "notes" / "train").mkdir(parents=True)
    shutil.copytree(category, category.parent / "bottle")
    shutil.copytree(category, category.parent / ".hidden")
    assert find_categories(category.parent) == ["bottle", "tray"]


def test_images_are_sorted_by_kind_and_name(category):
    names = [f"{image.kind}/{image.path.name}" for image in find_images(category, "test")]
    assert names == [
        *(f"good/{index:03d}.png" for index in range(4)),
        *(f"{kind}_anomalies/{index:03d}.png" for kind in ("logical", "structural") for index in range(2)),
    ]


def test_hidden_and_other_files_are_no_images(category):
    for name in ("._000.png", "notes.txt", "Thumbs.db"):
        (category / "train" / "good" / name).write_text("no image")
    assert len(find_images(category, "train")) == 4


def test_suffix_may_be_upper_case(category):
    folder = category / "test" / "logical_anomalies"
    (folder / "000.png").rename(folder / "000.PNG")
    assert [image.path.name for image in find_images(category, "test")][4] == "000.PNG"


def test_one_kind_of_anomaly_is_enough(category):
    shutil.rmtree(category / "test" / "structural_anomalies")
    shutil.rmtree(category / "ground_truth" / "structural_anomalies")
    assert [image.kind for image in find_images(category, "test")].count("logical_anomalies") == 2


def test_missing_mask_folder_is_named(category):
    shutil.rmtree(category / LOGICAL / "000")
    with pytest.raises(
        FileNotFoundError, match=r"image .*000\.png has no mask: .*logical_anomalies.000 does not exist"
    ):
        find_images(category, "test")


def test_mask_folder_without_a_mask_is_named(category):
    (category / LOGICAL / "000" / "000.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"mask folder .*000 holds no image file"):
        find_images(category, "test")


def test_mask_folder_without_an_image_is_named(category):
    (category / "test" / "logical_anomalies" / "001.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"mask folder .*001 has no image .*001\.png"):
        find_images(category, "test")


@pytest.mark.parametrize(("split", "folder"), [("train", "train"), ("val", "validation"), ("test", "test")])
def test_missing_split_is_named(category, split, folder):
    shutil.rmtree(category / folder)
    with pytest.raises(FileNotFoundError, match=rf"{folder} does not exist: the {split} split is missing"):
        find_images(category, split)


@pytest.mark.parametrize(("split", "folder"), [("train", "train"), ("val", "validation"), ("test", "test")])
def test_split_without_a_normal_image_is_refused(category, split, folder):
    for path in (category / folder / "good").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"good holds no image: the {split} split is empty"):
        find_images(category, split)


def test_test_split_without_anomalies_is_refused(category):
    for kind in ("logical_anomalies", "structural_anomalies"):
        shutil.rmtree(category / "test" / kind)
        shutil.rmtree(category / "ground_truth" / kind)
    with pytest.raises(FileNotFoundError, match="test has no anomalous image"):
        find_images(category, "test")


@pytest.mark.parametrize(("split", "folder"), [("train", "train/logical_anomalies"), ("test", "test/broken")])
def test_folder_of_an_unknown_kind_is_named(category, split, folder):
    (category / folder).mkdir()
    with pytest.raises(ValueError, match=rf"unknown folder .*{Path(folder).name}: folders in .* must be named one of"):
        find_images(category, split)


def test_file_that_is_no_image_is_named(category):
    (category / "train" / "good" / "001.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"good.001\.png is not a readable image file"):
        find_images(category, "train")


@pytest.mark.parametrize("name", ["000.png", "001.jpg"])
def test_mask_with_lossy_compression_is_named(category, name):
    Image.new("L", (48, 40), 255).save(category / LOGICAL / "000" / name, format="JPEG")
    with pytest.raises(ValueError, match=rf"mask .*000.{name} is a file with lossy compression \(JPEG\).*as PNG"):
        find_images(category, "test")


def test_mask_of_another_size_than_its_image_is_refused(category):
    Image.new("L", (48, 41), 255).save(category / LOGICAL / "000" / "000.png")
    with pytest.raises(ValueError, match=r"as large as its image .*, 48 x 40 pixels, got 48 x 41 pixels"):
        find_images(category, "test")


def test_unknown_split_is_refused(category):
    with pytest.raises(ValueError, match=r"split must be one of \('train', 'val', 'test'\), got 'validation'"):
        find_images(category, "validation")


# what is not used


def test_what_the_layout_does_not_use_is_named_once_a_folder(category, caplog):
    mask_folder = category / LOGICAL / "000"
    names = ["._a.png", "b.gif", "c.txt", "Thumbs.db"]
    for folder in (category / "train" / "good", category / "test", category / LOGICAL, mask_folder):
        for name in names:
            (folder / name).write_bytes(b"x")
    (category / "train" / "good" / "old").mkdir()
    (category / "ground_truth" / "scratches").mkdir()
    (category / "vallidation").mkdir()
    for _ in range(2):
        find_images(category, "train")
        find_images(category, "test")
    named = {record.args[0] if record.args else record.getMessage() for record in caplog.records}
    assert named == {record.getMessage() for record in caplog.records}
    assert len(caplog.records) == 4
    text = caplog.text
    assert f"{category} holds what no data set uses and is left out: vallidation/" in text
    assert f"{category / 'train'} holds" in text
    assert "good/._a.png, good/Thumbs.db, good/b.gif, good/c.txt, good/old/" in text
    assert "._a.png, Thumbs.db, b.gif, c.txt" in text
    assert "and 4 more" in text  # of the two folders of masks, and of the unknown kind


def test_complete_category_is_read_without_a_word(category, autovi_category, caplog):
    for folder, splits in ((category, ("train", "val", "test")), (autovi_category, ("train", "test"))):
        for split in splits:
            find_images(folder, split)
    assert not caplog.records


# other formats than PNG


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "bmp", "ppm", "tif", "tiff", "webp"])
def test_images_of_all_of_anomalibs_formats_are_found(category, suffix):
    folder = category / "test" / "logical_anomalies"
    with Image.open(folder / "000.png") as image:
        image.save(folder / f"000.{suffix}")
    (folder / "000.png").unlink()
    image = find_images(category, "test")[4]
    assert (image.path.name, image.mask_folder) == (f"000.{suffix}", category / LOGICAL / "000")


@pytest.mark.parametrize("split", ["train", "test"])
def test_two_images_of_one_stem_are_refused(category, split):
    Image.new("RGB", (48, 40)).save(category / split / "good" / "001.jpg")
    with pytest.raises(ValueError, match=r"001\.jpg and .*001\.png have the same stem"):
        find_images(category, split)


# without ground truth


def test_without_ground_truth_no_image_has_masks(category):
    shutil.rmtree(category / "ground_truth")
    assert [image.mask_folder for image in find_images(category, "test")] == [None] * 8


def test_masks_of_one_kind_only_are_refused_with_the_first_image_without(category):
    shutil.rmtree(category / "ground_truth" / "structural_anomalies")
    with pytest.raises(FileNotFoundError, match=r"image .*structural_anomalies.000\.png has no mask"):
        find_images(category, "test")


# AutoVI's layout


def test_each_defect_folder_is_a_kind(autovi_category):
    assert category_kinds(autovi_category) == ("good", "broken fastener", "unclipped")
    kinds = ["good"] * 3 + ["broken fastener"] * 2 + ["unclipped"]
    images = find_images(autovi_category, "test")
    assert [image.kind for image in images] == kinds
    assert anomaly_kinds(image.path for image in images) == kinds


def test_rgb_masks_of_a_defect_folder_are_read(autovi_category):
    folder = mask_folder(autovi_category / "test" / "unclipped" / "0000.png")
    (channel,) = read_defect_channels(folder, read_defects_config(autovi_category))
    assert (channel.config.defect_name, channel.mask.any(dim=1).nonzero().tolist()) == ("scratch", [[2]])


@pytest.mark.parametrize("missing", ["defects_config.json", "ground_truth"])
def test_configuration_or_mask_folders_are_enough_to_tell_the_layout(autovi_category, missing):
    path = autovi_category / missing
    path.unlink() if path.is_file() else shutil.rmtree(path)
    assert category_kinds(autovi_category) == ("good", "broken fastener", "unclipped")


def test_layout_of_mvtec_ad_is_refused(autovi_category):
    """Its masks are files, not folders, and it has no configuration."""
    (autovi_category / "defects_config.json").unlink()
    for folder in sorted((autovi_category / "ground_truth").glob("*/*")):
        (folder / "0000.png").rename(folder.parent / f"{folder.name}_mask.png")
        folder.rmdir()
    with pytest.raises(ValueError, match=r"unknown folder .*broken fastener.*as in AutoVI, beside defects_config"):
        find_images(autovi_category, "test")


def test_defect_folder_beside_those_of_loco_is_refused(category):
    (category / "test" / "unclipped").mkdir()
    with pytest.raises(ValueError, match=r"unknown folder .*unclipped"):
        find_images(category, "test")


@pytest.mark.parametrize("name", ["mean", "logical", "structural"])
def test_defect_folder_with_the_name_of_a_figure_is_refused(autovi_category, name):
    (autovi_category / "test" / "unclipped").rename(autovi_category / "test" / name)
    with pytest.raises(ValueError, match=rf"{name} has the name of a metric; rename it"):
        find_images(autovi_category, "test")


def test_defect_folder_of_training_images_is_refused(autovi_category):
    (autovi_category / "train" / "unclipped").mkdir()
    with pytest.raises(ValueError, match=r"unknown folder .*unclipped: folders in train must be named one of"):
        find_images(autovi_category, "train")

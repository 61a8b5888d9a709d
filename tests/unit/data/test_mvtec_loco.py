# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tarfile
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pandas as pd
import pytest
import torch
from anomalib.data import AnomalibDataModule
from anomalib.data.utils import DownloadInfo
from jsonargparse import ArgumentParser
from PIL import Image
from torchvision.transforms.v2 import CenterCrop, Compose, RandomVerticalFlip

from anomalib_logic.data import MVTecLoco, MVTecLocoDataset, anomaly_kinds, mvtec_loco


def make_datamodule(category: Path, **arguments) -> MVTecLoco:
    datamodule = MVTecLoco(root=category.parent, category=category.name, num_workers=0, **arguments)
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


def make_dataset(category: Path, split: str | None = "test") -> MVTecLocoDataset:
    return MVTecLocoDataset(root=category.parent, category=category.name, split=split)


def set_pixels(path: Path, value: int) -> None:
    Image.fromarray(np.full((40, 48), value, np.uint8)).save(path)


# data set


def test_all_masks_of_an_image_are_merged(category):
    item = make_dataset(category)[5]
    assert item.gt_mask.any(dim=1).nonzero().flatten().tolist() == [3, 9]


def test_normal_image_has_an_empty_mask(category):
    assert not make_dataset(category)[0].gt_mask.any()


def test_image_is_read_at_its_original_size_with_values_from_0_to_1(category):
    image = make_dataset(category)[0].image
    assert torch.equal(image.as_subclass(torch.Tensor), torch.full((3, 40, 48), 90 / 255))


@pytest.mark.parametrize("index", [0, 5])
def test_image_and_mask_are_augmented_together(category, index):
    dataset = make_dataset(category)
    rows = np.arange(40, dtype=np.uint8)
    for path in ("good/000.png", "logical_anomalies/001.png"):
        Image.fromarray(np.broadcast_to(rows[:, None, None], (40, 48, 3)).copy()).save(category / "test" / path)
    dataset.augmentations = Compose([RandomVerticalFlip(), CenterCrop((40, 8))])
    torch.manual_seed(0)
    seen = set()
    for _ in range(10):
        item = dataset[index]
        marked = item.image[0, item.gt_mask.any(dim=1), 0] * 255  # the numbers of the masks' rows
        assert sorted(marked.round().tolist()) == ([3, 9] if index else [])
        assert (item.image.shape, item.gt_mask.shape) == ((3, 40, 8), (40, 8))
        seen.add(bool(item.image[0, 0, 0] == 0))
    assert seen == {True, False}  # it was turned upside down or not


def test_item_carries_the_label_of_its_folder(category):
    assert [int(item.gt_label) for item in make_dataset(category)] == [0, 0, 0, 0, 1, 1, 1, 1]


def test_table_holds_one_plain_string_in_each_mask_path(category):
    paths = make_dataset(category).samples["mask_path"]
    truth = category / "ground_truth"
    folders = [truth / kind / stem for kind in ("logical_anomalies", "structural_anomalies") for stem in ("000", "001")]
    assert paths.tolist() == ["", "", "", "", *(str(folder) for folder in folders)]


def test_labels_are_integers(category):
    assert pd.api.types.is_integer_dtype(make_dataset(category).samples["label_index"])


def test_without_a_split_the_table_holds_all(category):
    assert make_dataset(category, split=None).samples["split"].value_counts().to_dict() == {
        "train": 4,
        "val": 2,
        "test": 8,
    }


def test_added_data_sets_check_masks_with_their_own_defects(category):
    other = category.parent / "bottle"
    shutil.copytree(category, other)
    for path in (other / "ground_truth").rglob("*.png"):
        set_pixels(path, 10)
    entry = {"defect_name": "dent", "pixel_value": 10, "saturation_threshold": 1, "relative_saturation": True}
    (other / "defects_config.json").write_text(json.dumps([entry]))
    both = make_dataset(category) + make_dataset(other)
    assert sum(bool(item.gt_mask.all()) for item in both) == 4


def test_unknown_pixel_value_is_refused_when_the_item_is_read(category):
    path = category / "ground_truth" / "logical_anomalies" / "000" / "000.png"
    set_pixels(path, 77)
    dataset = make_dataset(category)
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} has the unknown pixel value 77"):
        dataset[4]


def test_without_defects_config_any_pixel_value_is_read(category):
    set_pixels(category / "ground_truth" / "logical_anomalies" / "000" / "000.png", 77)
    (category / "defects_config.json").unlink()
    assert make_dataset(category)[4].gt_mask.all()


def test_malformed_defects_config_is_refused_at_once(category):
    (category / "defects_config.json").write_text("[]")
    with pytest.raises(ValueError, match="must hold a non-empty list of defects"):
        make_dataset(category)


def test_truncated_image_is_named_when_the_item_is_read(category):
    path = category / "train" / "good" / "000.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    dataset = make_dataset(category, split="train")
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} is not a readable image file"):
        dataset[0]


def test_truncated_mask_is_named_when_the_item_is_read(category):
    path = category / "ground_truth" / "logical_anomalies" / "000" / "000.png"
    path.write_bytes(path.read_bytes()[:45])
    dataset = make_dataset(category)
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} is not a readable image file"):
        dataset[4]


def test_image_that_has_gone_is_reported_as_missing(category):
    dataset = make_dataset(category, split="train")
    (category / "train" / "good" / "000.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"good.000\.png"):
        dataset[0]


# data module


def test_test_batch_tells_the_kinds(category):
    batch = next(iter(make_datamodule(category).test_dataloader()))
    assert anomaly_kinds(batch.image_path) == [
        *["good"] * 4,
        *["logical_anomalies"] * 2,
        *["structural_anomalies"] * 2,
    ]


def test_training_batch_has_the_default_size_of_8(category):
    for index in range(4, 9):
        shutil.copy(category / "train" / "good" / "000.png", category / "train" / "good" / f"{index:03d}.png")
    batch = next(iter(make_datamodule(category).train_dataloader()))
    assert batch.image.shape == (8, 3, 40, 48)


def test_batch_has_one_merged_mask_for_each_image(category):
    batch = next(iter(make_datamodule(category).test_dataloader()))
    assert batch.gt_mask.sum(dim=(1, 2)).tolist() == [0, 0, 0, 0, 48, 96, 48, 48]


@pytest.mark.parametrize(
    ("mode", "sizes"),
    [
        ("from_dir", (4, 2, 8)),
        ("same_as_test", (4, 8, 8)),
        ("from_test", (4, 4, 4)),
        ("from_train", (2, 2, 8)),
        ("synthetic", (2, 2, 8)),
    ],
)
def test_validation_split_mode_shares_out_the_images(category, mode, sizes):
    datamodule = make_datamodule(category, val_split_mode=mode, seed=1)
    assert (len(datamodule.train_data), len(datamodule.val_data), len(datamodule.test_data)) == sizes


def test_validation_from_folder_is_normal(category):
    assert not make_datamodule(category).val_data.has_anomalous


def test_validation_mode_none_gives_no_batches(category):
    assert make_datamodule(category, val_split_mode="none").val_dataloader() == []


def test_synthetic_validation_is_half_anomalous(category):
    loader = make_datamodule(category, val_split_mode="synthetic", seed=1).val_dataloader()
    assert sorted(next(iter(loader)).gt_label.tolist()) == [False, True]


def test_missing_validation_folder_is_named_with_the_remedy(category):
    shutil.rmtree(category / "validation")
    with pytest.raises(FileNotFoundError, match=r"validation does not exist.*another val_split_mode than 'from_dir'"):
        make_datamodule(category)


def test_other_validation_modes_need_no_validation_folder(category):
    shutil.rmtree(category / "validation")
    assert len(make_datamodule(category, val_split_mode="from_test").val_data) == 4


def test_unknown_category_lists_official_and_found_ones(category):
    with pytest.raises(ValueError, match=r"'breakfast_box', .*'splicing_connectors'.*\('tray',\), got 'tary'"):
        MVTecLoco(root=category.parent, category="tary")


@pytest.mark.parametrize("name", ["", ".", "../scenes/tray", "tray/test"])
def test_category_must_be_the_name_of_a_folder(category, name):
    with pytest.raises(ValueError, match=f"got {re.escape(repr(name))}"):
        MVTecLoco(root=category.parent, category=name)


def test_arguments_parse_from_the_command_line(category):
    parser = ArgumentParser()
    parser.add_subclass_arguments(AnomalibDataModule, "data")
    arguments = ["--data=MVTecLoco", f"--data.root={category.parent}", "--data.category=tray"]
    datamodule = parser.instantiate_classes(parser.parse_args([*arguments, "--data.val_split_mode=from_test"])).data
    assert (datamodule.root / datamodule.category, datamodule.val_split_mode.value) == (category, "from_test")


# files of other formats and modes


def test_images_of_all_formats_are_trained_on(category):
    for index, suffix in enumerate(("jpg", "jpeg", "bmp", "tif", "webp"), start=4):
        with Image.open(category / "train" / "good" / "000.png") as image:
            image.save(category / "train" / "good" / f"{index:03d}.{suffix}")
    batch = next(iter(make_datamodule(category).train_dataloader()))
    assert batch.image.shape == (8, 3, 40, 48)
    assert len(make_datamodule(category).train_data) == 9


@pytest.mark.parametrize("folder", ["train/good", "validation/good", "test/good", "test/logical_anomalies"])
def test_image_that_anomalib_would_misread_is_refused_at_setup(category, folder):
    path = category / folder / "001.png"
    Image.fromarray(np.full((40, 48), 4000, np.uint16)).save(path)
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} has more than 8 bits a channel \(mode 'I;16'\)"):
        make_datamodule(category)


def test_transparent_image_is_refused_when_the_item_is_read(category):
    path = category / "train" / "good" / "000.png"
    Image.fromarray(np.full((40, 48, 4), 90, np.uint8)).save(path)
    dataset = make_dataset(category, split="train")
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} has transparent pixels \(mode 'RGBA'\)"):
        dataset[0]


def test_masks_in_alpha_are_merged(category):
    path = category / "ground_truth" / "logical_anomalies" / "001" / "000.png"
    pixels = np.full((40, 48, 4), 255, np.uint8)
    pixels[..., 3] = 0
    pixels[5, :, 3] = 255
    Image.fromarray(pixels).save(path)
    assert make_dataset(category)[5].gt_mask.any(dim=1).nonzero().flatten().tolist() == [5, 9]


# without ground truth


def test_without_ground_truth_items_have_no_masks(category):
    shutil.rmtree(category / "ground_truth")
    batch = next(iter(make_datamodule(category).test_dataloader()))
    assert (batch.gt_mask, batch.gt_label.tolist()) == (None, [False] * 4 + [True] * 4)


def test_missing_ground_truth_is_said_once(category, caplog):
    shutil.rmtree(category / "ground_truth")
    for _ in range(2):
        make_datamodule(category)
    assert caplog.text.count(f"{category} has no ground_truth folder: there are no masks") == 1


# AutoVI's layout


def test_autovi_is_loaded_with_its_masks(autovi_category):
    batch = next(iter(make_datamodule(autovi_category).test_dataloader()))
    areas = zip(anomaly_kinds(batch.image_path), batch.gt_mask.sum(dim=(1, 2)).tolist(), strict=True)
    assert sorted(areas) == [("broken fastener", 48)] * 2 + [("good", 0)] * 3 + [("unclipped", 48)]


def test_autovi_without_validation_holds_out_every_fifth_training_image_and_says_so(autovi_category, caplog):
    datamodule = make_datamodule(autovi_category)
    names = [Path(path).name for path in datamodule.val_data.samples["image_path"]]
    assert (names, len(datamodule.train_data)) == (["0004.png", "0009.png"], 8)
    assert not set(datamodule.train_data.samples["image_path"]) & set(datamodule.val_data.samples["image_path"])
    assert "2 of its 10 training images are the validation set" in caplog.text


def test_autovi_with_other_validation_trains_on_all_images(autovi_category):
    assert len(make_datamodule(autovi_category, val_split_mode="same_as_test").train_data) == 10


def test_autovi_with_few_training_images_names_the_argument(autovi_category):
    for path in sorted((autovi_category / "train" / "good").iterdir())[4:]:
        path.unlink()
    with pytest.raises(FileNotFoundError, match="choose another val_split_mode than 'from_dir'"):
        make_datamodule(autovi_category)


# download


@pytest.fixture
def archive(category, tmp_path, monkeypatch) -> Path:
    """Serve a small archive with the category "juice_bottle" in place of the real one."""
    path = tmp_path / "mvtec_loco.tar.xz"
    with tarfile.open(path, "w:xz") as tar:
        tar.add(category, arcname="juice_bottle")
    hashsum = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(mvtec_loco, "DOWNLOAD_INFO", DownloadInfo("mvtec_loco", f"https://host/{path.name}", hashsum))
    return path


def serve(monkeypatch, fetch) -> None:
    monkeypatch.setattr("anomalib.data.utils.download.urlretrieve", lambda url, filename, reporthook: fetch(filename))


def test_official_category_is_downloaded_if_missing(archive, tmp_path, monkeypatch):
    serve(monkeypatch, lambda filename: shutil.copy(archive, filename))
    datamodule = make_datamodule(tmp_path / "new" / "juice_bottle")
    assert len(datamodule.test_data) == 8


def test_download_leaves_only_the_categories(archive, tmp_path, monkeypatch):
    serve(monkeypatch, lambda filename: shutil.copy(archive, filename))
    MVTecLoco(root=tmp_path / "new", category="juice_bottle").prepare_data()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["juice_bottle"]


def test_category_on_disk_is_not_downloaded(category, monkeypatch):
    serve(monkeypatch, lambda filename: pytest.fail("download was started"))
    category.rename(category.parent / "pushpins")
    assert len(make_datamodule(category.parent / "pushpins").train_data) == 4


def test_failed_download_names_address_and_place(archive, tmp_path, monkeypatch):
    def fail(filename):
        raise URLError("no network")

    serve(monkeypatch, fail)
    message = (
        r"from https://host/mvtec_loco.tar.xz to .*new: URLError: .*no network.*by hand so that .*train.good exists"
    )
    with pytest.raises(RuntimeError, match=message):
        MVTecLoco(root=tmp_path / "new", category="juice_bottle").prepare_data()


def test_download_with_a_wrong_hash_is_refused(archive, tmp_path, monkeypatch):
    serve(monkeypatch, lambda filename: filename.write_bytes(b"something else"))
    with pytest.raises(RuntimeError, match="does not match the required hash"):
        MVTecLoco(root=tmp_path / "new", category="juice_bottle").prepare_data()


def test_download_after_a_broken_one_starts_again(archive, tmp_path, monkeypatch):
    serve(monkeypatch, lambda filename: filename.write_bytes(archive.read_bytes()[:100]))
    datamodule = MVTecLoco(root=tmp_path / "new", category="juice_bottle")
    with pytest.raises(RuntimeError, match="does not match the required hash"):
        datamodule.prepare_data()
    serve(monkeypatch, lambda filename: shutil.copy(archive, filename))
    datamodule.prepare_data()
    assert (tmp_path / "new" / "juice_bottle" / "train" / "good" / "003.png").is_file()


def test_archive_that_arrived_whole_is_not_fetched_again(archive, tmp_path, monkeypatch):
    staging = tmp_path / "new" / ".mvtec_loco_download"
    (staging / "juice_bottle" / "train").mkdir(parents=True)
    shutil.copy(archive, staging / archive.name)
    serve(monkeypatch, lambda filename: pytest.fail("download was started"))
    MVTecLoco(root=tmp_path / "new", category="juice_bottle").prepare_data()
    assert (tmp_path / "new" / "juice_bottle" / "test" / "good" / "000.png").is_file()


def test_setup_before_the_download_says_what_to_call(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"juice_bottle does not exist; call prepare_data\(\)"):
        MVTecLoco(root=tmp_path, category="juice_bottle").setup()

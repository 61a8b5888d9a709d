# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What a run of Anomalib's engine checks and names of its files, with Anomalib's own data modules."""

from __future__ import annotations

import logging
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from anomalib.data import Folder, MVTecAD, PredictDataset
from anomalib.engine import Engine
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image
from torch.utils.data import DataLoader

from anomalib_logic import SamLad
from anomalib_logic.data import MVTecLoco
from anomalib_logic.data.run_files import check_run, set_up_data

SMALL = {
    "backbone": "test_efficientnet",
    "pre_trained": False,
    "objects": "cluster",
    "image_size": 64,
    "clusters": 4,
    "scene_size": 16,
}
links = pytest.mark.skipif(sys.platform == "win32", reason="needs links")


def write(path, level=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 48, 3), level, np.uint8)).save(path)


@pytest.fixture
def parts(tmp_path):
    """Ten good images, four bad ones and their masks."""
    root = tmp_path / "parts"
    for folder, number in (("good", 10), ("bad", 4), ("masks", 4)):
        for i in range(number):
            write(root / folder / f"{i:03}.png", 90 if folder == "good" else 255)
    return root


def folder_of(root, **arguments):
    return Folder("parts", "good", root, "bad", mask_dir="masks", num_workers=0, seed=0, **arguments)


def run(datamodule, stage="fit"):
    """What a model does before a stage."""
    trainer = SimpleNamespace(datamodule=datamodule, state=SimpleNamespace(fn=TrainerFn.FITTING))
    set_up_data(trainer)
    check_run(trainer, stage)


@pytest.mark.parametrize("mode", ["from_train", "from_test", "same_as_test", "synthetic"])
@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
def test_images_of_other_splits_are_not_named(parts, caplog, mode, stage):
    datamodule = folder_of(parts, val_split_mode=mode)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "anomalib_logic"):
        run(datamodule, stage)
    assert not [record for record in caplog.records if record.name.startswith("anomalib_logic")]


def test_what_folders_hold_besides_is_named_once(parts, caplog):
    (parts / "good" / "a.gif").write_bytes(b"x")
    (parts / "good" / "empty").mkdir()
    write(parts / "good" / "deep" / "deeper" / "x.png")
    (parts / "good" / "deep" / "b.txt").write_bytes(b"x")
    (parts / "masks" / "Thumbs.db").write_bytes(b"x")
    (parts / "unknown").mkdir()  # the data module was not given it
    datamodule = folder_of(parts)
    run(datamodule, "fit")
    run(datamodule, "test")
    said = [record.getMessage() for record in caplog.records if record.name.startswith("anomalib_logic")]
    assert said == [
        f"{parts / 'good'} holds what no data set uses and is left out: a.gif, deep/b.txt, empty/",
        f"{parts / 'masks'} holds what no data set uses and is left out: Thumbs.db",
    ]


def test_images_of_other_suffixes_than_the_extensions_are_named(parts, caplog):
    write(parts / "good" / "a.jpg")
    run(folder_of(parts, extensions=(".png",)))
    assert "left out: a.jpg" in caplog.text


@links
@pytest.mark.parametrize("folder", ["good", "bad", "masks"])
@pytest.mark.parametrize("stage", ["fit", "test"])
def test_dead_link_is_named(parts, folder, stage):
    path = parts / folder / "003.png"
    path.unlink()
    path.symlink_to(parts / "gone.png")
    with pytest.raises(FileNotFoundError, match=rf"{folder}.003\.png is a link to .*gone\.png, which does not exist"):
        run(folder_of(parts, val_split_mode="same_as_test"), stage)


@links
def test_link_to_a_folder_above_is_named(parts, caplog):
    (parts / "good" / "up").symlink_to(parts, target_is_directory=True)
    (parts / "good" / "self").symlink_to(parts / "good", target_is_directory=True)
    run(folder_of(parts))
    assert "left out: self/, up/\n" in caplog.text


@links
def test_dead_link_that_the_extensions_leave_out_is_named(parts):
    (parts / "good" / "a.jpg").symlink_to(parts / "gone.jpg")
    with pytest.raises(FileNotFoundError, match=r"a\.jpg is a link to"):
        run(folder_of(parts, extensions=(".png",)))


@pytest.mark.parametrize("folder", ["bad", "masks"])
def test_file_of_several_pictures_is_named_before_validation_and_test(parts, folder):
    with Image.open(parts / folder / "002.png") as image:
        image.save(parts / folder / "002.tif", save_all=True, append_images=[image])
    (parts / folder / "002.png").unlink()
    for stage, mode in (("fit", "same_as_test"), ("test", "from_train")):
        with pytest.raises(ValueError, match=rf"{folder}.002\.tif has several pictures"):
            run(folder_of(parts, val_split_mode=mode), stage)


def test_damaged_mask_is_named(parts):
    path = parts / "masks" / "001.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"masks.001\.png is not a readable image file"):
        run(folder_of(parts), "test")


def test_other_data_modules_name_what_their_category_holds_besides(category, caplog):
    with Image.open(category / "ground_truth" / "logical_anomalies" / "000" / "000.png") as mask:
        for i in range(2):
            mask.save(category / "ground_truth" / "logical_anomalies" / f"{i:03}_mask.png")
            shutil.rmtree(category / "ground_truth" / "logical_anomalies" / f"{i:03}")
    for folder in ("test", "ground_truth"):
        shutil.rmtree(category / folder / "structural_anomalies")
    (category / "test" / "logical_anomalies" / "a.gif").write_bytes(b"x")
    run(MVTecAD(category.parent, category.name, num_workers=0))
    assert f"{category} holds what no data set uses and is left out: defects_config.json, " in caplog.text
    assert "test/logical_anomalies/a.gif, validation/" in caplog.text


def test_data_in_locos_layout_is_named_by_its_own_data_sets_only(category, caplog):
    (category / "train" / "good" / "a.gif").write_bytes(b"x")
    run(MVTecLoco(category.parent, category.name, num_workers=0))
    assert caplog.text.count("a.gif") == 1


# loaders without a data module


def loaders(path):
    dataset = PredictDataset(path)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.predict_loop._data_source.instance = [DataLoader(dataset, collate_fn=dataset.collate_fn)]
    return trainer


def test_what_lies_beside_predicted_images_is_named(parts, caplog):
    (parts / "good" / "a.gif").write_bytes(b"x")
    check_run(loaders(parts / "good"), "predict")
    assert f"{parts / 'good'} holds what no data set uses and is left out: a.gif" in caplog.text


def test_prediction_of_one_file_names_nothing_else(parts, caplog):
    (parts / "good" / "a.gif").write_bytes(b"x")
    check_run(loaders(parts / "good" / "003.png"), "predict")
    assert "a.gif" not in caplog.text


@links
def test_dead_link_beside_one_predicted_file_is_none_of_its_business(parts):
    (parts / "good" / "a.png").symlink_to(parts / "gone.png")
    check_run(loaders(parts / "good" / "003.png"), "predict")


def test_file_that_would_be_misread_is_refused_before_prediction(parts):
    Image.fromarray(np.full((40, 48), 999, np.uint16)).save(parts / "good" / "009.png")
    with pytest.raises(ValueError, match=r"009\.png has more than 8 bits"):
        check_run(loaders(parts / "good"), "predict")


# above Pillow's limit of pixels


@pytest.mark.skipif(sys.platform != "linux", reason="workers that are no forks do not have this process's limit")
@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_images_and_masks_above_pillows_limit_reach_workers(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    datamodule = Folder("parts", "good", parts, "bad", mask_dir="masks", num_workers=1, seed=0)
    model = SamLad(**SMALL, visualizer=False)  # whose letters exceed this limit, too
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False, logger=False)
    engine.train(model, datamodule=datamodule)
    assert len(engine.predict(model, dataset=PredictDataset(parts / "bad"))) == 4


# few images


@pytest.mark.parametrize("mode", ["from_train", "none", "same_as_test", "synthetic"])
@pytest.mark.parametrize("bad", [False, True])
def test_one_normal_image_makes_a_bank(parts, tmp_path, mode, bad):
    for path in sorted((parts / "good").iterdir())[1:]:
        path.unlink()
    datamodule = Folder("parts", "good", parts, "bad" if bad else None, num_workers=0, val_split_mode=mode)
    model = SamLad(**SMALL)
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False, logger=False)
    engine.train(model, datamodule=datamodule)
    assert len(model.model.bank) == 1


def test_validation_images_from_test_images_that_do_not_exist_are_one_sentence(parts, tmp_path):
    datamodule = Folder("parts", "good", parts, num_workers=0, test_split_mode="none")
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False, logger=False)
    with pytest.raises(
        ValueError, match=r"val_split_mode 'from_test' takes .*test images, and there are none.*from_tr"
    ):
        engine.fit(SamLad(**SMALL), datamodule=datamodule)


def test_validation_folder_that_a_data_module_does_not_have_is_one_sentence(parts):
    with pytest.raises(ValueError, match=r"val_split_mode 'from_dir' is not known to Folder.*from_train"):
        run(folder_of(parts, val_split_mode="from_dir"))

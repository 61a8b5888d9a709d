# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from anomalib.data import AnomalibDataModule
from anomalib.utils.path import get_datasets_dir
from jsonargparse import ArgumentParser
from PIL import Image

from anomalib_logic.data import DigitAnatomy, anomaly_kinds, digit_anatomy, read_defect_channels, read_defects_config

SMALL = {"image_size": 48, "train_images": 5, "val_images": 2, "test_images": 3, "anomalies_per_defect": 2}
DEFECTS = ["missing_digit", "wrong_order", "flipped_digit", "zero_digit"]


def make_datamodule(root: Path, **arguments) -> DigitAnatomy:
    datamodule = DigitAnatomy(root=root, **(SMALL | arguments))
    datamodule.prepare_data()
    return datamodule


def folder_of(datamodule: DigitAnatomy) -> Path:
    return datamodule.root / datamodule.category


def read_files(datamodule: DigitAnatomy) -> dict[str, bytes]:
    folder = folder_of(datamodule)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def modification_times(datamodule: DigitAnatomy) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder_of(datamodule).rglob("*")}


def test_splits_have_the_sizes_asked_for(tmp_path):
    datamodule = make_datamodule(tmp_path)
    datamodule.setup()
    assert [len(datamodule.train_data), len(datamodule.val_data), len(datamodule.test_data)] == [5, 2, 3 + 4 * 2]


def test_images_are_rgb_png_files_of_the_size_asked_for(tmp_path):
    folder = folder_of(make_datamodule(tmp_path, image_size=50))
    with Image.open(folder / "train" / "good" / "000.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (50, 50))


def test_test_batch_tells_normal_from_logical(tmp_path):
    datamodule = make_datamodule(tmp_path)
    datamodule.setup()
    batch = next(iter(datamodule.test_dataloader()))
    assert anomaly_kinds(batch.image_path) == ["good"] * 3 + ["logical_anomalies"] * 8


def test_only_anomalous_images_have_a_mask(tmp_path):
    datamodule = make_datamodule(tmp_path)
    datamodule.setup()
    batch = next(iter(datamodule.test_dataloader()))
    assert batch.gt_mask.flatten(1).any(dim=1).tolist() == [False] * 3 + [True] * 8


def test_every_defect_is_written_as_often_as_asked_for(tmp_path):
    folder = folder_of(make_datamodule(tmp_path, anomalies_per_defect=3))
    configs = read_defects_config(folder)
    masks = sorted((folder / "ground_truth" / "logical_anomalies").iterdir())
    names = [channel.config.defect_name for mask in masks for channel in read_defect_channels(mask, configs)]
    assert Counter(names) == dict.fromkeys(DEFECTS, 3)


def test_every_split_draws_from_its_own_pool(tmp_path, monkeypatch):
    shares, drawn = {}, []

    def split_pools(*arguments, **keywords):
        shares.update(original_split(*arguments, **keywords))
        return shares

    def draw_grid(pool, *arguments):
        drawn.append(next(split for split, share in shares.items() if share is pool))
        return original_draw(pool, *arguments)

    original_split, original_draw = digit_anatomy.split_pools, digit_anatomy.draw_grid
    monkeypatch.setattr(digit_anatomy, "split_pools", split_pools)
    monkeypatch.setattr(digit_anatomy, "draw_grid", draw_grid)
    make_datamodule(tmp_path)
    assert Counter(drawn) == {"train": 5, "val": 2, "test": 3 + 4 * 2}


@pytest.mark.parametrize(
    ("mode", "sizes", "anomalous"),
    [
        ("from_dir", (5, 2, 11), {False}),
        ("same_as_test", (5, 11, 11), {False, True}),
        ("from_test", (5, 5, 6), {False, True}),
        ("from_train", (3, 2, 11), {False}),
        ("synthetic", (3, 2, 11), {False, True}),
    ],
)
def test_every_validation_mode_shares_out_the_images(tmp_path, mode, sizes, anomalous):
    datamodule = make_datamodule(tmp_path, val_split_mode=mode)
    datamodule.setup()
    assert (len(datamodule.train_data), len(datamodule.val_data), len(datamodule.test_data)) == sizes
    batch = next(iter(datamodule.val_dataloader()))
    assert batch.image.shape == (sizes[1], 3, 48, 48)
    assert set(batch.gt_label.bool().tolist()) == anomalous


def test_same_seed_gives_the_same_bytes(tmp_path):
    first, second = (make_datamodule(tmp_path / name, seed=3) for name in ("one", "two"))
    assert read_files(first) == read_files(second)


def test_other_seed_gives_other_images(tmp_path):
    first, second = (read_files(make_datamodule(tmp_path, seed=seed)) for seed in (3, 4))
    images = [name for name in first if name.endswith("good/000.png") or name.startswith("test/logical")]
    assert not any(first[name] == second[name] for name in images)


def test_more_images_keep_the_first_ones(tmp_path):
    few, many = (read_files(make_datamodule(tmp_path, train_images=count)) for count in (5, 7))
    assert all(few[f"train/good/00{index}.png"] == many[f"train/good/00{index}.png"] for index in range(5))


def test_all_images_of_a_split_differ(tmp_path):
    files = read_files(make_datamodule(tmp_path))
    images = [content for name, content in files.items() if "ground_truth" not in name and name.endswith(".png")]
    assert len(set(images)) == len(images)


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"image_size": 49}, *({name: SMALL[name] + 1} for name in list(SMALL)[1:])],
    ids=lambda change: next(iter(change)),
)
def test_argument_that_shapes_the_images_gives_another_folder(tmp_path, change):
    assert DigitAnatomy(root=tmp_path, **SMALL).category != DigitAnatomy(root=tmp_path, **(SMALL | change)).category


def test_folder_name_is_that_of_earlier_versions(tmp_path):
    assert DigitAnatomy(root=tmp_path, seed=3, **SMALL).category == "sklearn_seed3_3764cf48"


def test_argument_that_shapes_no_image_keeps_the_folder(tmp_path):
    other = DigitAnatomy(root=tmp_path, train_batch_size=3, val_split_mode="from_test", **SMALL)
    assert other.category == DigitAnatomy(root=tmp_path, **SMALL).category


def test_written_data_are_used_again(tmp_path):
    before = modification_times(make_datamodule(tmp_path))
    assert modification_times(make_datamodule(tmp_path)) == before


def watch_drawing(monkeypatch, watch) -> None:
    """Call ``watch`` with the number of images drawn so far before each is drawn."""
    original, drawn = digit_anatomy.draw_grid, []

    def draw_grid(*arguments):
        watch(len(drawn))
        drawn.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(digit_anatomy, "draw_grid", draw_grid)


def test_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(drawn):
        if drawn == 7:
            raise KeyboardInterrupt

    watch_drawing(monkeypatch, interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_datamodule(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_folder_has_its_name_only_when_all_is_written(tmp_path, monkeypatch):
    folder, seen = folder_of(DigitAnatomy(root=tmp_path, **SMALL)), []
    watch_drawing(monkeypatch, lambda drawn: seen.append(folder.exists()))
    make_datamodule(tmp_path)
    assert seen == [False] * (5 + 2 + 3 + 4 * 2)


@pytest.mark.parametrize(
    "lost", ["digit_anatomy.json", "train/good/003.png", "ground_truth/logical_anomalies/001/000.png"]
)
def test_incomplete_folder_is_written_again(tmp_path, lost):
    datamodule = make_datamodule(tmp_path)
    before = read_files(datamodule)
    (folder_of(datamodule) / lost).unlink()
    datamodule.prepare_data()
    assert read_files(datamodule) == before


def test_two_that_write_at_once_do_not_disturb_each_other(tmp_path, monkeypatch):
    expected = read_files(make_datamodule(tmp_path / "alone"))
    original, barrier, errors = DigitAnatomy._write_files, threading.Barrier(2), []

    def write_files(*arguments):
        barrier.wait(timeout=20)  # both have found nothing yet
        original(*arguments)
        barrier.wait(timeout=20)  # both are about to move their copy into place

    def prepare():
        try:
            make_datamodule(tmp_path / "both")
        except Exception as error:
            errors.append(error)

    monkeypatch.setattr(DigitAnatomy, "_write_files", write_files)
    threads = [threading.Thread(target=prepare) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [path.name for path in (tmp_path / "both").iterdir()] == [DigitAnatomy(root=tmp_path, **SMALL).category]
    assert read_files(DigitAnatomy(root=tmp_path / "both", **SMALL)) == expected


@pytest.mark.parametrize(
    "names", [("images-idx3-ubyte", "labels-idx1-ubyte"), ("a-images.idx3-ubyte.gz", "a-labels.idx1-ubyte.gz")]
)
def test_grids_are_drawn_from_the_digits_of_idx_files(tmp_path, write_idx, names, monkeypatch):
    original, pools = digit_anatomy.draw_grid, []
    monkeypatch.setattr(digit_anatomy, "draw_grid", lambda pool, *others: pools.append(pool) or original(pool, *others))
    make_datamodule(tmp_path / "out", source=write_idx(*names, per_digit=6, seed=0))
    written = np.random.default_rng(0).integers(1, 256, size=(10, 6, 9, 7)).astype(np.uint8)  # see write_idx
    for digit in range(10):
        drawn = {np.asarray(glyph).tobytes() for pool in pools for glyph in pool[digit]}
        assert drawn == {glyph.tobytes() for glyph in written[digit]}


def test_other_digits_give_another_folder(tmp_path, write_idx):
    first, second = (DigitAnatomy(root=tmp_path, source=write_idx(seed=seed)).category for seed in (1, 2))
    assert first != second


def test_broken_source_leaves_nothing(tmp_path, write_idx):
    folder = write_idx()
    (folder / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03")
    with pytest.raises(ValueError, match="train-images-idx3-ubyte is truncated"):
        make_datamodule(tmp_path / "out", source=folder)
    assert not (tmp_path / "out").exists()


def test_unknown_source_is_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match="source must be 'sklearn' or a folder of MNIST IDX files, got 'mnist'"):
        DigitAnatomy(root=tmp_path, source="mnist")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
        ({"seed": None}, "seed must be an integer of at least 0, got None"),
        ({"image_size": 47}, "image_size must be an integer of at least 48, got 47"),
        ({"train_images": 0}, "train_images must be an integer of at least 1, got 0"),
        ({"val_images": 2.5}, "val_images must be an integer of at least 1, got 2.5"),
        ({"test_images": True}, "test_images must be an integer of at least 1, got True"),
        ({"anomalies_per_defect": 0}, "anomalies_per_defect must be an integer of at least 1, got 0"),
    ],
)
def test_number_out_of_range_is_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        DigitAnatomy(root=tmp_path, **arguments)


def test_default_root_is_in_anomalibs_folder_for_data_sets():
    assert DigitAnatomy().root == get_datasets_dir() / "DigitAnatomy"


def test_arguments_parse_from_the_command_line(tmp_path):
    parser = ArgumentParser()
    parser.add_subclass_arguments(AnomalibDataModule, "data")
    arguments = ["--data=DigitAnatomy", f"--data.root={tmp_path}", "--data.source=sklearn", "--data.image_size=64"]
    datamodule = parser.instantiate_classes(parser.parse_args([*arguments, "--data.seed=5"])).data
    assert datamodule.category == DigitAnatomy(image_size=64, seed=5).category


def test_setup_before_prepare_says_what_to_call(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"call prepare_data\(\) first"):
        DigitAnatomy(root=tmp_path).setup()

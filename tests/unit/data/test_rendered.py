# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What the data modules have in common that render their images."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

import pytest

from anomalib_logic.data import DigitAnatomy, LocoScenes, _rendered

SMALL = {"image_size": 64, "train_images": 1, "val_images": 1, "test_images": 1, "anomalies_per_defect": 1}

both = pytest.mark.parametrize("data_module", [DigitAnatomy, LocoScenes])


@both
def test_file_in_the_roots_place_is_one_sentence_with_the_remedy(data_module, tmp_path):
    root = tmp_path / "taken"
    root.write_text("a file")
    datamodule = data_module(root=root, **SMALL)
    with pytest.raises(OSError, match=r"folder .*taken.* cannot be written \(.+\); choose another root") as error:
        datamodule.prepare_data()
    assert "\n" not in str(error.value)


@both
def test_file_in_the_folders_place_is_refused_and_kept(data_module, tmp_path):
    datamodule = data_module(root=tmp_path, **SMALL)
    path = tmp_path / datamodule.category
    path.write_text("mine")
    with pytest.raises(NotADirectoryError, match=rf"{datamodule.category} cannot be written \(a file has its name\)"):
        datamodule.prepare_data()
    assert path.read_text() == "mine"


@both
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_failure_while_writing_names_folder_and_cause_and_leaves_nothing(data_module, code, tmp_path, monkeypatch):
    error = OSError(code, "the cause")

    def fail(*_):
        raise error

    monkeypatch.setattr(_rendered, "_write_picture", fail)
    datamodule = data_module(root=tmp_path, **SMALL)
    with pytest.raises(type(error), match=rf"{datamodule.category} cannot be written \(the cause\)"):
        datamodule.prepare_data()
    assert list(tmp_path.iterdir()) == []


@both
def test_log_names_the_folder_when_all_is_written(data_module, tmp_path, caplog):
    datamodule = data_module(root=tmp_path, **SMALL)
    with caplog.at_level(logging.INFO, logger="anomalib_logic"):
        datamodule.prepare_data()
    count = sum(1 for path in Path(tmp_path).rglob("*.png") if "ground_truth" not in path.parts)
    assert f"wrote {count} images to {tmp_path / datamodule.category}" in caplog.messages

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Settings of the trainer, of the data module and of the pre-processor that a model cannot take."""

import re

import pytest
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import ColorJitter, Resize

from anomalib_logic import Glcf, Lgfdr, SamLad

from .conftest import SMALL
from .sam_lad.conftest import SMALL as SMALL_SAM_LAD
from .test_seeds import LGFDR


def fit(model, squares, tmp_path, data=None, **arguments):
    data = Folder("squares", "good", squares, "bad", num_workers=0, val_split_mode="same_as_test", **(data or {}))
    options = {"accelerator": "cpu", "enable_progress_bar": False, "max_epochs": 1, **arguments}
    Engine(default_root_dir=tmp_path, **options).fit(model, datamodule=data)


def named(caplog):
    """Settings that a warning begins with."""
    return re.findall(r"^([a-z_]+): ", "\n".join(caplog.messages), re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, []),
        ({"data": {"train_augmentations": ColorJitter(0.5)}}, ["train_augmentations"]),
        ({"data": {"augmentations": ColorJitter(0.5)}}, []),  # of all images, so of the bank's, too
        ({"limit_train_batches": 1, "data": {"train_batch_size": 2}}, ["limit_train_batches"]),
        ({"overfit_batches": 1, "data": {"train_batch_size": 2}}, ["overfit_batches"]),
        ({"max_steps": 1}, ["max_steps"]),
        ({"accumulate_grad_batches": 2, "gradient_clip_val": 1.0}, ["accumulate_grad_batches", "gradient_clip_val"]),
    ],
    ids=str,
)
def test_setting_that_sam_lads_bank_does_not_take_is_named_once(arguments, expected, squares, tmp_path, caplog):
    fit(SamLad(**SMALL_SAM_LAD), squares, tmp_path, **arguments)
    assert named(caplog) == expected


def test_setting_that_makes_thresholds_those_of_training_images_is_named(squares, tmp_path, caplog):
    fit(Lgfdr(**LGFDR), squares, tmp_path, overfit_batches=1)
    assert named(caplog) == ["overfit_batches"]
    caplog.clear()
    fit(Lgfdr(**LGFDR), squares, tmp_path, limit_train_batches=1, data={"train_augmentations": ColorJitter(0.5)})
    assert named(caplog) == []


@pytest.mark.parametrize("make", [lambda **o: SamLad(**SMALL_SAM_LAD, **o), lambda **o: Glcf(**SMALL, **o)])
@pytest.mark.parametrize("resize", [Resize(64, antialias=True), Resize(64, max_size=80, antialias=True)], ids=str)
def test_resize_that_keeps_the_aspect_is_one_sentence_where_a_model_has_one_size(make, resize, squares, tmp_path):
    with pytest.raises(ValueError, match=r"takes images of \d+ x \d+ pixels, .*for example Resize\(\(\d+, \d+\)\)"):
        fit(make(pre_processor=PreProcessor(resize)), squares, tmp_path)


def test_resize_that_keeps_the_aspect_works_where_a_model_takes_any_size(squares, tmp_path):
    fit(Lgfdr(**LGFDR, pre_processor=PreProcessor(Resize(64, antialias=True))), squares, tmp_path)

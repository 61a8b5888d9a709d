# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import anomalib.data
import pytest
from anomalib.data import get_datamodule
from anomalib.models import get_model, list_models

import anomalib_logic
from anomalib_logic.registration import register

ARGUMENTS = {"backbone": "mobilenetv2_035", "pre_trained": False, "depth": 1, "width": 48}


def test_model_is_found_by_its_short_name():
    assert type(get_model("glcf", **ARGUMENTS)) is anomalib_logic.Glcf


def test_model_is_found_by_its_class_path():
    model = get_model({"class_path": "anomalib_logic.Glcf", "init_args": ARGUMENTS})
    assert type(model) is anomalib_logic.Glcf
    assert model.hparams["backbone"] == "mobilenetv2_035"


def test_model_is_listed():
    assert "glcf" in list_models()


@pytest.mark.parametrize("name", ["MVTecLoco", "DigitAnatomy"])
def test_data_module_is_found_by_its_class_path(name, tmp_path):
    config = {"class_path": f"anomalib_logic.{name}", "init_args": {"root": str(tmp_path)}}
    assert type(get_datamodule(config)) is getattr(anomalib_logic, name)


def test_name_that_anomalib_has_is_not_overwritten():
    taken = type("MVTecAD", (anomalib_logic.MVTecLoco,), {})
    with pytest.raises(AttributeError, match=r"anomalib\.data\.MVTecAD is taken"):
        register((taken,))
    assert anomalib.data.MVTecAD is not taken

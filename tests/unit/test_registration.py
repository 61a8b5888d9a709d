# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import subprocess
import sys

import anomalib.data
import pytest
from anomalib.data import get_datamodule
from anomalib.models import get_model, list_models

import anomalib_logic.data
import anomalib_logic.metrics
import anomalib_logic.models
from anomalib_logic import registration

BACKBONE = {"backbone": "mobilenetv2_035", "pre_trained": False}
MODELS = {
    "Glcf": {**BACKBONE, "depth": 1, "width": 48},
    "Lgfdr": {**BACKBONE, "width": 32},
    "SamLad": {**BACKBONE, "objects": "cluster"},
}


def test_these_are_all_models_of_the_package():
    assert set(MODELS) == set(anomalib_logic.models.__all__)


@pytest.mark.parametrize("name", MODELS)
def test_model_is_found_by_its_short_name_and_listed(name):
    short = {"SamLad": "sam_lad"}.get(name, name.lower())
    assert type(get_model(short, **MODELS[name])) is getattr(anomalib_logic, name)
    assert short in list_models()


@pytest.mark.parametrize("name", MODELS)
def test_model_is_found_by_its_class_path(name):
    model = get_model({"class_path": f"anomalib_logic.{name}", "init_args": MODELS[name]})
    assert type(model) is getattr(anomalib_logic, name)
    assert model.hparams["backbone"] == "mobilenetv2_035"


@pytest.mark.parametrize("name", ["MVTecLoco", "DigitAnatomy", "LocoScenes"])
def test_data_module_is_found_by_its_class_path(name, tmp_path):
    (tmp_path / "breakfast_box").mkdir()
    config = {"class_path": f"anomalib_logic.{name}", "init_args": {"root": str(tmp_path)}}
    assert type(get_datamodule(config)) is getattr(anomalib_logic, name)


def test_name_that_anomalib_has_is_a_warning_and_stays_anomalibs(monkeypatch):
    theirs = type("MVTecLoco", (), {})
    monkeypatch.setattr(anomalib.data, "MVTecLoco", theirs)
    with pytest.warns(UserWarning, match=r"anomalib\.data\.MVTecLoco is taken"):
        registration.register()
    assert anomalib.data.MVTecLoco is theirs


def test_import_alone_loads_neither_torch_nor_the_rest_of_anomalib():
    heavy = "[m for m in ('torch', 'lightning', 'anomalib.data', 'anomalib.models') if m in sys.modules]"
    program = f"import sys, anomalib, anomalib_logic; print({heavy}, sorted(anomalib_logic.__all__))"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output.strip() == f"[] {sorted(anomalib_logic.__all__)}"


@pytest.mark.parametrize("package", [anomalib_logic, anomalib_logic.data, anomalib_logic.metrics])
def test_every_public_name_is_there(package):
    assert set(package.__all__) <= set(dir(package))
    assert all(hasattr(package, name) for name in package.__all__)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'anomalib_logic' has no attribute 'Missing'"):
        _ = anomalib_logic.Missing

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The shipped configurations of data sets in folders of ``configs/``; those beside them are trained in other tests."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from anomalib.data import AnomalibDataModule
from anomalib.models import AnomalibModule
from jsonargparse import ArgumentParser
from lightning import Trainer

from anomalib_logic.benchmark.models import GLCF, MODELS, SAM_LAD, Backbone, recipe_of
from anomalib_logic.benchmark.suites import MVTEC_TEXTURES

CONFIGS = Path(__file__).parents[3] / "configs"
ROUND = str.maketrans("[]", "()")
FOLDERS = ("autovi", "digit_anatomy", "mvtec_ad", "recommended", "retinal_oct", "visa")


@pytest.fixture(scope="module")
def parser() -> ArgumentParser:
    result = ArgumentParser(exit_on_error=False)
    result.add_argument("--seed_everything", type=int)
    result.add_subclass_arguments(AnomalibModule, "model")
    result.add_subclass_arguments(AnomalibDataModule, "data")
    result.add_class_arguments(Trainer, "trainer")
    return result


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*/*.yaml")), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_configuration_has_arguments_that_exist_and_fit(config, parser):
    parsed = parser.parse_object(yaml.safe_load(config.read_text()))
    assert parsed.model.class_path.rpartition(".")[2] in ("Glcf", "SamLad", "Lgfdr")
    assert f"--config {config.relative_to(CONFIGS.parent)}" in config.read_text()


def test_every_model_has_a_configuration_for_every_data_set():
    names = {f"{path.parent.name}/{path.stem}" for path in CONFIGS.glob("*/*.yaml")}
    assert names == {f"{folder}/{m}" for folder in FOLDERS for m in ("glcf", "sam_lad", "lgfdr")} | {
        "mvtec_ad/glcf_textures"
    }


def test_textures_are_scored_by_the_local_branch():
    config = yaml.safe_load((CONFIGS / "mvtec_ad/glcf_textures.yaml").read_text())
    assert config["model"]["init_args"]["branch"] == "local"
    assert config["data"]["init_args"]["category"] in MVTEC_TEXTURES


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize(("name", "settings"), [("glcf", GLCF), ("sam_lad", SAM_LAD), ("lgfdr", {})])
def test_what_is_recommended_is_what_is_measured(name, settings):
    config = yaml.safe_load((CONFIGS / f"recommended/{name}.yaml").read_text())
    measured = {**settings, **Backbone("tf_efficientnet_lite0").ours(), "image_size": 256}
    del measured["pre_trained"]  # a file of weights counts
    assert config["model"]["init_args"] == {key: plain(value) for key, value in measured.items()}
    assert config.get("trainer", {}) == MODELS[name].trainer
    assert config["data"]["init_args"]["train_batch_size"] == MODELS[name].batch
    shipped = recipe_of(str(CONFIGS / f"recommended/{name}.yaml")).train_augmentations(256)
    ours = MODELS[name].train_augmentations(256)
    assert repr(shipped).translate(ROUND) == repr(ours).translate(ROUND)

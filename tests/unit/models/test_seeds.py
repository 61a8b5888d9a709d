# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""One seed decides initial weights, noise and the order of images."""

import pytest
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from lightning import seed_everything
from torchvision.transforms.v2 import ColorJitter

from anomalib_logic import Glcf, Lgfdr, SamLad
from anomalib_logic._command_line import CommandLine
from anomalib_logic.models.components.seeds import GLOBAL_SEED

from .conftest import SMALL
from .sam_lad.conftest import SMALL as SMALL_SAM_LAD

LGFDR = {"backbone": "test_efficientnet", "pre_trained": False, "image_size": (64, 96), "width": 16}
MODELS = {
    "glcf": lambda **options: Glcf(**SMALL, feature_noise=0.1, **options),
    "lgfdr": lambda **options: Lgfdr(**LGFDR, **options),
    "sam_lad": lambda **options: SamLad(**SMALL_SAM_LAD, **options),
}
TRAINED = ("glcf", "lgfdr")


def trained(name, squares, tmp_path, workers=0, **options):
    """Everything that a training leaves in a model; the random numbers before it are always others."""
    torch.seed()
    data = Folder(
        "squares",
        "good",
        squares,
        "bad",
        train_batch_size=2,
        num_workers=workers,
        val_split_mode="same_as_test",
        seed=0,
        train_augmentations=ColorJitter(0.2) if name in TRAINED else None,
    )
    model = MODELS[name](**options)
    torch.seed()
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False, max_epochs=2)
    engine.fit(model, datamodule=data)
    return model.state_dict()


def equal(first, second):
    return all(torch.equal(torch.nan_to_num(value), torch.nan_to_num(second[name])) for name, value in first.items())


@pytest.mark.parametrize(("name", "workers"), [("glcf", 0), ("lgfdr", 2)])  # test_repeatability.py has SamLad
def test_two_trainings_with_one_seed_are_equal_bit_for_bit(name, workers, squares, tmp_path):
    first, second = (trained(name, squares, tmp_path, workers, seed=5) for _ in range(2))
    assert equal(first, second)


@pytest.mark.parametrize("name", TRAINED)
def test_another_seed_gives_other_weights(name, squares, tmp_path):
    assert not equal(trained(name, squares, tmp_path, seed=5), trained(name, squares, tmp_path, seed=6))


@pytest.mark.parametrize("name", MODELS)
def test_model_without_a_seed_takes_that_of_seed_everything_or_zero(name):
    assert MODELS[name]().seed == 0
    seed_everything(11, verbose=False)
    assert MODELS[name]().seed == 11
    assert MODELS[name](seed=3).seed == 3


@pytest.mark.parametrize("name", MODELS)
def test_making_a_model_leaves_other_random_numbers_alone(name):
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    MODELS[name](seed=3)
    assert torch.equal(torch.rand(1), expected)


def test_command_line_seeds_everything_before_a_model_is_made(squares, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = ["--data=Folder", "--data.name=squares", f"--data.root={squares}", "--data.normal_dir=good"]
    fast = ["--data.abnormal_dir=bad", "--data.num_workers=0", "--trainer.max_epochs=1", "--trainer.accelerator=cpu"]
    model = ["--model=Lgfdr", *(f"--model.{key}={value}" for key, value in LGFDR.items() if key != "image_size")]
    states = []
    for seed in (["--seed_everything=7"], ["--seed_everything=7"], ["--seed_everything=8"], []):
        torch.seed()
        monkeypatch.delenv(GLOBAL_SEED, raising=False)
        line = CommandLine(["fit", *model, "--model.image_size=64", *data, "--data.seed=0", *fast, *seed])
        states.append(line.model.state_dict())
        assert line.model.hparams["seed"] == (int(seed[0][-1]) if seed else 0)
    assert equal(states[0], states[1])
    assert not equal(states[0], states[2])
    assert not equal(states[0], states[3])

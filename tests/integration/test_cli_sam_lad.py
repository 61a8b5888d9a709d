# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The commands that users type, for SAM-LAD."""

import re
from pathlib import Path

import pytest
import torch
from anomalib.cli.cli import AnomalibCLI

from anomalib_logic import SamLad
from anomalib_logic.models.sam_lad import lightning_model

from .conftest import CONFIGS, FAST, small_data

MODEL = [
    "--model=anomalib_logic.SamLad",
    "--model.backbone=test_efficientnet",
    "--model.pre_trained=false",
    "--model.objects=cluster",
    "--model.image_size=[64,96]",
    "--model.bank.scene_size=16",
]


def data(loco: Path) -> list[str]:
    return ["--data=MVTecLoco", f"--data.root={loco}", "--data.category=squares", *FAST]


def test_train_test_and_load_give_the_same_figures(loco, workspace, capsys):
    cli = AnomalibCLI(["train", *MODEL, *data(loco)])
    trained = float(re.search(r"image_AUROC\W+([\d.]+)", capsys.readouterr().out)[1])
    assert len(cli.model.model.bank) == 8
    (checkpoint,) = Path("results/SamLad/MVTecLoco/squares").glob("v0/weights/lightning/model.ckpt")
    tested = AnomalibCLI(["test", *MODEL, *data(loco), f"--ckpt_path={checkpoint}"])
    assert tested.engine.trainer.callback_metrics["image_AUROC"].item() == pytest.approx(trained, abs=1e-6)
    loaded = SamLad.load_from_checkpoint(checkpoint).eval()
    images = torch.rand(2, 3, 80, 100)
    assert torch.equal(loaded(images).pred_score, tested.model.eval()(images).pred_score)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(path, id=path.stem, marks=[] if path.stem == "sam_lad_fast" else pytest.mark.slow)
        for path in sorted(CONFIGS.glob("sam_lad*.yaml"))
    ],
)
def test_shipped_configuration_trains(config, loco, workspace, monkeypatch):
    monkeypatch.setattr(lightning_model, "CHANGED", 2)
    small = [*MODEL[2:], "--model.upsample=1", "--model.upsampler_weights=null", *FAST, *small_data(config, loco)]
    if "patch14" in config.read_text():
        small.append("--model.image_size=[70,98]")
    cli = AnomalibCLI(["train", f"--config={config}", *small])
    assert type(cli.model) is SamLad
    assert len(cli.model.model.bank) > 0

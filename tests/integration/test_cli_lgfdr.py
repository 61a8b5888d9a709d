# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The commands that users type, for LGFDR, and groups of options on the command line."""

from pathlib import Path

import pytest
import torch
from anomalib.cli.cli import AnomalibCLI

from anomalib_logic import Lgfdr
from anomalib_logic.export import open_exported

from .conftest import CONFIGS, FAST, small_data

SMALL = ["--model.backbone=test_efficientnet", "--model.pre_trained=false", "--model.image_size=[64,96]"]
NARROW = ["--model.networks.width=32", "--model.networks.bottleneck=8"]
NARROW += ["--model.networks.local_depth=1", "--model.networks.global_depth=1"]
MODEL = ["--model=anomalib_logic.Lgfdr", *SMALL, *NARROW]


def data(loco: Path) -> list[str]:
    return ["--data=MVTecLoco", f"--data.root={loco}", "--data.category=squares", *FAST]


def test_train_test_and_export_give_the_same_figures(loco, workspace):
    cli = AnomalibCLI(["train", *MODEL, *data(loco), "--trainer.max_epochs=2"])
    trained = dict(cli.engine.trainer.callback_metrics)
    assert {"pixel_AUROC", "pixel_AUPR", "image_AUROC_structural"} <= set(trained)
    (checkpoint,) = Path("results/Lgfdr/MVTecLoco/squares").glob("v0/weights/lightning/model.ckpt")
    tested = AnomalibCLI(["test", *MODEL, *data(loco), f"--ckpt_path={checkpoint}"])
    for name in ("image_AUROC", "pixel_AUPR"):
        assert tested.engine.trainer.callback_metrics[name].item() == pytest.approx(trained[name].item(), abs=1e-6)
    export = ["export", *MODEL, f"--ckpt_path={checkpoint}", "--export_type=openvino", "--export_root=exported"]
    AnomalibCLI(export)
    image = next((loco / "squares/test/good").iterdir())
    runner = open_exported(Path("exported/weights/openvino/model.xml"))
    loaded = Lgfdr.load_from_checkpoint(checkpoint)
    expected = tested.engine.predict(loaded, data_path=image)[0].pred_score.item()
    assert runner.predict(image)["pred_score"].item() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "noise", "towers"),
    [
        (["--model.training.noise=0.25", "--model.networks.towers=local"], 0.25, "local"),
        (["--model.noise=0.25", "--model.towers=local"], 0.25, "local"),
        (["--model.training", '{"noise": 0.5}', "--model.noise=0.25"], 0.25, "both"),
    ],
    ids=["grouped", "by themselves", "both"],
)
def test_options_are_given_in_groups_or_by_themselves(options, noise, towers, loco, workspace):
    cli = AnomalibCLI(["train", *MODEL, *options, *data(loco)], run=False)
    assert cli.model.hparams["noise"] == noise
    assert cli.model.hparams["learning_rate"] == 5e-3
    assert cli.model.hparams["towers"] == towers
    assert cli.model.hparams["width"] == 32


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("lgfdr*.yaml")), ids=lambda path: path.stem)
def test_shipped_configuration_trains(config, loco, workspace):
    small = [*SMALL, *NARROW, "--model.backbone_weights=null", *FAST, *small_data(config, loco)]
    short = ["--trainer.max_epochs=1", "--trainer.check_val_every_n_epoch=1"]
    cli = AnomalibCLI(["train", f"--config={config}", *small, *short])
    assert type(cli.model) is Lgfdr
    assert torch.isfinite(cli.model.post_processor.image_threshold)

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The commands that users type.

Importing Anomalib takes ten seconds, so what needs a process of its own has one (fixture ``trained``, prediction,
benchmark, the options' order) and the other commands go through Anomalib's own parser in this process.
"""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from anomalib.cli.cli import AnomalibCLI
from anomalib.data import PredictDataset
from anomalib.engine import Engine
from PIL import Image

from anomalib_logic import Glcf
from anomalib_logic._command_line import CommandLine
from anomalib_logic.metrics import loco as loco_command

from .conftest import CONFIGS, FAST, SMALL_MODEL, anomalib, small_data

MODEL = ["--model", "anomalib_logic.Glcf", *SMALL_MODEL]


def data(loco: Path) -> list[str]:
    return ["--data", "anomalib_logic.MVTecLoco", f"--data.root={loco}", "--data.category=squares"]


def test_train_prints_metrics_and_writes_pictures_and_checkpoint(trained, checkpoint):
    assert "image_AUROC" in (trained / "train.txt").read_text()
    assert checkpoint.is_file()
    pictures = {p.parent.name for p in trained.glob("results/Glcf/MVTecLoco/squares/v0/images/*/*.png")}
    assert pictures == {"good", "logical_anomalies", "structural_anomalies"}


def test_train_prints_the_loco_metrics(trained):
    output = (trained / "train.txt").read_text()
    for kind in ("logical", "structural", "mean"):
        assert re.search(rf"image_AUROC_{kind}\W+[\d.]+", output)
        assert re.search(rf"pixel_AUsPRO_5_{kind}\W+[\d.]+", output)


def test_written_maps_give_the_printed_figures_with_the_command(loco, trained, checkpoint, workspace):
    callback = ["--trainer.callbacks=anomalib_logic.AnomalyMapWriter", "--trainer.callbacks.output_dir=maps"]
    AnomalibCLI(["test", *MODEL, *data(loco), f"--ckpt_path={checkpoint}", *FAST, *callback])
    arguments = [f"--dataset={loco}", "--object=squares", "--anomaly-maps=maps", "--output=metrics.json"]
    assert loco_command.main(arguments) == 0
    metrics = json.loads(Path("metrics.json").read_text())["localization"]["auc_spro"]
    for kind in ("logical", "structural", "mean"):
        printed = re.search(rf"pixel_AUsPRO_5_{kind}\W+([\d.]+)", (trained / "train.txt").read_text())
        computed = metrics[kind if kind == "mean" else f"{kind}_anomalies"]["0.05"]
        assert computed == pytest.approx(float(printed.group(1)), abs=1e-5)
        assert 0.1 < computed < 1


def test_evaluator_and_its_limits_are_options(loco, checkpoint, workspace):
    evaluator = ["--model.evaluator=anomalib_logic.LocoEvaluator", "--model.evaluator.limits=[0.3]"]
    cli = AnomalibCLI(["test", *MODEL, *evaluator, *data(loco), f"--ckpt_path={checkpoint}", *FAST])
    assert "pixel_AUsPRO_30_mean" in cli.engine.trainer.callback_metrics


@pytest.mark.slow
def test_train_takes_our_data_modules_full_name_before_the_model(loco, tmp_path):
    anomalib("train", *data(loco), *MODEL, *FAST, "--trainer.fast_dev_run=true", cwd=tmp_path)


def test_train_takes_our_data_modules_full_name_after_the_model(loco, workspace):
    cli = AnomalibCLI(["train", *MODEL, *data(loco), *FAST, "--trainer.fast_dev_run=true"])
    assert type(cli.datamodule).__name__ == "MVTecLoco"


def test_unknown_choice_is_refused_with_the_list_and_without_a_traceback(loco, workspace, capsys):
    with pytest.raises(SystemExit):
        AnomalibCLI(["train", *MODEL, "--model.structure=pps", *data(loco), *FAST])
    message = capsys.readouterr().err
    assert "'pss', 'pgs', 'ps', 'none'" in message
    assert "pps" in message
    assert "Traceback" not in message


@pytest.mark.slow
def test_program_takes_short_names_in_any_order(loco, tmp_path):
    arguments = ["--data=MVTecLoco", f"--data.root={loco}", "--data.category=squares", "--model=Glcf", *SMALL_MODEL]
    output = anomalib("train", *arguments, "--print_config", cwd=tmp_path, program="anomalib-logic").stdout
    printed = yaml.safe_load(output)
    assert [printed[key]["class_path"] for key in ("model", "data")] == [
        "anomalib_logic.Glcf",
        "anomalib_logic.MVTecLoco",
    ]


@pytest.mark.slow
def test_predict_in_a_new_process_gives_the_scores_of_this_one(loco, checkpoint, tmp_path):
    script = tmp_path / "predict.py"
    images = loco / "squares/test/good"
    script.write_text(
        "import json, sys\n"
        "from anomalib.cli.cli import AnomalibCLI\n"
        "cli = AnomalibCLI(sys.argv[1:], run=False)\n"
        "batches = cli.engine.predict(**cli._prepare_subcommand_kwargs('predict'))\n"
        "json.dump([b.pred_score.tolist() for b in batches], open('scores.json', 'w'))\n"
    )
    arguments = ["predict", *MODEL, f"--data={images}", f"--ckpt_path={checkpoint}", *FAST[:2]]
    subprocess.run([sys.executable, str(script), *arguments], cwd=tmp_path, check=True, capture_output=True)
    model = Glcf.load_from_checkpoint(checkpoint)
    run = Engine(default_root_dir=tmp_path / "here", accelerator="cpu", enable_progress_bar=False)
    expected = run.predict(model, dataset=PredictDataset(images))
    scores = [score for batch in json.loads((tmp_path / "scores.json").read_text()) for score in batch]
    # Not bit by bit: another number of threads adds up in another order.
    assert scores == pytest.approx([score for batch in expected for score in batch.pred_score.tolist()], abs=1e-5)


def test_predict_writes_a_picture_for_each_image(loco, checkpoint, workspace):
    AnomalibCLI(["predict", *MODEL, f"--data={loco}/squares/test/good", f"--ckpt_path={checkpoint}", *FAST[:2]])
    assert len(list(workspace.glob("results/**/images/**/*.png"))) == 3


@pytest.mark.parametrize("program", [AnomalibCLI, CommandLine])
def test_command_line_keeps_no_predictions(program, loco, checkpoint, workspace):
    images = f"--data={loco}/squares/test/good"
    line = program(["predict", *MODEL, images, f"--ckpt_path={checkpoint}", "--trainer.accelerator=cpu"])
    assert not any(line.engine.trainer.predict_loop.predictions)
    assert len(Engine(accelerator="cpu").predict(line.model, data_path=f"{loco}/squares/test/good")) == 3


def test_test_with_a_checkpoint_repeats_the_figures_of_training(loco, trained, checkpoint, workspace):
    cli = AnomalibCLI(["test", *MODEL, *data(loco), f"--ckpt_path={checkpoint}", *FAST])
    for name in ("image_AUROC", "pixel_AUROC", "pixel_AUsPRO_5_mean"):
        printed = re.search(rf"{name}\W+([\d.]+)", (trained / "train.txt").read_text())
        figure = cli.engine.trainer.callback_metrics[name].item()
        assert figure == pytest.approx(float(printed.group(1)), abs=1e-6)
        assert figure > 0.1


def test_validate_with_a_checkpoint_keeps_its_statistics(loco, checkpoint, workspace):
    cli = AnomalibCLI(["validate", *MODEL, *data(loco), f"--ckpt_path={checkpoint}", *FAST])
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    name = "model.anomaly_map_generator.normalization.mean"
    assert torch.equal(cli.model.state_dict()[name], saved[name])


def test_stopped_run_goes_on_from_its_last_checkpoint_as_if_it_had_not_stopped(loco, workspace):
    def fit(epochs: int, *more: str) -> AnomalibCLI:
        settings = {
            "trainer": {
                "max_epochs": epochs,
                "callbacks": [
                    {
                        "class_path": "anomalib.callbacks.ModelCheckpoint",
                        "init_args": {"dirpath": f"checkpoints_{len(more)}", "save_last": True},
                    }
                ],
            }
        }
        Path("settings.yaml").write_text(yaml.safe_dump(settings))
        return AnomalibCLI(
            ["fit", "--config=settings.yaml", *MODEL, "--model.schedule=constant", *data(loco), *FAST, *more]
        )

    first = fit(1)
    resumed = fit(3, "--ckpt_path=checkpoints_0/last.ckpt")
    assert resumed.engine.trainer.current_epoch == 3
    assert resumed.engine.trainer.global_step == 3 * first.engine.trainer.global_step
    saved = torch.load("checkpoints_1/last.ckpt", weights_only=True)
    steps = {state["step"].item() for state in saved["optimizer_states"][0]["state"].values()}
    assert steps == {3.0 * first.engine.trainer.global_step}


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*glcf*.yaml")), ids=lambda path: path.stem)
def test_shipped_configuration_trains(config, loco, workspace):
    text = yaml.safe_load(config.read_text())
    overrides = [*SMALL_MODEL, *FAST, "--trainer.fast_dev_run=true", "--trainer.precision=32"]
    if "backbone_weights" in text["model"].get("init_args", {}):
        overrides.append("--model.backbone_weights=null")
    cli = AnomalibCLI(["train", f"--config={config}", *overrides, *small_data(config, loco)])
    assert type(cli.model) is Glcf


def test_folder_of_images_is_enough(loco, workspace):
    folder = [
        "--data=Folder",
        "--data.name=squares",
        f"--data.root={loco}/squares",
        "--data.normal_dir=train/good",
        "--data.abnormal_dir=test/logical_anomalies",
    ]
    cli = AnomalibCLI(["train", *MODEL, *folder, *FAST, "--trainer.max_epochs=1"])
    assert math.isfinite(cli.engine.trainer.callback_metrics["image_AUROC"].item())


@pytest.mark.slow
def test_benchmark_takes_our_model_and_data_in_its_configuration(loco, tmp_path):
    small = {k.removeprefix("--model."): yaml.safe_load(v) for k, v in (a.split("=") for a in SMALL_MODEL)}
    configuration = {
        "accelerator": "cpu",
        "benchmark": {
            "seed": 1,
            "model": {"class_path": "anomalib_logic.Glcf", "init_args": {**small, "max_epochs": 1}},
            "data": {
                "class_path": "anomalib_logic.MVTecLoco",
                "init_args": {
                    "root": str(loco),
                    "category": {"grid": ["squares"]},
                    "num_workers": 0,
                },
            },
        },
    }
    (tmp_path / "benchmark.yaml").write_text(yaml.safe_dump(configuration))
    anomalib("benchmark", "--config=benchmark.yaml", cwd=tmp_path, program="anomalib-logic")
    (results,) = tmp_path.glob("runs/benchmark/*/results.csv")
    header, row = results.read_text().splitlines()
    metrics = dict(zip(header.split(","), row.split(","), strict=False))
    assert metrics["model.class_path"] == "anomalib_logic.Glcf"
    assert "image_AUROC" in metrics


def test_pictures_show_image_mask_and_map(trained, loco):
    (file, *_) = sorted(trained.glob("results/**/images/logical_anomalies/*.png"))
    picture = np.asarray(Image.open(file).convert("RGB")).astype(int)
    assert picture.shape == (256, 4 * 256, 3)  # the last shows the predicted mask
    image, mask, heat = (picture[60:, 256 * i : 256 * (i + 1)] for i in range(3))  # below the titles
    with Image.open(loco / f"squares/test/logical_anomalies/{file.name}") as original:
        expected = np.asarray(original.resize((256, 256), Image.Resampling.BILINEAR)).astype(int)[60:]
    assert np.abs(image - expected).mean() < 5
    rows, columns = np.nonzero(mask.mean(axis=2) > 128)
    bounds = (rows.min() + 60, rows.max() + 61, columns.min(), columns.max() + 1)
    assert bounds == pytest.approx((80, 160, 80, 160), abs=2)  # rows 20 to 39 of 64, columns 30 to 59 of 96
    blue = heat[..., 2] - heat[..., 0]  # of low scores
    inside = np.zeros(blue.shape, bool)
    inside[20:100, 80:160] = True
    assert blue[inside].mean() < blue[~inside].mean() - 20, (blue[inside].mean(), blue[~inside].mean())

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL_MODEL = [
    "--model.backbone=test_efficientnet",  # timm's smallest pyramid
    "--model.pre_trained=false",
    "--model.image_size=[64,96]",
    "--model.width=48",
    "--model.depth=1",
    "--model.heads=4",
    "--model.decoder_depths=[1,0,0,0]",
]
FAST = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--data.num_workers=0"]


def anomalib(*arguments: str, cwd: Path, program: str = "anomalib", **environment: str) -> subprocess.CompletedProcess:
    """Run the installed ``anomalib`` or ``anomalib-logic`` command and fail with its output if it fails."""
    return run([str(Path(sys.executable).with_name(program)), *arguments], cwd, **environment)


def run(command: list[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    result = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result


ONE_AFTER_ANOTHER = """
import json, runpy, sys
program, *commands = json.loads(sys.argv[1])
for arguments in commands:
    sys.argv = [program, *arguments]
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as stop:
        if stop.code:
            raise
    for stream in (sys.stdout, sys.stderr):
        print("NEXT COMMAND", file=stream, flush=True)
"""


def one_after_another(*commands: list[str], cwd: Path, **environment: str) -> list[str]:
    """Run the installed ``anomalib`` several times in one process, as importing takes long; returns the outputs."""
    program = str(Path(sys.executable).with_name("anomalib"))
    result = run([sys.executable, "-c", ONE_AFTER_ANOTHER, json.dumps([program, *commands])], cwd, **environment)
    outputs = zip(*(text.split("NEXT COMMAND") for text in (result.stdout, result.stderr)), strict=True)
    return ["".join(both) for both in outputs][: len(commands)]


def write_image(path: Path, generator: np.random.Generator, square: bool = True) -> None:
    image = generator.integers(0, 60, (64, 96, 3), dtype=np.uint8)
    if square:
        image[20:40, 30:60] = 230
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def small_data(config: Path, loco: Path) -> list[str]:
    """Arguments that make the data of a shipped configuration small."""
    if "MVTecLoco" in config.read_text():
        return [f"--data.root={loco}", "--data.category=squares"]
    small = {"train_images": 4, "val_images": 2, "test_images": 2, "anomalies_per_defect": 1}
    if "LocoScenes" in config.read_text():
        small |= {"image_size": 64}
    return ["--data.root=data", *(f"--data.{k}={v}" for k, v in small.items())]


@pytest.fixture(scope="session")
def loco(tmp_path_factory) -> Path:
    """A data set in MVTec LOCO's layout with one category, ``squares``, and a folder of normal and bad images."""
    root = tmp_path_factory.mktemp("datasets")
    generator = np.random.default_rng(0)
    category = root / "squares"
    for folder, number in (("train/good", 8), ("validation/good", 3), ("test/good", 3)):
        for i in range(number):
            write_image(category / folder / f"{i:03}.png", generator)
    mask = np.zeros((64, 96), np.uint8)
    mask[20:40, 30:60] = 255
    for kind in ("logical_anomalies", "structural_anomalies"):
        for i in range(2):
            write_image(category / "test" / kind / f"{i:03}.png", generator, square=False)
            folder = category / "ground_truth" / kind / f"{i:03}"
            folder.mkdir(parents=True)
            Image.fromarray(mask).save(folder / "000.png")
    (category / "defects_config.json").write_text(
        '[{"defect_name": "missing_square", "pixel_value": 255, "saturation_threshold": 1.0,'
        ' "relative_saturation": true}]'
    )
    return root


@pytest.fixture(scope="session")
def commands(loco, tmp_path_factory) -> Path:
    """Working folder of the installed program's ``train`` and, where its extra is installed, ``export``, see below."""
    folder = tmp_path_factory.mktemp("commands")
    data = ["--data=MVTecLoco", f"--data.root={loco}", "--data.category=squares"]
    model = ["--model=anomalib_logic.Glcf", *SMALL_MODEL]
    checkpoint = "results/Glcf/MVTecLoco/squares/v0/weights/lightning/model.ckpt"
    onnx = [f"--ckpt_path={checkpoint}", "--export_root=exports", "--export_type=onnx", "--input_size=[48,80]"]
    # Long enough to find the missing square: figures of 0 would be the same whatever is wrong with them.
    long = ["--model.learning_rate=3e-3", "--model.schedule=constant", "--trainer.max_epochs=20"]
    several = [["train", *model, *data, *FAST, *long, "--trainer.check_val_every_n_epoch=20"]]
    if all(find_spec(name) for name in ("onnxruntime", "openvino")):
        several.append(["export", *model, *onnx])
    # With another number of threads sums have another order, and a training as short as this another end.
    outputs = one_after_another(*several, cwd=folder, OMP_NUM_THREADS="1")
    for arguments, output in zip(several, outputs, strict=True):
        (folder / f"{arguments[0]}.txt").write_text(output)
    shutil.copy(folder / checkpoint, folder / "model.ckpt")  # later runs move `latest`
    return folder


@pytest.fixture(scope="session")
def trained(commands) -> Path:
    """Working folder of ``anomalib train --model=anomalib_logic.Glcf``, with ``model.ckpt`` and ``train.txt``."""
    return commands


@pytest.fixture
def checkpoint(trained) -> Path:
    """The checkpoint of the ``trained`` run."""
    return trained / "model.ckpt"


@pytest.fixture(scope="session")
def exports(commands) -> Path:
    """Folder with what ``anomalib export`` wrote: ONNX for images of 48 x 80, OpenVINO for any."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    from anomalib.cli.cli import AnomalibCLI

    root = commands / "exports"
    model = ["--model=anomalib_logic.Glcf", *SMALL_MODEL, f"--export_root={root}", f"--ckpt_path={commands}/model.ckpt"]
    AnomalibCLI(["export", *model, "--export_type=openvino"])
    return root


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    """Empty working folder for commands run in this process."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)

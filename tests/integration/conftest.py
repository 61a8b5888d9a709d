# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import os
import shutil
import subprocess
import sys
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
    program = Path(sys.executable).with_name(program)
    result = subprocess.run(
        [str(program), *arguments],
        cwd=cwd,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, f"{arguments}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result


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
def trained(loco, tmp_path_factory) -> Path:
    """Working folder of a real ``anomalib train --model anomalib_logic.Glcf --data MVTecLoco``, with ``model.ckpt``."""
    folder = tmp_path_factory.mktemp("trained")
    output = anomalib(
        "train",
        "--model",
        "anomalib_logic.Glcf",
        "--data",
        "MVTecLoco",
        f"--data.root={loco}",
        "--data.category=squares",
        *SMALL_MODEL,
        *FAST,
        "--trainer.max_epochs=2",
        cwd=folder,
    )
    (folder / "output.txt").write_text(output.stdout + output.stderr)
    (checkpoint,) = folder.glob("results/Glcf/MVTecLoco/squares/v0/weights/lightning/model.ckpt")
    shutil.copy(checkpoint, folder / "model.ckpt")  # later runs move `latest`
    return folder


@pytest.fixture
def checkpoint(trained) -> Path:
    """The checkpoint of the ``trained`` run."""
    return trained / "model.ckpt"


@pytest.fixture(scope="session")
def exports(trained, tmp_path_factory) -> Path:
    """Folder with what ``anomalib export`` wrote: ONNX for images of 48 x 80, OpenVINO for any; and ``output.txt``."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    from anomalib.cli.cli import AnomalibCLI

    root = tmp_path_factory.mktemp("exports")
    model = ["--model=anomalib_logic.Glcf", *SMALL_MODEL, f"--export_root={root}", f"--ckpt_path={trained}/model.ckpt"]
    output = anomalib("export", *model, "--export_type=onnx", "--input_size=[48,80]", cwd=root)
    (root / "output.txt").write_text(output.stdout + output.stderr)
    AnomalibCLI(["export", *model, "--export_type=openvino"])
    return root


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    """Empty working folder for commands run in this process."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)

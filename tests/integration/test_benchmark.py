# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The benchmark's command on small stand-ins in the layouts of the data sets."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from anomalib_logic.benchmark.__main__ import main

from .conftest import write_image

SMALL = ["--backbone=mobilenetv2_035", "--weights=none", "--image-size=64"]
ONE = [*SMALL, "--models=padim", "--seeds=0"]


def write_images(folder: Path, number: int, square: bool = True) -> None:
    generator = np.random.default_rng(len(str(folder)))
    for i in range(number):
        write_image(folder / f"{i:03}.png", generator, square)


def write_masks(folder: Path, number: int, suffix: str = "") -> None:
    mask = np.zeros((64, 96), np.uint8)
    mask[20:40, 30:60] = 255
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(number):
        Image.fromarray(mask).save(folder / f"{i:03}{suffix}.png")


def benchmark(suite: str, root: Path, output: Path, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """Run the command in this process; returns its status and all results of the suite."""
    status = main([suite, f"--root={root}", f"--output={output}", *arguments])
    return status, [json.loads(path.read_text()) for path in sorted((output / suite).glob("*.json"))]


def assert_image_figures_are_those_of_the_scores(result: dict[str, Any], mean_over_kinds: bool = False) -> None:
    """Compute each kind's AUROC from the scores that the result lists, and the whole from the kinds or all scores."""
    kinds = {kind: list(scores.values()) for kind, scores in result["scores"].items() if kind != "good"}
    good = list(result["scores"]["good"].values())

    def auroc(scores: list[float]) -> float:
        return roc_auc_score([0] * len(good) + [1] * len(scores), good + scores)

    expected = {f"image_auroc_{kind}": auroc(scores) for kind, scores in kinds.items()}
    whole = np.mean(list(expected.values())) if mean_over_kinds else auroc([s for part in kinds.values() for s in part])
    found = {name: figure for name, figure in result["figures"].items() if name.startswith("image_auroc")}
    assert found == pytest.approx({"image_auroc": whole, **expected}, abs=1e-4)


@pytest.fixture(scope="module")
def official(loco, tmp_path_factory) -> Path:
    """The data set in MVTec LOCO's layout under the name of one of its categories."""
    root = tmp_path_factory.mktemp("official")
    shutil.copytree(loco / "squares", root / "juice_bottle")
    return root


def test_loco_measures_the_protocol_goes_on_and_merges(official, tmp_path, capsys):
    arguments = [*ONE, "--categories=juice_bottle", "--pictures", "--plots"]
    status, (result,) = benchmark("loco", official, tmp_path, *arguments)
    assert status == 0
    kinds = ("", "_logical", "_structural")
    assert {f"{name}{kind}" for name in ("image_auroc", "au_spro") for kind in kinds} <= set(result["figures"])
    assert {"pixel_auroc", "pixel_ap", "pixel_ap_structural"} <= set(result["figures"])
    assert_image_figures_are_those_of_the_scores(result, mean_over_kinds=True)
    assert {kind: len(scores) for kind, scores in result["scores"].items()} == {
        "good": 3,
        "logical": 2,
        "structural": 2,
    }
    assert result["images"] == {"train": 8, "val": 3, "test": 7}
    assert result["costs"]["fit_seconds"] > 0
    assert result["costs"]["memory_megabytes"] > 100
    assert result["environment"]["anomalib"].startswith("2.")
    assert not list(tmp_path.rglob("*.log")) + list(tmp_path.rglob("*.tmp"))
    assert {p.name for p in (tmp_path / "plots/loco").glob("*.png")} == {
        "scores-juice_bottle.png",
        "curves-juice_bottle.png",
        "bars.png",
    }
    assert len(list((tmp_path / "plots/loco").glob("*.jpg"))) == 1
    assert f"{result['figures']['image_auroc']:.3f}" in (tmp_path / "results.md").read_text()

    (file,) = (tmp_path / "loco").glob("*.json")
    written = file.stat().st_mtime_ns
    capsys.readouterr()
    other = ["fastflow", "padim"]  # the first needs another backbone
    status, results = benchmark("loco", official, tmp_path, *arguments, "--models", *other)
    assert status == 1
    assert file.stat().st_mtime_ns == written
    assert "2 jobs, 1 of them done before" in capsys.readouterr().out
    (failed,) = (one for one in results if one["status"] == "failed")
    assert failed["error"].startswith("ValueError: fastflow works with no backbone but resnet18")
    assert "fastflow, 1 job: ValueError" in (tmp_path / "results.md").read_text()
    with (tmp_path / "loco.csv").open() as lines:
        assert sorted(line["status"] for line in csv.DictReader(lines)) == ["done", "failed"]


@pytest.mark.parametrize(
    ("model", "options"),
    [
        pytest.param("glcf", {}, marks=pytest.mark.slow),
        ("lgfdr", {"width": 32}),
        ("sam_lad", {"scene_size": 16, "upsample": 1}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_our_models_are_measured(model, options, official, tmp_path):
    arguments = [*SMALL, "--seeds=0", "--categories=juice_bottle", f"--models={model}", "--epochs=1"]
    status, (result,) = benchmark(
        "loco", official, tmp_path, *arguments, "--limit=4", f"--options={json.dumps(options)}"
    )
    assert (status, result.get("error")) == (0, None)
    assert result["images"] == {"train": 4, "val": 3, "test": 4}
    assert "au_spro_logical" in result["figures"]


def test_a_configuration_file_is_measured(official, tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text(
        "model: {class_path: anomalib_logic.Glcf, init_args: {backbone: mobilenetv2_035, pre_trained: false,"
        " image_size: 64, width: 48, depth: 1, heads: 4}}\ntrainer: {max_epochs: 1}\n"
    )
    arguments = [f"--models={config}", "--seeds=0", "--categories=juice_bottle", "--name=small"]
    status, (result,) = benchmark("loco", official, tmp_path / "out", *arguments)
    assert (status, result.get("error")) == (0, None)
    assert (result["job"]["row"], result["job"]["backbone"]) == ("small", "its own")


def test_mvtec_ad(tmp_path):
    category = tmp_path / "data/screw"
    write_images(category / "train/good", 10)
    write_images(category / "test/good", 3)
    for defect in ("scratch", "thread"):
        write_images(category / "test" / defect, 2, square=False)
        write_masks(category / "ground_truth" / defect, 2, "_mask")
    (category / "license.txt").touch()
    status, (result,) = benchmark("mvtec", tmp_path / "data", tmp_path / "out", *ONE, "--categories=screw")
    assert (status, result.get("error")) == (0, None)
    assert set(result["figures"]) == {
        *("image_auroc", "image_auroc_scratch", "image_auroc_thread", "pixel_auroc", "pixel_ap")
    }
    assert_image_figures_are_those_of_the_scores(result)
    assert result["images"] == {"train": 8, "val": 2, "test": 7}


def test_visa(tmp_path):
    category = tmp_path / "data/visa_pytorch/pcb1"
    write_images(category / "train/good", 10)
    write_images(category / "test/good", 3)
    write_images(category / "test/bad", 3, square=False)
    write_masks(category / "ground_truth/bad", 3)
    status, (result,) = benchmark("visa", tmp_path / "data", tmp_path / "out", *ONE, "--categories=pcb1")
    assert (status, result.get("error")) == (0, None)
    assert {"image_auroc", "pixel_auroc", "pixel_ap"} <= set(result["figures"])


def test_oct_measures_each_disease_against_normal(tmp_path):
    write_images(tmp_path / "data/train/NORMAL", 10)
    write_images(tmp_path / "data/train/DME", 2, square=False)  # the data set has them; nobody learns from them
    write_images(tmp_path / "data/test/NORMAL", 3)
    for disease in ("CNV", "DME", "DRUSEN"):
        write_images(tmp_path / "data/test" / disease, 2, square=False)
    status, (result,) = benchmark("oct", tmp_path / "data", tmp_path / "out", *ONE)
    assert (status, result.get("error")) == (0, None)
    assert set(result["figures"]) == {"image_auroc", *(f"image_auroc_{name}" for name in ("CNV", "DME", "DRUSEN"))}
    assert_image_figures_are_those_of_the_scores(result)
    assert result["images"] == {"train": 8, "val": 2, "test": 9}
    assert {kind: len(scores) for kind, scores in result["scores"].items()}["good"] == 3


def test_autovi(tmp_path):
    category = tmp_path / "data/pipe_clip"
    write_images(category / "train/good", 10)
    write_images(category / "test/good", 3)
    for defect in ("operator", "unclipped"):
        write_images(category / "test" / defect, 2, square=False)
        for i in range(2):
            write_masks(category / "ground_truth" / defect / f"{i:03}", 1)
    (category / "defects_config.json").write_text(
        '[{"defect_name": "unclipped", "pixel_value": 255, "saturation_threshold": 1.0, "relative_saturation": true}]'
    )
    status, (result,) = benchmark("autovi", tmp_path / "data", tmp_path / "out", *ONE)
    assert (status, result.get("error")) == (0, None)
    assert {"image_auroc_operator", "image_auroc_unclipped", "au_spro", "au_spro_unclipped"} <= set(result["figures"])
    assert_image_figures_are_those_of_the_scores(result, mean_over_kinds=True)


def test_folder_of_own_parts_is_split_by_the_seed(tmp_path):
    write_images(tmp_path / "data/parts/good", 12)
    write_images(tmp_path / "data/parts/bad", 2, square=False)
    status, results = benchmark(
        "folder", tmp_path / "data", tmp_path / "out", *SMALL, "--models=padim", "--seeds", "0", "1"
    )
    assert (status, [one.get("error") for one in results]) == (0, [None, None])
    tested = [set(one["scores"]["good"]) for one in results]
    assert tested[0] != tested[1]
    assert set(results[0]["figures"]) == {"image_auroc", "image_auroc_bad"}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
def test_a_killed_command_leaves_no_process_and_goes_on(official, tmp_path):
    arguments = [*SMALL, "--models=padim", "--categories=juice_bottle", "--seeds", "0", "1", "2", "3"]
    command = ["loco", f"--root={official}", f"--output={tmp_path}", *arguments]
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-m", "anomalib_logic.benchmark", *command], env={**os.environ, "MARK": mark}
    )
    while not list((tmp_path / "loco").glob("*.json")):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    limit = time.monotonic() + 30
    while marked(mark) and time.monotonic() < limit:
        time.sleep(0.1)
    assert marked(mark) == []
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "loco").glob("*.json")}
    assert 1 <= len(before) < 4
    status, results = benchmark("loco", official, tmp_path, *arguments)
    assert status == 0
    assert [one["job"]["seed"] for one in results] == [0, 1, 2, 3]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not list(tmp_path.rglob("*.tmp"))


def marked(mark: str) -> list[str]:
    """Processes whose environment has a mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:  # ended, or another user's
            continue
    return found

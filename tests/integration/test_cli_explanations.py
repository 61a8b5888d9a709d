# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Explanations by options of the command line, and what SAM-LAD says of images with known faults."""

import json
from pathlib import Path

import pytest
import torch
from anomalib.cli.cli import AnomalibCLI
from PIL import Image

from anomalib_logic import ExplanationWriter, HtmlReport, SamLad

from .conftest import FAST, SMALL_MODEL

MODEL = ["--model", "anomalib_logic.Glcf", *SMALL_MODEL]


def test_predict_writes_a_json_file_beside_each_picture(loco, checkpoint, workspace):
    options = ["--trainer.callbacks=anomalib_logic.ExplanationWriter"]
    folder = loco / "squares/test/logical_anomalies"
    AnomalibCLI(["predict", *MODEL, f"--data={folder}", f"--ckpt_path={checkpoint}", *FAST[:2], *options])
    files = sorted(workspace.glob("results/**/images/**/*.json"))
    assert [file.name for file in files] == ["000.png.json", "001.png.json"]
    for file in files:
        record = json.loads(file.read_text())
        assert Image.open(record["file"]).size == (record["width"], record["height"]) == (96, 64)
        assert record["objects"] is None
        assert file.with_suffix("").is_file()


def test_test_writes_a_report_and_pictures_with_both_branches(loco, checkpoint, workspace):
    data = ["--data", "anomalib_logic.MVTecLoco", f"--data.root={loco}", "--data.category=squares"]
    options = [
        "--model.visualizer=anomalib_logic.ExplanationVisualizer",
        "--model.visualizer.panels=[local_map,global_map]",
        "--trainer.callbacks=anomalib_logic.HtmlReport",
        "--trainer.callbacks.path=report.html",
    ]
    AnomalibCLI(["test", *MODEL, *data, f"--ckpt_path={checkpoint}", *FAST, *options])
    text = Path("report.html").read_text(encoding="utf-8")
    assert text.count("<li data-score") == 7
    assert "pixel_AUsPRO_5_mean" in text
    picture = next(workspace.glob("results/**/images/**/logical_anomalies/000.png"))
    assert Image.open(picture).size == (6 * 256, 256)


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """Normal images of four squares, two with a square less and two with a square more."""
    import numpy as np

    from tests.unit.models.sam_lad.conftest import SQUARES, draw

    root, generator = tmp_path_factory.mktemp("four_squares"), np.random.default_rng(0)
    more = (*SQUARES, (24, 36, 160))
    for kind, contents in (("good", [SQUARES] * 16), ("bad", [SQUARES[:3], SQUARES[1:], more, more])):
        (root / kind).mkdir()
        for i, content in enumerate(contents):
            draw(generator, content).resize((192, 128), Image.Resampling.NEAREST).save(root / kind / f"{i:02}.png")
    return root


def test_sam_lad_says_what_is_missing_and_surplus_in_pixels_of_the_file(squares, tmp_path):
    from anomalib.data import Folder
    from anomalib.engine import Engine

    torch.manual_seed(0)
    options = {"backbone": "test_efficientnet", "pre_trained": False, "objects": "cluster", "image_size": (64, 96)}
    model = SamLad(**options, scene_size=16, object_size=8, visualizer=False)
    data = Folder(
        "squares", "good", squares, "bad", num_workers=0, eval_batch_size=4, val_split_mode="same_as_test", seed=0
    )
    callbacks = [ExplanationWriter(tmp_path / "json"), HtmlReport(tmp_path / "report.html")]
    run = Engine(default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False, callbacks=callbacks)
    run.train(model, datamodule=data)
    less, more = (json.loads((tmp_path / "json" / "bad" / f"{i:02}.png.json").read_text()) for i in (0, 2))
    missing = [found["box"] for found in less["objects"] if found["kind"] == "missing"]
    assert {reason["score"] for reason in less["reasons"]} == set(model.model.scores)
    assert any(near(box, (124, 76, 152, 104)) for box in missing)  # the fourth square, twice as large in the file
    assert "Missing: " in less["sentence"] or less["label"] == "normal"
    surplus = [found["box"] for found in more["objects"] if found["kind"] == "surplus"]
    assert any(near(box, (72, 48, 100, 76)) for box in surplus)
    assert '<rect class="surplus"' in (tmp_path / "report.html").read_text(encoding="utf-8")


def near(box, expected) -> bool:
    """Whether two boxes overlap by a third of both together."""
    left, top = max(box[0], expected[0]), max(box[1], expected[1])
    right, bottom = min(box[2], expected[2]), min(box[3], expected[3])
    common = max(0, right - left) * max(0, bottom - top)
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, expected)]
    return common > (sum(areas) - common) / 3

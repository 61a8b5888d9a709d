# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

from urllib.error import URLError

import pytest

from anomalib_logic.benchmark.__main__ import jobs_of, main, parser
from anomalib_logic.benchmark.runner import death, one_line
from anomalib_logic.benchmark.suites import SUITES


def jobs(*arguments: str) -> list:
    return jobs_of(parser().parse_args(arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scenes", "--models", "yolo"], "model must be one of glcf, "),
        (["scenes", "--models", "missing.yaml"], "there is no configuration file missing.yaml"),
        (["scenes", "--categories", "screws"], "category screws is not in suite scenes, which has tablet_blister"),
        (["scenes", "--weights", "missing.pth"], "there is no file missing.pth"),
        (["scenes", "--options", "noise=0"], "--options must be a JSON object"),
        (["scenes", "--options", "[1]"], "--options must be a JSON object"),
        (["scenes", "--name", "x"], "--name names one model, but there are 5"),
        (["scenes", "--models", "glcf", "padim", "glcf"], "two models have the same name in --models glcf padim glcf"),
        (["scenes", "--models", "a/x/glcf.yaml", "b/x/glcf.yaml"], "two models have the same name"),
        (["scenes", "--shard", "3/2"], "--shard must be I/N"),
        (["scenes", "--shard", "0/2"], "--shard must be I/N"),
        (["scenes", "--shard", "half"], "--shard must be I/N"),
        (["scenes", "--limit", "1"], "--limit must be at least 2, got 1"),
        (["scenes", "--epochs", "0"], "--epochs must be at least 1, got 0"),
        (["scenes", "--image-size", "0"], "--image-size must be at least 1, got 0"),
        (["folder"], "suite folder needs the folder of your data: --root FOLDER"),
        (["folder", "--root", "missing"], "missing has no folders of categories"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_arguments_are_refused_in_a_sentence(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_folder_of_one_category_is_refused_before_anything_runs(tmp_path, capsys):
    for name in ("good", "bad"):
        (tmp_path / name).mkdir()
    assert main(["folder", "--root", str(tmp_path), "--output", str(tmp_path / "results")]) == 2
    assert f"{tmp_path} is one category, not a folder of categories" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("suite", [name for name in SUITES if SUITES[name].categories])
def test_shards_of_a_suite_are_the_suite(suite):
    whole = jobs(suite)
    parts = [jobs(suite, "--shard", f"{i}/3") for i in (1, 2, 3)]
    assert len(whole) == len(set(whole))
    assert sorted(whole, key=str) == sorted((job for part in parts for job in part), key=str)


def test_weights_from_a_file_have_the_same_name_wherever_the_file_lies(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "w.pth").write_bytes(b"weights")
    (tmp_path / "other.pth").write_bytes(b"others")
    first, second, other = (
        jobs("scenes", "--weights", str(tmp_path / name))[0].path for name in ("a/w.pth", "b/w.pth", "other.pth")
    )
    assert first == second != other


def test_packaged_weights_are_for_their_backbone_and_others_are_downloaded():
    assert jobs("scenes")[0].weights == "packaged"
    assert jobs("scenes", "--backbone", "resnet18")[0].weights == "timm"


def test_models_without_epochs_or_backbone_do_not_say_they_have_them():
    padim, ganomaly = jobs("scenes", "--models", "padim", "ganomaly", "--epochs", "3", "--seeds", "0")[:2]
    assert (padim.epochs, padim.backbone) == (None, "tf_efficientnet_lite0")
    assert (ganomaly.epochs, ganomaly.backbone) == (3, "its own")


def test_a_configuration_file_is_named_after_itself_and_known_by_its_content(tmp_path):
    file = tmp_path / "mine" / "glcf.yaml"
    file.parent.mkdir()
    file.write_text("model: {class_path: anomalib_logic.Glcf}")
    first = jobs("scenes", "--models", str(file))[0]
    assert first.row == "mine/glcf"
    file.write_text("model: {class_path: anomalib_logic.Glcf, init_args: {sigma: 2}}")
    assert jobs("scenes", "--models", str(file))[0].path != first.path


def test_a_broken_result_file_is_named_before_anything_runs(tmp_path, capsys):
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes/broken.json").write_text("{")
    assert main(["scenes", f"--output={tmp_path}"]) == 2
    assert "broken.json is no result file" in capsys.readouterr().err


def test_a_report_without_results_says_so(tmp_path, capsys):
    assert main(["scenes", "--report", "--output", str(tmp_path)]) == 0
    assert "no results of suite scenes" in capsys.readouterr().out


def test_errors_are_one_line():
    assert one_line(ValueError("first\n  second")) == "ValueError: first second"
    assert len(one_line(ValueError("long " * 1000))) < 500
    missing = one_line(URLError("no network"))
    assert missing == "a download that the model or its data needs failed: URLError: <urlopen error no network>"


def test_the_end_of_a_process_without_a_result_is_told():
    assert death(-9) == "the process was ended by signal 9, perhaps for lack of memory"
    assert death(3) == "the process ended with exit code 3 and no result"

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The program ``anomalib-logic``: Anomalib's command line with messages for users only."""

import logging
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from anomalib.data.utils.path import validate_path
from anomalib.deploy import CompressionType, ExportType
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule, Trainer

from anomalib_logic import cli
from anomalib_logic._argument_errors import argument_sentence
from anomalib_logic.models.sam_lad.measurement import nearest_distance

from .conftest import CONFIGS, FAST, small_data


@pytest.mark.slow
def test_quick_start_prints_no_warnings_of_libraries_and_says_last_where_the_pictures_are(tmp_path):
    program = Path(sys.executable).with_name("anomalib-logic")
    config = CONFIGS / "quick_start.yaml"
    small = ["--model.image_size=64", "--model.scene_size=16", *small_data(config, tmp_path)]
    result = subprocess.run(
        [str(program), "train", f"--config={config}", *small], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stdout + result.stderr
    assert "filling the bank: 4 images" in result.stdout
    assert all(f"image_AUROC_{kind}" in result.stdout for kind in ("logical", "structural"))
    lines = [line for line in (result.stdout + result.stderr).splitlines() if line.strip()]
    assert not any(line.startswith(("20", "[")) or "Tip" in line or "GPU available" in line for line in lines)
    said, folder = lines[-1].split("the pictures are in ")
    assert not said
    assert len(list(Path(folder).rglob("*.png"))) == 2 + 4 + 5


@pytest.fixture
def arguments(monkeypatch, workspace):
    """Run the program in this process with other arguments."""

    def run(*values: str) -> None:
        monkeypatch.setattr(sys, "argv", ["anomalib-logic", *values])
        with warnings.catch_warnings():
            cli.main()

    names = ("", "anomalib_logic", "lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric")
    levels = {name: logging.getLogger(name).level for name in names}
    handlers = list(logging.getLogger().handlers)
    monkeypatch.setattr(ArgumentParser, "error", ArgumentParser.error)  # undone with all others
    yield run
    logging.getLogger().handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def test_wrong_value_is_one_sentence(arguments, capsys):
    model = ["--model=SamLad", "--model.objects=cluster", "--model.backbone=mobilenetv2_035"]
    with pytest.raises(SystemExit) as stopped:
        arguments("train", *model, "--model.pre_trained=false", "--model.k=0", "--data=MVTecLoco")
    assert stopped.value.code != 0
    error = capsys.readouterr().err
    assert error.startswith("error: k must be at least 1, got 0\n")


def test_folder_that_does_not_exist_is_one_sentence(arguments, capsys):
    data = ["--data=Folder", "--data.name=parts", "--data.root=nowhere", "--data.normal_dir=good"]
    model = ["--model=SamLad", "--model.objects=cluster", "--model.backbone=mobilenetv2_035"]
    with pytest.raises(SystemExit) as stopped:
        arguments("train", *model, "--model.pre_trained=false", "--model.image_size=64", *data, *FAST)
    assert stopped.value.code != 0
    error = capsys.readouterr().err
    assert "nowhere" in error
    assert "Traceback" not in error


def test_empty_folder_is_one_sentence(arguments, workspace, capsys):
    (workspace / "good").mkdir()
    data = ["--data=Folder", "--data.name=parts", f"--data.root={workspace}", "--data.normal_dir=good"]
    model = ["--model=SamLad", "--model.objects=cluster", "--model.backbone=mobilenetv2_035"]
    with pytest.raises(SystemExit) as stopped:
        arguments("train", *model, "--model.pre_trained=false", "--model.image_size=64", *data, *FAST)
    assert stopped.value.code != 0
    error = capsys.readouterr().err
    assert "error: Found 0 DirType.NORMAL images" in error
    assert "Traceback" not in error


def test_error_of_the_program_itself_keeps_its_traceback(monkeypatch, arguments):
    def fail():
        nearest_distance(torch.ones(1, 3, 4), torch.ones(1, 2, 5, 4), torch.ones(1, 2))  # 3 channels against 5

    monkeypatch.setattr("anomalib_logic._command_line.CommandLine", fail)
    with pytest.raises(RuntimeError, match=r"\[1, 4\].*\[1, 6\]"):
        arguments("train")


def test_wrong_value_of_the_data_is_one_sentence_where_other_types_would_do(arguments, capsys):
    model = ["--model=SamLad", "--model.objects=cluster", "--model.backbone=mobilenetv2_035"]
    with pytest.raises(SystemExit):
        arguments("predict", *model, "--model.pre_trained=false", "--data=LocoScenes", "--data.image_size=10")
    assert capsys.readouterr().err.startswith("error: image_size must be an integer of at least 64, got 10\n")


def test_printed_configuration_is_yaml(arguments, capsys):
    model = ["--model=SamLad", "--model.objects=cluster"]
    with pytest.raises(SystemExit):
        arguments("train", *model, "--data=LocoScenes", "--print_config")
    assert yaml.safe_load(capsys.readouterr().out)["data"]["class_path"] == "anomalib_logic.LocoScenes"


@pytest.mark.parametrize(
    ("cores", "memory", "said"),
    [
        ({0}, 16.0, "this machine has 1 core and 16.0 GB of memory"),
        ({0, 1}, 3.2, "this machine has 2 cores and 3.2 GB of memory"),
        ({0}, None, "this machine has 1 core."),
        ({0, 1}, 4.0, None),
        ({0, 1, 2}, None, None),
    ],
)
def test_machine_that_is_small_is_named(cores, memory, said, monkeypatch, caplog):
    monkeypatch.setattr(cli.os, "sched_getaffinity", lambda process: cores, raising=False)
    monkeypatch.setattr(cli, "memory_gigabytes", lambda: memory)
    with caplog.at_level(logging.WARNING, cli.__name__):
        cli.warn_of_small_machine()
    assert caplog.messages == [] if said is None else said in caplog.text


def test_too_little_memory_is_a_sentence_with_a_remedy():
    error = RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried")
    assert cli.is_for_users(error)
    assert "image_size" in cli.sentence(error)


class Testable(LightningModule):
    def test_step(self, batch):
        pass


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (lambda: ExportType("onnxx"), "the export type must be one of onnx, openvino, torch, got 'onnxx'"),
        (lambda: CompressionType("int9"), "the compression type must be one of fp16, int8, int8_ptq, int8_acq, got"),
        (lambda: Trainer(logger=False).test(Testable()), "there is no data: pass --data, as in training"),
        (lambda: validate_path("Teile_ü"), "Teile_ü has letters outside ASCII, which Anomalib does not take"),
        (lambda: Trainer(accelerator="gpu"), "No supported gpu backend found"),
    ],
)
def test_mistakes_that_libraries_find_are_sentences(raised, said, monkeypatch, arguments, capsys):
    monkeypatch.setattr("anomalib_logic._command_line.CommandLine", raised)
    if said.startswith("No supported") and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit):
        arguments("export")
    assert capsys.readouterr().err.startswith(f"error: {said}")


MODEL = ["--model=SamLad", "--model.pre_trained=false", "--model.backbone=mobilenetv2_035"]
DATA = ["--data=Folder", "--data.name=parts", "--data.normal_dir=good"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([*MODEL, "--model.object=cluster", *DATA], "anomalib_logic.SamLad has no option --model.object; did you mean"),
        ([*MODEL, "--model.scoremissing=false", *DATA], "did you mean --model.score_missing or --model.scoring?"),
        (
            [*MODEL, "--model.zzz=1", *DATA],
            "has no option --model.zzz. All are listed by --model.help anomalib_logic.SamLad",
        ),
        (
            [*MODEL, "--model.objects=clusters", *DATA],
            "--model.objects must be one of sam_vit_h, sam_vit_l, sam_vit_b, ",
        ),
        (["--model=samlad", *DATA], "--model samlad: there is no such class; did you mean SamLad?"),
        (["--model=Patchcor", *DATA], "--model Patchcor: there is no such class; did you mean Patchcore, "),
        ([*MODEL, "--data=mvtecloco"], "--data mvtecloco: there is no such class; did you mean MVTecLoco"),
        ([*MODEL, "--data=./parts"], "--data ./parts: only predict takes a folder; others take a data module, such as"),
        ([*MODEL, *DATA[:1], *DATA[2:]], "anomalib.data.Folder needs --data.name"),
        (["--model=Patchcore", "--model.num_neighbour=3", *DATA], "did you mean --model.num_neighbors"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_misspelt_argument_is_one_sentence(values, said, arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        arguments("train", *values)
    assert stopped.value.code == 2
    (error,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    assert said in error


def test_other_errors_of_arguments_stay_as_they_are():
    assert argument_sentence("Unrecognized arguments: --x") is None
    assert argument_sentence("Parser key \"trainer.max_epochs\": Expected a <class 'int'>. Got value: x") is None

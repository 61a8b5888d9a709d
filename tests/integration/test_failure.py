# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Runs that are killed, full disks, and files that are broken, of another model or hostile."""

import errno
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from anomalib.engine import Engine

from anomalib_logic import Glcf, Lgfdr, SamLad, cli

from . import breaking_runs
from .breaking_runs import BACKBONE, export, fill, squares, train

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")


def stopped(run, *arguments, by: signal.Signals = signal.SIGKILL) -> None:
    """Do a run in a process of its own, which must end by a signal."""
    context = multiprocessing.get_context("forkserver")  # the server imports once and never computes
    context.set_forkserver_preload(["anomalib.engine", "anomalib.data", "anomalib_logic.models", "onnx"])
    process = context.Process(target=run, args=arguments, kwargs={"by": by})
    process.start()
    process.join(timeout=300)
    assert process.exitcode == (-by if by == signal.SIGKILL else 128 + by)


def checkpoints(root: Path) -> list[Path]:
    return sorted(root.rglob("*.ckpt"))


def same_state(first: torch.nn.Module, second: torch.nn.Module) -> None:
    first, second = first.state_dict(), second.state_dict()
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-5, atol=1e-6, equal_nan=True, msg=name)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    from tests.unit.models.conftest import write_squares

    return write_squares(tmp_path_factory.mktemp("squares"), 6)


@pytest.fixture(scope="module")
def unbroken(images, tmp_path_factory):
    """A model that was trained without a break, and its checkpoint."""
    root = tmp_path_factory.mktemp("unbroken")
    model = train(images, root)
    (checkpoint,) = checkpoints(root)
    return model, checkpoint


@pytest.mark.slow  # test_cli.py has one that is stopped in the same process
def test_killed_training_goes_on_from_its_last_checkpoint_to_the_same_result(images, unbroken, tmp_path, monkeypatch):
    stopped(train, images, tmp_path / "broken")
    (checkpoint,) = checkpoints(tmp_path / "broken")
    assert torch.load(checkpoint, weights_only=True)["epoch"] == 1
    monkeypatch.setattr(breaking_runs, "seed_everything", lambda *args, **kwargs: torch.manual_seed(77))
    same_state(unbroken[0], train(images, tmp_path / "again", checkpoint=checkpoint))


def test_training_that_gets_sigterm_ends_at_once_and_leaves_a_checkpoint_that_can_be_used(images, tmp_path):
    stopped(train, images, tmp_path, by=signal.SIGTERM)
    (checkpoint,) = checkpoints(tmp_path)
    assert torch.load(checkpoint, weights_only=True)["epoch"] == 1
    assert not [path for path in tmp_path.rglob("*") if path.suffix not in ("", ".ckpt")]
    model = Lgfdr.load_from_checkpoint(checkpoint)
    assert not model.post_processor.image_threshold.isnan()
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False)
    batches = engine.predict(model, datamodule=squares(images))
    assert all(torch.isfinite(batch.pred_score).all() for batch in batches)


def test_filling_of_a_bank_that_gets_sigterm_ends_at_once_and_leaves_nothing(images, tmp_path):
    stopped(fill, images, tmp_path, by=signal.SIGTERM)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.slow
def test_killed_filling_of_a_bank_leaves_former_results_and_another_run_fills_it_alike(images, tmp_path):
    first = fill(images, tmp_path)
    (checkpoint,) = checkpoints(tmp_path)
    content = checkpoint.read_bytes()
    stopped(fill, images, tmp_path)
    assert [path.read_bytes() for path in checkpoints(tmp_path)] == [content]
    same_state(first, fill(images, tmp_path / "again"))


@pytest.mark.slow
def test_killed_export_leaves_the_former_file_whole_and_another_one_replaces_it(unbroken, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    path = export(unbroken[1], tmp_path)
    content = path.read_bytes()
    stopped(export, unbroken[1], tmp_path)
    assert path.read_bytes() == content
    assert export(unbroken[1], tmp_path) == path
    onnxruntime.InferenceSession(path)


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.ckpt")


def test_full_disk_is_one_sentence_and_leaves_the_former_checkpoint(images, unbroken, tmp_path, monkeypatch):
    former = tmp_path / "model.ckpt"
    former.write_bytes(unbroken[1].read_bytes())
    monkeypatch.setattr("lightning.fabric.utilities.cloud_io.torch.save", full_disk)
    model = Lgfdr.load_from_checkpoint(former)
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False, max_epochs=1)
    with pytest.raises(OSError, match="No space left") as caught:
        engine.fit(model, datamodule=squares(images))
    assert cli.is_for_users(caught.value)
    assert cli.sentence(caught.value) == "No space left on device: model.ckpt"
    assert former.read_bytes() == unbroken[1].read_bytes()


def message_of(run, *arguments) -> str:
    """The sentence that the program ``anomalib-logic`` prints for the error of a run."""
    with pytest.raises(cli.INPUT_ERRORS) as caught:
        run(*arguments)
    assert cli.is_for_users(caught.value), repr(caught.value)
    sentence = cli.sentence(caught.value)
    assert "\n" not in sentence
    return sentence


def check(model, checkpoint, images, root):
    """What ``anomalib test --ckpt_path`` does."""
    engine = Engine(default_root_dir=root, accelerator="cpu", enable_progress_bar=False)
    engine.test(model, datamodule=squares(images), ckpt_path=checkpoint)


def test_checkpoint_of_another_model_is_named(images, unbroken, tmp_path):
    other = Glcf(**BACKBONE, width=48, depth=1, heads=4)
    assert message_of(check, other, unbroken[1], images, tmp_path) == (
        "the checkpoint is of the model Lgfdr, not of Glcf: pass --model anomalib_logic.Lgfdr"
    )


@pytest.mark.parametrize("model", [Glcf, SamLad])
def test_checkpoint_of_another_model_is_named_where_it_is_loaded(model, unbroken):
    assert message_of(model.load_from_checkpoint, unbroken[1]) == (
        f"the checkpoint is of the model Lgfdr, not of {model.__name__}: pass --model anomalib_logic.Lgfdr"
    )


def test_checkpoint_of_another_version_is_one_sentence(images, unbroken, tmp_path):
    content = torch.load(unbroken[1], weights_only=True)
    del content["anomalib_logic"]
    content["state_dict"]["model.former"] = content["state_dict"].popitem()[1]
    torch.save(content, tmp_path / "former.ckpt")
    message = message_of(check, Lgfdr(**BACKBONE, width=32), tmp_path / "former.ckpt", images, tmp_path)
    assert message.startswith("the checkpoint does not fit Lgfdr: it is of another model or version of this package; ")
    assert "model.former" in message


@pytest.mark.parametrize("length", [0, 100, 200_000])
def test_checkpoint_that_is_cut_short_is_one_sentence(length, images, unbroken, tmp_path):
    path = tmp_path / "model.ckpt"
    path.write_bytes(unbroken[1].read_bytes()[:length])
    message = message_of(check, Lgfdr(**BACKBONE, width=32), path, images, tmp_path)
    assert message.startswith("the checkpoint (--ckpt_path) cannot be read: it is damaged")


class Hostile:
    """What, when it is unpickled, makes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def test_code_in_a_checkpoint_is_not_run(images, unbroken, tmp_path):
    trace = tmp_path / "trace"
    torch.save({**torch.load(unbroken[1], weights_only=True), "extra": Hostile(trace)}, tmp_path / "hostile.ckpt")
    message = message_of(check, Lgfdr(**BACKBONE, width=32), tmp_path / "hostile.ckpt", images, tmp_path)
    assert message.startswith("the checkpoint (--ckpt_path) cannot be read")
    with pytest.raises(pickle.UnpicklingError):
        Lgfdr.load_from_checkpoint(tmp_path / "hostile.ckpt")
    assert not trace.exists()
    torch.load(tmp_path / "hostile.ckpt", weights_only=False)
    assert trace.exists()  # the file is one that would have done it


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
@pytest.mark.parametrize("argument", ["backbone_weights", "sam_checkpoint", "upsampler_weights"])
def test_code_in_weights_is_not_run(argument, save, tmp_path):
    trace, path = tmp_path / "trace", tmp_path / "hostile.pth"
    save({"state_dict": {"weight": torch.zeros(1)}, "code": Hostile(trace)}, path)
    others = {"backbone_weights": {}, "sam_checkpoint": {"objects": "sam_vit_b", "sam_size": 64, "sam_points": 3}}
    backbone = {"upsampler_weights": "vit_tiny_patch16_224"}.get(argument, "mobilenetv2_035")
    model = {"backbone": backbone, "pre_trained": False, "objects": "cluster", "image_size": 64}
    message = message_of(lambda: SamLad(**{**model, **others.get(argument, {}), argument: path}))
    assert message.startswith(f"{argument} file {path} cannot be read as a PyTorch state dict: ")
    assert "weights_only" not in message  # no advice to run the code
    assert not trace.exists()


OFFLINE = """
import socket, sys

def refuse(*args, **kwargs):
    raise AssertionError("a socket was opened")

socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refuse
sys.modules["segment_anything"] = None  # not installed
import torch, timm
import anomalib_logic, anomalib_logic.models, anomalib_logic.data, anomalib_logic.export
assert "glcf" in __import__("anomalib.models").models.list_models()
torch.save(timm.create_model("mobilenetv2_035").state_dict(), "weights.pth")
options = {"backbone": "mobilenetv2_035", "backbone_weights": "weights.pth", "image_size": 64}
anomalib_logic.Glcf(**options)
anomalib_logic.Lgfdr(**options)
anomalib_logic.SamLad(**options, objects="cluster")
try:
    anomalib_logic.SamLad(**options, objects="sam_vit_b")
except ImportError as error:
    print(error)
"""


@pytest.mark.slow
def test_import_and_local_weights_need_no_network_and_segment_anything_is_named_where_it_is_missing(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", OFFLINE], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == (
        "objects='sam_vit_b' needs the package segment-anything: pip install 'anomalib-logic[sam]', "
        "or choose objects='cluster'"
    )

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch, InferenceBatch
from torch import nn

from anomalib_logic.export import (
    EngineRunner,
    ExportVerificationError,
    OnnxRunner,
    OpenVINORunner,
    TorchRunner,
    open_exported,
)
from anomalib_logic.export.mixin import _open
from anomalib_logic.export.runners import check_openvino_device

from ...conftest import signal_stack


class Brightness(nn.Module):
    def forward(self, images: torch.Tensor) -> InferenceBatch:
        maps = images.mean(dim=1)
        return InferenceBatch(pred_score=maps.mean(dim=(1, 2)), anomaly_map=maps)


class EngineBrightness(Brightness):
    pre_processor = post_processor = None

    def predict_step(self, batch: ImageBatch, _: int) -> ImageBatch:
        return batch.update(**self(batch.image)._asdict())


def graph(path, size=("h", "w"), channels=3, score="pred_score", kind="FLOAT", exponent=None, external=False):
    """Write an ONNX file that computes the brightness, to some power."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    value, kind = onnx.helper.make_tensor_value_info, getattr(onnx.TensorProto, kind)
    name = "mean" if exponent else score
    nodes = [
        onnx.helper.make_node("ReduceMean", ["input", "channels"], ["anomaly_map"], keepdims=1),
        onnx.helper.make_node("ReduceMean", ["input", "all"], [name], keepdims=0),
    ]
    constants = {"channels": np.array([1]), "all": np.array([1, 2, 3])}
    if exponent:
        nodes.append(onnx.helper.make_node("Pow", ["mean", "exponent"], [score]))
        constants["exponent"] = np.array(exponent, np.float32)
    content = onnx.helper.make_graph(
        nodes,
        "brightness",
        [value("input", kind, ["n", channels, *size])],
        [value(score, kind, ["n"]), value("anomaly_map", kind, ["n", 1, *size])],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = onnx.helper.make_model(content, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path, save_as_external_data=external, location=f"{path.name}.data", size_threshold=0)
    return path


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory):
    return graph(tmp_path_factory.mktemp("onnx") / "model.onnx")


@pytest.fixture(scope="module")
def openvino_file(onnx_file):
    openvino = pytest.importorskip("openvino")
    path = onnx_file.with_suffix(".xml")
    openvino.save_model(openvino.convert_model(onnx_file), path)
    return path


@pytest.fixture
def images():
    return np.random.default_rng(0).random((2, 3, 6, 5), dtype=np.float32)


def runners(path):
    return [TorchRunner(Brightness()), OnnxRunner(path), OpenVINORunner(path), OpenVINORunner(path, "AUTO")]


RUNNERS = {
    "engine": lambda path: EngineRunner(EngineBrightness()),
    "torch": lambda path: TorchRunner(Brightness()),
    "onnxruntime": OnnxRunner,
    "openvino": OpenVINORunner,
}


@pytest.mark.parametrize("name", RUNNERS)
def test_one_runner_answers_many_threads_as_it_answers_one(name, onnx_file):
    assert_threads_are_answered(RUNNERS[name](onnx_file), [(200 + 7 * (i % 5), 240 + 9 * (i % 7)) for i in range(24)])


def assert_threads_are_answered(run, sizes, number=8):
    """Ask in several threads at once; each asks for all images in an order of its own and keeps all answers."""
    generator = np.random.default_rng(0)
    images = [generator.random((1 + i % 2, 3, *size), dtype=np.float32) * (i + 1) / 24 for i, size in enumerate(sizes)]
    expected = [run(image) for image in images]
    barrier = threading.Barrier(number)

    def ask(thread):
        barrier.wait()
        order = np.random.default_rng(thread).permutation(len(images))
        return {i: run(images[i]) for i in order}

    with ThreadPoolExecutor(number) as pool:
        answers = list(pool.map(ask, range(number)))
    for found in answers:
        for i, wanted in enumerate(expected):
            assert set(found[i]) == set(wanted)
            for output, value in wanted.items():
                np.testing.assert_allclose(found[i][output], value, atol=1e-5, err_msg=f"image {i}, {output}")


@pytest.mark.parametrize("name", RUNNERS)
def test_answer_stays_what_it_was_when_the_runner_is_asked_again(name, onnx_file, images):
    runner = RUNNERS[name](onnx_file)
    first = runner(images)
    kept = {output: value.copy() for output, value in first.items()}
    runner(1 - images)
    for output, value in kept.items():
        np.testing.assert_array_equal(first[output], value)


@pytest.mark.parametrize("name", RUNNERS)
def test_every_runner_divides_bytes_and_refuses_what_is_no_image(name, onnx_file):
    runner = RUNNERS[name](onnx_file)
    levels = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1).repeat(3, axis=1)
    np.testing.assert_allclose(runner(levels)["pred_score"], np.arange(256) / 255, rtol=1e-6)
    for wrong in (levels.astype(np.float32), levels.astype(int), levels / np.nan, levels[:, :1] / 255):
        with pytest.raises(ValueError, match=r"^images must "):
            runner(wrong)


@pytest.mark.parametrize("runtime", [OnnxRunner, OpenVINORunner], ids=["onnxruntime", "openvino"])
def test_file_of_one_size_refuses_arrays_of_others(runtime, tmp_path):
    runner = runtime(graph(tmp_path / "model.onnx", size=(8, 9)))
    assert runner(np.full((2, 3, 8, 9), 0.5))["pred_score"] == pytest.approx([0.5, 0.5])
    with pytest.raises(ValueError, match="must have 8 x 9 pixels, all that the exported file takes, got 9 x 8"):
        runner(np.zeros((1, 3, 9, 8)))


@pytest.mark.parametrize("runtime", [OnnxRunner, OpenVINORunner], ids=["onnxruntime", "openvino"])
def test_answer_of_a_file_that_is_no_number_is_an_error(runtime, tmp_path):
    runner = runtime(graph(tmp_path / "model.onnx", exponent=-1))
    assert runner(np.full((1, 3, 2, 2), 0.5))["pred_score"] == pytest.approx([2])
    with pytest.raises(ValueError, match="the model's own answer has NaN or infinite values in pred_score"):
        runner(np.zeros((1, 3, 2, 2)))


def test_every_runtime_gives_the_same_arrays_in_the_same_shapes(onnx_file, images):
    for runner in runners(onnx_file):
        predictions = runner(images)
        assert set(predictions) == {"pred_score", "anomaly_map"}
        np.testing.assert_allclose(predictions["anomaly_map"], images.mean(axis=1, keepdims=True), rtol=1e-5)
        np.testing.assert_allclose(predictions["pred_score"], images.mean(axis=(1, 2, 3)), rtol=1e-5)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only there OpenVINO changes the stack of signals")
def test_runners_that_end_in_the_order_they_began_leave_a_stack_for_signal_handlers(onnx_file):
    runners = [OpenVINORunner(onnx_file) for _ in range(3)]
    while runners:
        del runners[0]
    address = signal_stack().address
    parts = [line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines()]
    assert address is None or any(int(start, 16) <= address < int(end, 16) for start, end in parts)


def test_runners_say_where_they_run(onnx_file):
    assert [runner.device for runner in runners(onnx_file)] == ["cpu", "CPUExecutionProvider", "CPU", "CPU"]


def test_unknown_provider_is_refused_with_those_there_are(onnx_file):
    with pytest.raises(ValueError, match=r"\[.*'CPUExecutionProvider'.*\], got 'TpuExecutionProvider'"):
        OnnxRunner(onnx_file, "TpuExecutionProvider")


@pytest.mark.parametrize("device", ["TPU", "AUTO:TPU,CPU", "HETERO:CPU,TPU"])
def test_device_that_is_not_there_is_refused_with_those_there_are(onnx_file, device):
    with pytest.raises(ValueError, match=rf"no device TPU on this machine \(requested: '{device}'\); it has CPU"):
        OpenVINORunner(onnx_file, device)


@pytest.mark.parametrize("device", ["GPU", "GPU.1", "NPU", "AUTO", "AUTO:GPU,CPU", "MULTI:GPU.0,CPU", "AUTO:-NPU"])
def test_devices_of_openvino_are_found_by_family_and_number(device):
    check_openvino_device(device, ["CPU", "GPU.0", "GPU.1", "NPU"])


def test_device_without_its_number_is_refused():
    with pytest.raises(ValueError, match=r"no device GPU\.2"):
        check_openvino_device("GPU.2", ["CPU", "GPU.0"])


def test_other_kind_of_file_is_refused(tmp_path):
    (tmp_path / "model.ckpt").touch()
    with pytest.raises(ValueError, match=r"ends in \.pt, \.onnx or \.xml, got model\.ckpt"):
        open_exported(tmp_path / "model.ckpt")


def test_file_is_opened_in_the_runtime_of_its_format(onnx_file, openvino_file, tmp_path):
    torch.save({"model": Brightness()}, tmp_path / "model.pt")
    files = (onnx_file, openvino_file, tmp_path / "model.pt")
    assert [type(open_exported(file)) for file in files] == [OnnxRunner, OpenVINORunner, TorchRunner]


def wrong_model(name, onnx_file, openvino_file, folder):
    """Make a model file of which something is missing or wrong."""
    what, suffix = name.rsplit(" ", 1)
    path = folder / f"model.{suffix}"
    if what in ("without weights", "weights cut short", "empty weights"):
        if suffix == "onnx":
            graph(path, external=True)
        else:
            path.write_bytes(openvino_file.read_bytes())
        weights = path.with_name("model.onnx.data") if suffix == "onnx" else path.with_suffix(".bin")
        content = weights.read_bytes() if suffix == "onnx" else openvino_file.with_suffix(".bin").read_bytes()
        weights.unlink(missing_ok=True)
        if what != "without weights":
            weights.write_bytes(content[: -len(content) // 3] if what == "weights cut short" else b"")
    elif what == "cut short":
        files = {"onnx": onnx_file, "xml": openvino_file}
        torch.save({"model": Brightness()}, path) if suffix == "pt" else path.write_bytes(files[suffix].read_bytes())
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif what == "state of":
        torch.save({"state_dict": {}, "model": {"weight": torch.ones(2)}}, path)
    else:
        path.write_text({"empty": "", "text": "no model\n", "other": "<svg><path/></svg>\n"}[what])
    return path


WRONG = [f"{what} {suffix}" for what in ("empty", "text", "other", "cut short") for suffix in ("pt", "onnx", "xml")]
WRONG += [f"{what} {suffix}" for what in ("without weights", "weights cut short") for suffix in ("onnx", "xml")]
WRONG += ["empty weights onnx", "empty weights xml", "state of pt"]


@pytest.mark.parametrize("name", WRONG)
def test_broken_file_is_one_sentence(name, onnx_file, openvino_file, tmp_path):
    path = wrong_model(name, onnx_file, openvino_file, tmp_path)
    openers = {".pt": [TorchRunner], ".onnx": [OnnxRunner, OpenVINORunner], ".xml": [OpenVINORunner]}[path.suffix]
    for opener in (open_exported, *openers):
        with pytest.raises(ValueError, match=rf"^{path} cannot be opened in \w+.*\(.+\)$") as error:
            opener(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("opener", [open_exported, TorchRunner, OnnxRunner, OpenVINORunner])
@pytest.mark.parametrize("suffix", [".pt", ".onnx", ".xml"])
def test_folder_and_missing_file_are_named(opener, suffix, tmp_path):
    folder = tmp_path / f"model{suffix}"
    with pytest.raises(FileNotFoundError, match=rf"there is no exported file {folder}$"):
        opener(folder)
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match=rf"no exported file {folder} \(it is a folder: give the file in it\)"):
        opener(folder)


OTHERS = [{"score": "logits"}, {"channels": 1}, {"channels": 6, "size": (5, 3)}, {"size": ("h",)}, {"kind": "DOUBLE"}]


@pytest.mark.parametrize("runtime", [OnnxRunner, OpenVINORunner], ids=["onnxruntime", "openvino"])
@pytest.mark.parametrize("options", OTHERS, ids=str)
def test_model_of_something_else_is_refused(options, runtime, tmp_path):
    onnx = pytest.importorskip("onnx")
    path = graph(tmp_path / "model.onnx", **options)
    if options == {"size": ("h",)}:
        model = onnx.load(path)
        model.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(np.array([1, 2]), "all"))
        onnx.save(model, path)
    with pytest.raises(
        ValueError, match=r"model\.onnx is no exported anomaly model: it takes \[.*instead of one input"
    ):
        runtime(path)


def test_torch_model_of_something_else_is_refused():
    with pytest.raises(ValueError, match="must give Anomalib's InferenceBatch, got Tensor"):
        TorchRunner(torch.nn.Conv2d(3, 1, 1))(np.zeros((1, 3, 2, 2)))


@pytest.mark.parametrize("suffix", [".pt", ".onnx", ".xml"])
def test_file_that_its_runtime_cannot_open_is_named_with_the_reason(suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    path.write_text("no model")
    with pytest.raises(
        ExportVerificationError, match=rf"model\{suffix} was written, but its runtime cannot open it: .+"
    ):
        _open(path)

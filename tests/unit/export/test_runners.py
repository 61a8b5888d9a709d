# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import InferenceBatch
from torch import nn

from anomalib_logic.export import ExportVerificationError, OnnxRunner, OpenVINORunner, TorchRunner, open_exported
from anomalib_logic.export.mixin import _open
from anomalib_logic.export.runners import check_openvino_device

from ...conftest import signal_stack


class Brightness(nn.Module):
    def forward(self, images: torch.Tensor) -> InferenceBatch:
        maps = images.mean(dim=1)
        return InferenceBatch(pred_score=maps.mean(dim=(1, 2)), anomaly_map=maps)


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("ReduceMean", ["input", "channels"], ["anomaly_map"], keepdims=1),
            onnx.helper.make_node("ReduceMean", ["input", "all"], ["pred_score"], keepdims=0),
        ],
        "brightness",
        [value("input", onnx.TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [
            value("pred_score", onnx.TensorProto.FLOAT, ["n"]),
            value("anomaly_map", onnx.TensorProto.FLOAT, ["n", 1, "h", "w"]),
        ],
        [
            onnx.numpy_helper.from_array(np.array([1]), "channels"),
            onnx.numpy_helper.from_array(np.array([1, 2, 3]), "all"),
        ],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture
def images():
    return np.random.default_rng(0).random((2, 3, 6, 5), dtype=np.float32)


def runners(path):
    return [TorchRunner(Brightness()), OnnxRunner(path), OpenVINORunner(path), OpenVINORunner(path, "AUTO")]


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


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no exported file .*nowhere\.onnx"):
        open_exported(tmp_path / "nowhere.onnx")


def test_other_kind_of_file_is_refused(tmp_path):
    (tmp_path / "model.ckpt").touch()
    with pytest.raises(ValueError, match=r"ends in \.pt, \.onnx or \.xml, got model\.ckpt"):
        open_exported(tmp_path / "model.ckpt")


def test_file_is_opened_in_the_runtime_of_its_format(onnx_file, tmp_path):
    openvino = pytest.importorskip("openvino")
    openvino.save_model(openvino.convert_model(onnx_file), tmp_path / "model.xml")
    torch.save({"model": Brightness()}, tmp_path / "model.pt")
    files = (onnx_file, tmp_path / "model.xml", tmp_path / "model.pt")
    assert [type(open_exported(file)) for file in files] == [OnnxRunner, OpenVINORunner, TorchRunner]


@pytest.mark.parametrize("suffix", [".pt", ".onnx", ".xml"])
def test_file_that_its_runtime_cannot_open_is_named_with_the_reason(suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    path.write_text("no model")
    with pytest.raises(
        ExportVerificationError, match=rf"model\{suffix} was written, but its runtime cannot open it: .+"
    ):
        _open(path)

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Exports start from a loaded checkpoint, give its scores, and are verified."""

import re

import numpy as np
import pytest
import torch
from anomalib.cli.cli import AnomalibCLI
from anomalib.data.utils import read_image
from anomalib.deploy import OpenVINOInferencer, TorchInferencer
from anomalib.engine import Engine

from anomalib_logic import Glcf, MVTecLoco
from anomalib_logic.export import ExportVerificationError, TorchRunner, open_exported
from anomalib_logic.export.mixin import STORED

from .conftest import SMALL_MODEL

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")


@pytest.fixture
def loaded(checkpoint) -> Glcf:
    return Glcf.load_from_checkpoint(checkpoint).eval()


@pytest.fixture
def image(loco):
    return loco / "squares/test/logical_anomalies/000.png"


def export(kind: str, checkpoint, root, *more: str) -> AnomalibCLI:
    arguments = ["--model=anomalib_logic.Glcf", *SMALL_MODEL, f"--export_type={kind}", f"--export_root={root}"]
    return AnomalibCLI(["export", *arguments, f"--ckpt_path={checkpoint}", *more])


def test_torch_file_gives_equal_scores(loaded, tmp_path):
    images = np.random.default_rng(0).random((2, 3, 80, 100), dtype=np.float32)
    found, expected = open_exported(loaded.to_torch(tmp_path))(images), TorchRunner(loaded)(images)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_export_of_a_model_that_was_never_validated_warns(loaded, tmp_path, caplog):
    loaded.to_torch(tmp_path, verify=False)
    assert "never validated" not in caplog.text
    loaded.post_processor.image_min.fill_(float("nan"))
    loaded.to_torch(tmp_path, verify=False)
    assert "never validated" in caplog.text


def test_checkpoint_keeps_images_for_verification(checkpoint, loaded, loco):
    saved = torch.load(checkpoint, weights_only=True)[STORED]
    data = MVTecLoco(root=loco, category="squares", num_workers=0)
    data.setup()
    assert len(saved) == 3
    torch.testing.assert_close(saved["good/000.png"].float() / 255, data.val_data[0].image, atol=1e-6, rtol=0)
    assert set(loaded._verification_images) == set(saved)


def test_command_prints_sizes_and_differences(exports):
    printed = (exports / "output.txt").read_text()
    for file, device in (("onnx/model.onnx", "CPUExecutionProvider"), ("openvino/model.xml", "CPU")):
        assert re.search(rf"weights/{file}: [\d.]+ MB", printed)
        for batch in (1, 3):
            assert re.search(rf"{device}, batch {batch}: largest difference from torch \S+ of the score", printed)


def test_input_size_of_the_command_is_the_files(exports):
    shape = open_exported(exports / "weights/onnx/model.onnx").session.get_inputs()[0].shape
    assert shape[2:] == [48, 80]


def test_anomalibs_openvino_inferencer_gives_the_checkpoints_predictions(exports, loaded, image, workspace):
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    found = OpenVINOInferencer(exports / "weights/openvino/model.xml", device="CPU", config=config).predict(image)
    with torch.no_grad():
        expected = loaded(read_image(image, as_tensor=True)[None])
    np.testing.assert_allclose(found.pred_score.ravel(), expected.pred_score.numpy(), atol=1e-3)
    np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map.numpy(), atol=1e-3)
    assert np.array_equal(found.pred_label.ravel(), expected.pred_label.numpy())
    assert found.pred_mask.dtype == bool


def test_anomalibs_torch_inferencer_gives_the_checkpoints_predictions(loaded, image, tmp_path, monkeypatch):
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    found = TorchInferencer(loaded.to_torch(tmp_path), device="cpu").predict(image)
    with torch.no_grad():
        expected = loaded(found.image)
    assert torch.equal(found.pred_score, expected.pred_score)
    assert torch.equal(found.pred_mask[None], expected.pred_mask)


class _Wrong(Glcf):
    """Predicts something else once it was read from a file."""

    offset = 0.0

    def forward(self, batch, *args, **kwargs):
        result = super().forward(batch)
        return result._replace(pred_score=result.pred_score + self.offset)

    def __setstate__(self, state):
        super().__setstate__({**state, "offset": 0.01})


def test_file_that_differs_is_refused_and_the_image_named(checkpoint, tmp_path):
    model = _Wrong.load_from_checkpoint(checkpoint)
    message = r"model\.pt in cpu does not predict .* image '.*good/00\d\.png' in a batch of 1"
    with pytest.raises(ExportVerificationError, match=message):
        model.to_torch(tmp_path)


def test_verification_can_be_switched_off(loaded, tmp_path, monkeypatch, capsys):
    loaded.to_torch(tmp_path, verify=False)
    monkeypatch.setenv("ANOMALIB_LOGIC_VERIFY_EXPORT", "0")
    loaded.to_torch(tmp_path)
    assert "largest difference" not in capsys.readouterr().out


def test_without_real_images_generated_ones_are_used_and_that_is_said(tmp_path, capsys):
    small = {k.removeprefix("--model."): v for k, v in (a.split("=") for a in SMALL_MODEL[:1])}
    model = Glcf(**small, pre_trained=False, image_size=(64, 96), width=48, depth=1, heads=4)
    model.to_torch(tmp_path)
    assert "verifying with generated images" in capsys.readouterr().out


def test_quantisation_without_images_says_what_to_give(loaded, tmp_path):
    with pytest.raises(ValueError, match="need images to calibrate with: give a data module"):
        loaded.to_openvino(tmp_path, compression_type="int8_ptq")


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["fp16", "int8", "int8_ptq"])
def test_compressed_file_is_smaller_and_its_auroc_is_printed(compression, checkpoint, exports, loco, workspace, capsys):
    data = ["--data=MVTecLoco", f"--data.root={loco}", "--data.category=squares", "--data.num_workers=0"]
    export("openvino", checkpoint, workspace, f"--compression_type={compression.upper()}", *data)
    weights = [root / "weights/openvino/model.bin" for root in (workspace, exports)]
    assert weights[0].stat().st_size < 0.6 * weights[1].stat().st_size
    printed = capsys.readouterr().out
    assert "image AUROC on 7 test images" in printed
    if compression == "int8_ptq":
        assert "int8: " in printed


@pytest.mark.slow
def test_quantisation_with_accuracy_control_keeps_the_metric(checkpoint, loco, tmp_path, monkeypatch):
    from anomalib.metrics import AUROC

    model = Glcf.load_from_checkpoint(checkpoint)
    data = MVTecLoco(root=loco, category="squares", num_workers=0)
    metric = AUROC(fields=["pred_score", "gt_label"])
    path = Engine(accelerator="cpu").export(
        model, "openvino", tmp_path, compression_type="int8_acq", datamodule=data, metric=metric, max_drop=0.1
    )
    assert open_exported(path)(np.zeros((1, 3, 64, 96), np.float32))["pred_score"].shape == (1,)

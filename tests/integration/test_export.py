# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Each export type starts from a loaded checkpoint and gives the checkpoint's scores."""

import numpy as np
import pytest
import torch

from anomalib_logic import Glcf


@pytest.fixture
def loaded(checkpoint) -> Glcf:
    return Glcf.load_from_checkpoint(checkpoint).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 80, 100, generator=torch.Generator().manual_seed(0))


def test_torch_file_gives_equal_scores(loaded, images, tmp_path):
    path = loaded.to_torch(tmp_path)
    exported = torch.load(path, weights_only=False)["model"].eval()
    with torch.no_grad():
        assert torch.equal(exported(images).pred_score, loaded(images).pred_score)


def test_onnx_and_openvino_files_give_the_same_scores_and_maps(loaded, images, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    openvino = pytest.importorskip("openvino")
    with torch.no_grad():
        expected = loaded(images)
    session = onnxruntime.InferenceSession(str(loaded.to_onnx(tmp_path)), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    onnx = dict(zip(names, session.run(None, {session.get_inputs()[0].name: images.numpy()}), strict=True))
    compiled = openvino.Core().compile_model(loaded.to_openvino(tmp_path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled(images.numpy())
    for result in (onnx, {name: results[name] for name in names}):
        np.testing.assert_allclose(result["pred_score"].ravel(), expected.pred_score.numpy().ravel(), atol=1e-3)
        np.testing.assert_allclose(result["anomaly_map"], expected.anomaly_map.numpy(), atol=1e-2)

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Reduced models predict the same in the engine, ONNX Runtime and OpenVINO, alone and in batches of any size."""

import numpy as np
import pytest
import torch
from anomalib.engine import Engine

from anomalib_logic import Glcf, Lgfdr, MVTecLoco, SamLad
from anomalib_logic.export import EngineRunner, OnnxRunner, OpenVINORunner, TorchRunner, verify
from anomalib_logic.export.images import splits_of, spread
from anomalib_logic.models.sam_lad import segment_anything
from tests.unit.export.test_runners import assert_threads_are_answered

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

SIZE = {"pre_trained": False, "image_size": (64, 96)}
GLCF = {**SIZE, "width": 24, "depth": 1, "heads": 2, "max_epochs": 1, "decoder_depths": (1, 0, 0, 0)}
SAM_LAD = {**SIZE, "backbone": "test_efficientnet", "scene_size": 16, "object_size": 8}
SAM_LAD |= {"k": 3, "max_objects": 4}  # the graph grows with both
TINY = {"embed_dim": 32, "depth": 2, "num_heads": 2, "global_attn_indexes": (1,)}


def glcf_swin() -> Glcf:
    return Glcf("swin_tiny_patch4_window7_224", backbone_args={"depths": (1, 1, 2, 1), "embed_dim": 24}, **GLCF)


def glcf_mobilenet() -> Glcf:
    return Glcf("mobilenetv2_035", decoder_widths=(8, 8, 16, 16), **GLCF)


def lgfdr() -> Lgfdr:
    networks = {"width": 32, "local_depth": 1, "bottleneck": 8, "global_depth": 1}
    return Lgfdr("mobilenetv2_035", networks=networks, max_epochs=1, **SIZE)


def sam_lad_cluster() -> SamLad:
    return SamLad(objects="cluster", **SAM_LAD)


def sam_lad_segment_anything() -> SamLad:
    model = SamLad(objects="sam_vit_b", sam_size=64, sam_points=4, **SAM_LAD)
    # Random weights predict no certain mask.
    model.model.encoder.objects.iou_threshold, model.model.encoder.objects.stability_threshold = -1e3, 0.0
    return model


MODELS = [
    pytest.param(glcf_swin, marks=pytest.mark.slow),
    pytest.param(glcf_mobilenet, marks=pytest.mark.slow),
    pytest.param(lgfdr, marks=pytest.mark.slow),
    sam_lad_cluster,
    pytest.param(sam_lad_segment_anything, marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=MODELS, ids=lambda create: create.__name__)
def trained(request, loco, tmp_path_factory):
    """A model that went through training, its ONNX file, which was verified, and images of all kinds."""
    root = tmp_path_factory.mktemp("parity")
    data = MVTecLoco(loco, "squares", train_batch_size=4, num_workers=0, val_split_mode="same_as_test")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(segment_anything.ENCODERS, "vit_b", TINY)
        patch.setattr(segment_anything, "SUPPRESSION_STEPS", 4)  # like the iterations, each is unrolled into the graph
        torch.manual_seed(0)
        model = request.param()
        if isinstance(model, SamLad):
            model.model.matching.iterations = 3
        Engine(default_root_dir=root, accelerator="cpu", enable_progress_bar=False).fit(model, datamodule=data)
        images = list(spread(splits_of(data, "test"), 4))
        yield model.eval(), model.to_onnx(root), images


@pytest.mark.parametrize("runtime", [OnnxRunner, OpenVINORunner], ids=["onnxruntime", "openvino"])
def test_predictions_are_the_engines_within_the_tolerance_at_batch_1_and_4(trained, runtime):
    model, path, images = trained
    rows = verify(EngineRunner(model), runtime(path), images, batches=(1, 4))
    assert [row.batch for row in rows] == [1, 4]
    assert not any(row.clamped for row in rows)


def test_images_of_any_size_are_taken(trained):
    model, path, images = trained
    verify(EngineRunner(model), OnnxRunner(path), images, batches=(2,), size=(80, 72))


@pytest.mark.parametrize("kind", [EngineRunner, TorchRunner, OnnxRunner, OpenVINORunner])
def test_runner_answers_many_threads_as_it_answers_one(trained, kind):
    model, path, _ = trained
    runner = kind(model if kind in (EngineRunner, TorchRunner) else path)
    assert_threads_are_answered(runner, [(64, 96), (80, 72), (50, 60), (100, 96)])


def test_graph_has_scores_labels_maps_and_masks(trained):
    _, path, images = trained
    predictions = OnnxRunner(path)(images[0].image[None].numpy())
    assert {name: value.dtype.name for name, value in predictions.items()} == {
        "pred_score": "float32",
        "pred_label": "bool",
        "anomaly_map": "float32",
        "pred_mask": "bool",
    }
    threshold = 0.5
    assert np.array_equal(predictions["pred_label"], predictions["pred_score"] > threshold)
    assert np.array_equal(predictions["pred_mask"], predictions["anomaly_map"] > threshold)


def test_weights_lie_beside_the_onnx_file_so_that_they_may_exceed_two_gigabytes(trained):
    onnx = pytest.importorskip("onnx")
    _, path, _ = trained
    large = [t for t in onnx.load(path, load_external_data=False).graph.initializer if np.prod(t.dims) > 4096]
    assert large
    assert all(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in large)
    assert path.with_name("model.onnx.data").stat().st_size > 4 * 4096


def test_bank_is_in_the_file_in_half_precision(trained):
    onnx = pytest.importorskip("onnx")
    model, path, _ = trained
    if not isinstance(model, SamLad):
        pytest.skip("has no bank")
    tensors = {(tuple(t.dims), t.data_type) for t in onnx.load(path, load_external_data=False).graph.initializer}
    for field in (model.model.bank.crops, model.model.bank.windows):
        assert (tuple(field.shape), onnx.TensorProto.FLOAT16) in tensors
        assert (tuple(field.shape), onnx.TensorProto.FLOAT) not in tensors

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import copy
import pickle

import numpy as np
import pytest
import torch
from anomalib.pre_processing import PreProcessor
from torch import nn
from torchvision.transforms.v2 import CenterCrop, Compose, Normalize, Resize

from anomalib_logic import Glcf
from anomalib_logic.export.runners import openvino_core
from anomalib_logic.models.components.pre_processing import (
    AntialiasedResize,
    check_exportable,
    engine_resize,
    make_exact,
)

SIZES = [(64, 96), (65, 95), (20, 33), (500, 700), (500, 30), (33, 801), (1, 7), (64, 500)]
FLOAT_POSITIONS = 3e-5  # of torch: its positions are in single precision


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_resize_is_torchvisions_in_double_precision_for_every_relation_of_sizes(size, interpolation):
    images = torch.rand(2, 3, *size)
    expected = Resize((64, 96), interpolation, antialias=True)(images.double()).float()
    found = AntialiasedResize((64, 96), interpolation)(images)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("size", [(224, 224), (7, 5), (129, 255)], ids=str)
def test_resize_to_any_size_is_torchvisions_in_single_precision(size):
    images = torch.rand(1, 3, 225, 300)
    expected = Resize(size, antialias=True)(images)
    torch.testing.assert_close(AntialiasedResize(size)(images), expected, atol=FLOAT_POSITIONS, rtol=0)


def test_image_of_the_right_size_is_not_changed():
    images = torch.rand(1, 3, 64, 96)
    assert torch.equal(AntialiasedResize((64, 96))(images), images)


def test_single_image_is_resized_too():
    image = torch.rand(3, 9, 11)
    expected = Resize((4, 5), antialias=True)(image)
    torch.testing.assert_close(AntialiasedResize((4, 5))(image), expected, atol=FLOAT_POSITIONS, rtol=0)


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """ONNX file of a resize from any size to 64 x 96."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    path = tmp_path_factory.mktemp("resize") / "resize.onnx"
    dynamic = ({0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},)
    torch.onnx.export(
        AntialiasedResize((64, 96)),
        (torch.rand(2, 3, 80, 90),),
        path,
        dynamo=True,
        dynamic_shapes=dynamic,
        verbose=False,
    )
    return path


def onnx_runtime(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    return lambda images: session.run(None, {session.get_inputs()[0].name: images})[0]


def openvino(path):
    compiled = openvino_core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: compiled(images)[0]


@pytest.mark.parametrize("runtime", [onnx_runtime, openvino])
def test_graph_resizes_images_of_any_size_as_the_engine_does(graph, runtime):
    run = runtime(graph)
    for size in SIZES:
        images = torch.rand(2, 3, *size)
        expected = Resize((64, 96), antialias=True)(images)
        np.testing.assert_allclose(run(images.numpy()), expected.numpy(), atol=FLOAT_POSITIONS)


def pre_processor(*transforms) -> PreProcessor:
    result = PreProcessor(Compose(list(transforms)))
    make_exact(result)
    return result


def same(processor: PreProcessor, size=(150, 170)) -> bool:
    images = torch.rand(1, 3, *size)
    return torch.allclose(processor(images), processor.transform(images), atol=FLOAT_POSITIONS)


@pytest.mark.parametrize(
    "transforms",
    [
        [Resize((64, 96), antialias=True), Normalize([0.5] * 3, [0.2] * 3)],
        [Compose([Resize((64, 96), antialias=True)]), Compose([Normalize([0.5] * 3, [0.2] * 3)])],
        [Resize((64, 96), antialias=True), CenterCrop((32, 40))],
        [Resize((64, 96), antialias=False)],
        [Resize((64, 96), "bicubic", antialias=True)],
        [Resize((64, 96), "nearest")],
        [Resize(64, antialias=True)],
        [Resize(None, max_size=50, antialias=True)],
    ],
    ids=["default", "nested", "crop", "not antialiased", "bicubic", "nearest", "short side", "long side"],
)
def test_forward_computes_what_the_engine_does_whatever_the_transforms(transforms):
    assert same(pre_processor(*transforms))


def test_anomalibs_own_forward_computes_something_else():
    assert not same(PreProcessor(Compose([Resize((64, 96), antialias=True)])))


def test_pre_processor_that_is_restored_from_a_checkpoint_stays_exact(small):
    model = Glcf(**small, pre_processor=PreProcessor(Compose([Resize((64, 64), antialias=True)])))
    config = PreProcessor(Compose([Resize((64, 96), antialias=True)])).checkpoint_config()
    hyper_parameters = dict(model.hparams)
    model.on_load_checkpoint({"hyper_parameters": hyper_parameters, "anomalib_pre_processor_config": config})
    assert model.engine_size == (64, 96)
    assert same(model.pre_processor)


def test_any_pre_processor_that_a_model_is_given_becomes_exact(small):
    model = Glcf(**small)
    for value in (None, nn.Identity()):
        model.pre_processor = value
        assert model.engine_size is None
    model.pre_processor = PreProcessor(Compose([Resize((64, 96), antialias=True)]))
    assert same(model.pre_processor)


def test_exact_pre_processor_can_be_copied_and_pickled():
    processor = pre_processor(Resize((64, 96), antialias=True))
    for other in (copy.deepcopy(processor), pickle.loads(pickle.dumps(processor))):
        assert same(other)


def test_resize_that_keeps_the_aspect_ratio_is_refused_for_graphs():
    with pytest.raises(ValueError, match=r"cannot resize as .*Resize\(size=\[64\].* give Resize a height and a width"):
        check_exportable(pre_processor(Resize(64, antialias=True)))


@pytest.mark.parametrize("resize", [Resize((64, 96), antialias=True), Resize(64, antialias=False)], ids=str)
def test_other_transforms_are_not_refused(resize):
    check_exportable(pre_processor(resize))
    check_exportable(None)


def test_engines_size_is_known_only_where_the_image_is_first_resized_and_bilinear():
    assert engine_resize(pre_processor(Resize((64, 96), antialias=True), CenterCrop((32, 40)))) == (64, 96)
    assert engine_resize(pre_processor(CenterCrop((32, 40)), Resize((64, 96), antialias=True))) is None
    assert engine_resize(pre_processor(Resize((64, 96), "bicubic", antialias=True))) is None

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from anomalib_logic.export.runners import openvino_core
from anomalib_logic.models.components.upsampling import (
    JbuUpsampler,
    average_pool,
    load_jbu_upsampler,
    pick,
)

CHANNELS = 6


@pytest.fixture
def checkpoint():
    """What FeatUp publishes, in small: its key names and shapes, with other parts of its training beside them."""
    generator = torch.Generator().manual_seed(0)

    def values(*shape):
        return 0.3 * torch.randn(shape, generator=generator)

    state = {}
    for stage in range(1, 5):
        state |= {
            f"upsampler.up{stage}.range_temp": values(),
            f"upsampler.up{stage}.sigma_spatial": 1 + values(),
            f"upsampler.up{stage}.range_proj.0.weight": values(32, 3, 1, 1),
            f"upsampler.up{stage}.range_proj.0.bias": values(32),
            f"upsampler.up{stage}.range_proj.3.weight": values(32, 32, 1, 1),
            f"upsampler.up{stage}.range_proj.3.bias": values(32),
            f"upsampler.up{stage}.fixup_proj.0.weight": values(49, 52, 1, 1),
            f"upsampler.up{stage}.fixup_proj.0.bias": values(49),
            f"upsampler.up{stage}.fixup_proj.3.weight": values(49, 49, 1, 1),
            f"upsampler.up{stage}.fixup_proj.3.bias": values(49),
        }
    state["upsampler.fixup_proj.1.weight"] = values(CHANNELS, CHANNELS, 1, 1)
    state["upsampler.fixup_proj.1.bias"] = values(CHANNELS)
    state["downsampler.blur.weight"] = values(3)
    state["upsampler.scale_net.0.weight"] = values(3)
    return state


@pytest.fixture
def path(checkpoint, tmp_path):
    torch.save({"state_dict": checkpoint, "epoch": 1}, tmp_path / "featup.ckpt")
    return tmp_path / "featup.ckpt"


def reflected(index: int, length: int) -> int:
    index = abs(index)
    return index if index < length else 2 * (length - 1) - index


def slow_stage(source, guidance, state, stage):
    """FeatUp's stage position by position, from its definition."""
    weights = {k.split(f"up{stage}.")[1]: v for k, v in state.items() if f"up{stage}." in k}

    def linear(x, name):
        return weights[f"{name}.weight"][:, :, 0, 0] @ x + weights[f"{name}.bias"]

    def key(y, x):
        return linear(F.gelu(linear(guidance[:, y, x], "range_proj.0")), "range_proj.3")

    _, height, width = guidance.shape
    keys = torch.stack([torch.stack([key(y, x) for x in range(width)]) for y in range(height)])
    resized = F.interpolate(source[None], (height, width), mode="bicubic", align_corners=False)[0]
    temperature = min(max(math.exp(weights["range_temp"]), 1e-4), 1e4)
    result = torch.zeros_like(resized)
    for y in range(height):
        for x in range(width):
            places = [(y + dy, x + dx) for dy in range(-3, 4) for dx in range(-3, 4)]
            places = [(reflected(a, height), reflected(b, width)) for a, b in places]
            kernel = torch.softmax(temperature * torch.stack([keys[a, b] @ keys[y, x] for a, b in places]), dim=0)
            offsets = [((i // 7 - 3) / 3, (i % 7 - 3) / 3) for i in range(49)]
            spatial = torch.tensor([-(u * u + v * v) for u, v in offsets]) / (2 * weights["sigma_spatial"] ** 2)
            kernel = kernel * spatial.exp()
            kernel = kernel / kernel.sum().clamp_min(1e-7)
            inputs = torch.cat([kernel, guidance[:, y, x]])
            kernel = kernel + 0.1 * linear(F.gelu(linear(inputs, "fixup_proj.0")), "fixup_proj.3")
            result[:, y, x] = sum(k * resized[:, a, b] for k, (a, b) in zip(kernel, places, strict=True))
    return result


@pytest.mark.parametrize(("factor", "size"), [(2, (40, 50)), (4, (40, 50)), (2, (6, 7))])
def test_upsampler_equals_the_slow_reference(path, checkpoint, factor, size):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(1, CHANNELS, 4, 5, generator=generator)
    images = torch.randn(1, 3, *size, generator=generator)
    expected = features[0]
    for stage in range(1, round(math.log2(factor)) + 1):
        grid = (4 * 2**stage, 5 * 2**stage)
        expected = slow_stage(expected, F.adaptive_avg_pool2d(images, grid)[0], checkpoint, stage)
    fixup = checkpoint["upsampler.fixup_proj.1.weight"], checkpoint["upsampler.fixup_proj.1.bias"]
    expected = expected + 0.1 * F.conv2d(expected[None], *fixup)[0]
    result = load_jbu_upsampler(path, CHANNELS, factor)(features, images)
    torch.testing.assert_close(result[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("factor", "stages"),
    [(1, []), (2, [1]), (4, [1, 2]), (8, [1, 2, 3]), (16, [1, 2, 3, 4]), (32, [1, 2, 3, 4, 4])],
)
def test_every_factor_gives_its_size_by_as_many_stages(checkpoint, tmp_path, factor, stages):
    """Kernels whose sums differ from stage to stage: what a constant map is multiplied by tells the stages."""
    for stage in range(1, 5):
        checkpoint[f"upsampler.up{stage}.fixup_proj.3.weight"].zero_()
        checkpoint[f"upsampler.up{stage}.fixup_proj.3.bias"].fill_(stage / 10)
    checkpoint["upsampler.fixup_proj.1.weight"].zero_()
    checkpoint["upsampler.fixup_proj.1.bias"].zero_()
    torch.save({"state_dict": checkpoint}, tmp_path / "sums.ckpt")
    upsampler = load_jbu_upsampler(tmp_path / "sums.ckpt", CHANNELS, factor)
    result = upsampler(torch.full((1, CHANNELS, 4, 4), 2.0), torch.randn(1, 3, 56, 56))
    expected = 2.0 * math.prod(1 + 49 * 0.1 * stage / 10 for stage in stages)
    torch.testing.assert_close(result, torch.full((1, CHANNELS, 4 * factor, 4 * factor), expected))


def test_variant_with_a_norm_applies_it_first(checkpoint, tmp_path):
    norm = nn.LayerNorm(CHANNELS)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    checkpoint |= {"model.1.norm.weight": norm.weight.detach(), "model.1.norm.bias": norm.bias.detach()}
    torch.save({"state_dict": checkpoint}, tmp_path / "norm.ckpt")
    features, images = 5 * torch.randn(1, CHANNELS, 4, 4), torch.randn(1, 3, 56, 56)
    result = load_jbu_upsampler(tmp_path / "norm.ckpt", CHANNELS, 2)(features, images)
    plain = {k: v for k, v in checkpoint.items() if not k.startswith("model.")}
    torch.save({"state_dict": plain}, tmp_path / "plain.ckpt")
    normed = norm(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    expected = load_jbu_upsampler(tmp_path / "plain.ckpt", CHANNELS, 2)(normed, images)
    torch.testing.assert_close(result, expected)


class LargestTensor(TorchDispatchMode):
    """Remember the size of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.numel())
        return result


def test_no_tensor_is_larger_than_the_padded_result():
    channels = 128
    upsampler = JbuUpsampler(channels, 8)
    with torch.no_grad(), LargestTensor() as largest:
        upsampler(torch.randn(1, channels, 8, 8), torch.randn(1, 3, 112, 112))
    assert largest.elements <= channels * (64 + 6) ** 2


@pytest.mark.parametrize("size", [(7, 9), (16, 10), (40, 50), (64, 128)])
def test_average_pool_is_adaptive_average_pooling(size):
    images = torch.randn(2, 3, 100, 130)
    torch.testing.assert_close(average_pool(images, size), F.adaptive_avg_pool2d(images, size), rtol=1e-4, atol=1e-5)


class Picked(nn.Module):
    """Labels resized to several sizes, where runtimes round the positions of nearest neighbours differently."""

    SIZES = ((16, 16), (24, 48), (32, 32), (48, 16), (112, 224), (300, 120))

    def forward(self, labels):
        return tuple(pick(labels, size) for size in self.SIZES)


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime", "openvino"])
def test_labels_are_picked_at_the_same_positions_everywhere(runtime, tmp_path):
    labels = torch.randint(0, 48, (2, 4, 112, 168), generator=torch.Generator().manual_seed(0))
    model, file = Picked().eval(), tmp_path / "model.onnx"
    if runtime != "torch":
        pytest.importorskip(runtime)
        torch.onnx.export(
            model, (labels,), file, dynamo=True, verbose=False, dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
        )
    if runtime == "onnxruntime":
        import onnxruntime

        found = onnxruntime.InferenceSession(file).run(None, {"labels": labels.numpy()})
    elif runtime == "openvino":
        found = openvino_core().compile_model(file, "CPU")(labels.numpy()).values()
    else:
        found = model(labels)
    for picked, (height, width) in zip(found, Picked.SIZES, strict=True):
        rows, columns = np.arange(height) * 112 // height, np.arange(width) * 168 // width
        assert np.array_equal(picked, labels.numpy()[:, :, rows][..., columns])


def test_checkpoint_of_another_backbone_is_refused_by_its_channels(path):
    with pytest.raises(ValueError, match="it is for 6 channels, the backbone has 384"):
        load_jbu_upsampler(path, 384, 8)


def test_other_file_is_refused(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="is not FeatUp's JBU stack: it lacks"):
        load_jbu_upsampler(tmp_path / "other.pth", CHANNELS, 8)


def test_other_factor_is_refused():
    with pytest.raises(ValueError, match=r"upsample must be one of \(1, 2, 4, 8, 16, 32\), got 3"):
        JbuUpsampler(CHANNELS, 3)


def test_pooling_that_is_scaled_by_channel_compiles_in_openvino_in_half_precision(tmp_path):
    openvino = pytest.importorskip("openvino")

    class PooledAndScaled(nn.Module):
        def forward(self, x):
            return average_pool(x, (14, 14)) * torch.arange(1.0, 25.0).view(1, 24, 1, 1)

    x = torch.rand(2, 24, 56, 56, generator=torch.Generator().manual_seed(0))
    model, file = PooledAndScaled().eval(), tmp_path / "model.onnx"
    torch.onnx.export(model, (x,), file, dynamo=True, verbose=False, dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    openvino.save_model(openvino.convert_model(file), tmp_path / "model.xml", compress_to_fp16=True)
    compiled = openvino_core().compile_model(tmp_path / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    torch.testing.assert_close(torch.from_numpy(compiled(x.numpy())[0]), model(x), atol=1e-2, rtol=1e-2)

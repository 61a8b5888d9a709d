# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import onnxruntime
import pytest
import timm
import torch
from torch.nn import functional as F

from anomalib_logic.models.components.patch_features import PatchFeatures

TINY_VIT = "vit_tiny_patch16_224"


def test_transformer_gives_its_normed_patch_tokens():
    features = PatchFeatures(TINY_VIT, pre_trained=False, image_size=(64, 96))
    images = torch.randn(2, 3, 64, 96)
    (result,) = features(images)
    tokens = features.network.forward_features(images)[:, 1:]
    assert result.shape == (2, 192, 4, 6)
    torch.testing.assert_close(result[1, :, 2, 3], tokens[1, 2 * 6 + 3])


def test_transformers_local_file_of_another_image_size_fits(tmp_path):
    network = timm.create_model(TINY_VIT, num_classes=5)
    torch.save(network.state_dict(), tmp_path / "vit.pth")
    features = PatchFeatures(TINY_VIT, weights=tmp_path / "vit.pth", image_size=(64, 96))
    assert torch.equal(features.network.blocks[3].attn.qkv.weight, network.blocks[3].attn.qkv.weight)
    assert features.network.pos_embed.shape == (1, 25, 192)


def test_pyramid_gives_three_averaged_scales():
    features = PatchFeatures("mobilenetv2_035", pre_trained=False, image_size=(64, 96))
    images = torch.randn(1, 3, 64, 96)
    maps = features(images)
    assert [m.shape[2:] for m in maps] == [(16, 24), (8, 12), (4, 6)]
    plain = features.network(images)[1]
    torch.testing.assert_close(maps[1][..., 1:-1, 1:-1], F.avg_pool2d(plain, 3, stride=1))


TINY = {"depth": 1, "embed_dim": 32, "num_heads": 2}


@pytest.mark.parametrize(
    ("backbone", "patch"),
    [
        ("vit_small_patch16_dinov3", 16),
        ("vit_small_patch14_reg4_dinov2", 14),
        ("vit_base_patch16_siglip_224", 16),
        ("eva02_tiny_patch14_224", 14),
        ("vit_small_patch16_rope_224", 16),
        ("beit_base_patch16_224", 16),
        ("deit3_small_patch16_224", 16),
        ("deit_tiny_distilled_patch16_224", 16),
        ("vit_relpos_small_patch16_224", 16),
        ("vit_base_r50_s16_224", 16),
    ],
)
def test_any_vision_transformer_gives_its_patch_tokens_as_a_map(backbone, patch):
    size = (4 * patch, 6 * patch)
    features = PatchFeatures(backbone, pre_trained=False, image_size=size, backbone_args=TINY)
    images = torch.randn(2, 3, *size)
    (result,) = features(images)
    with torch.no_grad():
        tokens = features.network.forward_features(images)[:, features.network.num_prefix_tokens :]
    assert result.shape == (2, *features.channels, *features.grid) == (2, 32, 4, 6)
    torch.testing.assert_close(result.flatten(2).transpose(1, 2), tokens)


@pytest.mark.parametrize(
    "backbone",
    [
        "vit_small_patch16_dinov3",
        "beit_base_patch16_224",
        pytest.param("vit_tiny_patch16_224", marks=pytest.mark.slow),  # the others have its operations and more
    ],
)
def test_transformer_gives_the_same_map_in_onnx_for_any_batch(tmp_path, backbone):
    torch.manual_seed(0)
    features = PatchFeatures(backbone, pre_trained=False, image_size=(64, 96), backbone_args=TINY)
    batch = {"images": {0: torch.export.Dim("batch")}}
    file = tmp_path / "features.onnx"
    torch.onnx.export(features, (torch.randn(2, 3, 64, 96),), file, dynamo=True, dynamic_shapes=batch, verbose=False)
    images = torch.randn(3, 3, 64, 96)
    session = onnxruntime.InferenceSession(file)
    (result,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    torch.testing.assert_close(torch.from_numpy(result), features(images)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backbone", ["vit_small_patch16_dinov3", "resnet18"])
def test_backbone_of_a_local_directory_is_built_and_loaded(tmp_path, backbone):
    arguments = TINY if "vit" in backbone else {}
    network = timm.create_model(backbone, **arguments)
    timm.models.save_for_hf(network, tmp_path, model_args=arguments, safe_serialization=True)
    features = PatchFeatures(f"local-dir:{tmp_path}", image_size=(64, 96))
    same = PatchFeatures(backbone, weights=tmp_path / "model.safetensors", image_size=(64, 96), backbone_args=arguments)
    images = torch.randn(1, 3, 64, 96)
    torch.testing.assert_close(features(images), same(images), rtol=0, atol=0)


def test_transformer_without_a_map_at_the_image_size_is_refused_with_those_that_have_one():
    with pytest.raises(ValueError, match=r"'convit_tiny' gives no map of its last patch tokens.*dinov3"):
        PatchFeatures("convit_tiny", pre_trained=False, image_size=(64, 96))


@pytest.mark.parametrize("backbone", ["pit_ti_224", "levit_128s"])
def test_backbone_with_neither_tokens_nor_the_strides_is_refused_with_its_strides(backbone):
    with pytest.raises(ValueError, match=r"has feature maps at strides \(.*but strides \(4, 8, 16\) are needed"):
        PatchFeatures(backbone, pre_trained=False, image_size=(224, 224))


@pytest.mark.parametrize(
    ("backbone", "size", "nearest"),
    [("vit_small_patch14_dinov2", (224, 230), "(224, 224)"), ("mobilenetv2_035", (100, 64), "(96, 64)")],
)
def test_image_size_that_the_patches_do_not_divide_is_refused(backbone, size, nearest):
    with pytest.raises(ValueError, match=r"image_size must be multiples of .* the nearest is") as error:
        PatchFeatures(backbone, pre_trained=False, image_size=size)
    assert nearest in str(error.value)

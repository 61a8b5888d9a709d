# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

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


@pytest.mark.parametrize(
    ("backbone", "size", "nearest"),
    [("vit_small_patch14_dinov2", (224, 230), "(224, 224)"), ("mobilenetv2_035", (100, 64), "(96, 64)")],
)
def test_image_size_that_the_patches_do_not_divide_is_refused(backbone, size, nearest):
    with pytest.raises(ValueError, match=r"image_size must be multiples of .* the nearest is") as error:
        PatchFeatures(backbone, pre_trained=False, image_size=size)
    assert nearest in str(error.value)

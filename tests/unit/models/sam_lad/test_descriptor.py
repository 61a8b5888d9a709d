# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

from typing import get_args

import pytest
import torch
from torch.nn import functional as F

from anomalib_logic.models.sam_lad.descriptor import Descriptor, ObjectDescriptor


@pytest.fixture
def objects():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 4, 6, 5, 5, generator=generator)
    masks = (torch.rand(2, 4, 5, 5, generator=generator) > 0.4).float()
    valid = torch.tensor([[True, True, True, False], [True, True, True, True]])
    return features, masks * valid[..., None, None], valid


def test_gap_is_the_mean_over_the_object(objects):
    features, masks, valid = objects
    expected = features[1, 2][:, masks[1, 2] > 0].mean(dim=1)
    result = ObjectDescriptor(6, "gap")(features, masks, valid)[1, 2]
    torch.testing.assert_close(result, F.normalize(expected, dim=0))


def test_gmp_is_the_maximum_over_the_object(objects):
    features, masks, valid = objects
    expected = features[1, 2][:, masks[1, 2] > 0].amax(dim=1)
    result = ObjectDescriptor(6, "gmp")(features, masks, valid)[1, 2]
    torch.testing.assert_close(result, F.normalize(expected, dim=0))


def test_literal_dcga_is_equation_8_for_one_image(objects):
    features, masks, valid = objects
    f = torch.stack([features[1, m][:, masks[1, m] > 0].amax(dim=1) for m in range(4)])
    adjacency = torch.zeros(4, 4)
    for i in range(4):
        for j in range(4):
            if i != j:
                adjacency[i, j] = F.cosine_similarity(f[i], f[j], dim=0).clamp_min(0)
    adjacency = adjacency / adjacency.sum(dim=1, keepdim=True)
    attention = torch.stack([torch.diag(torch.softmax(row, dim=0)) for row in f])
    graph = torch.stack([row @ a for row, a in zip(f, attention, strict=True)]) * 6
    expected = adjacency @ torch.sigmoid(f * graph)
    result = ObjectDescriptor(6, "dcga_literal")(features, masks, valid)[1]
    torch.testing.assert_close(result, F.normalize(expected, dim=1))


def test_dcga_holds_the_object_itself_and_to_the_letter_it_does_not():
    features = torch.rand(1, 2, 6, 5, 5, generator=torch.Generator().manual_seed(0))
    masks, valid = torch.ones(1, 2, 5, 5), torch.ones(1, 2, dtype=torch.bool)
    changed = features.clone()
    changed[0, 0, 0] += 2  # the first of two objects, whose only other one has all the weight

    def difference(method):
        first, second = (ObjectDescriptor(6, method)(x, masks, valid)[0, 0] for x in (features, changed))
        return (first - second).abs().max()

    assert difference("dcga_literal") < 1e-5
    assert difference("dcga") > 1e-2


@pytest.mark.parametrize("method", get_args(Descriptor))
def test_empty_slots_are_zero_and_do_not_touch_the_others(objects, method):
    features, masks, valid = objects
    descriptor = ObjectDescriptor(6, method)
    result = descriptor(features, masks, valid)
    alone = descriptor(features[:1, :3], masks[:1, :3], valid[:1, :3])
    assert result[0, 3].abs().max() == 0
    torch.testing.assert_close(result[:1, :3], alone)
    torch.testing.assert_close(result[valid].norm(dim=-1), torch.ones(7))


def test_unknown_method_is_refused_by_name():
    with pytest.raises(ValueError, match="descriptor must be one of"):
        ObjectDescriptor(6, "mean")

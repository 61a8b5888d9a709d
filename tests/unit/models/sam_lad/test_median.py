# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

from anomalib_logic.models.sam_lad.median import lower_median


@pytest.mark.parametrize("number", [1, 2, 5, 8])
def test_median_is_torchs(number):
    values = torch.randn(number, 3, 4)
    assert torch.equal(lower_median(values), values.median(dim=0).values)

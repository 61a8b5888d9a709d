# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

from anomalib_logic.models.sam_lad.whitening import inverse_power


@pytest.mark.parametrize("shrinkage", [0.0, 0.1])
def test_half_of_the_inverse_gives_mahalanobis_distances(shrinkage):
    torch.manual_seed(0)
    points = torch.randn(500, 4).double() * torch.tensor([3.0, 1.0, 0.5, 0.1]) @ torch.randn(4, 4).double()
    moments = points.T @ points / len(points)
    shrunk = (1 - shrinkage) * moments / moments.diagonal().mean() + shrinkage * torch.eye(4)
    expected = torch.einsum("nc,cd,nd->n", points, torch.linalg.inv(shrunk), points).sqrt()
    torch.testing.assert_close((points @ inverse_power(moments, 1 / 2, shrinkage)).norm(dim=1), expected)


def test_a_quarter_twice_is_a_half():
    torch.manual_seed(0)
    points = torch.randn(50, 6)
    quarter, half = (inverse_power(points.T @ points, power, 0.1) for power in (1 / 4, 1 / 2))
    torch.testing.assert_close(quarter @ quarter, half)
    torch.testing.assert_close(quarter, quarter.T)


def test_where_nothing_varies_all_directions_count_the_same():
    assert torch.equal(inverse_power(torch.zeros(3, 3), 1 / 2, 0.25), 2 * torch.eye(3).double())

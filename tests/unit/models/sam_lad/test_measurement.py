# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

from anomalib_logic.models.sam_lad.measurement import mahalanobis


def by_definition(features, references, eps):
    """Equations 11 and 12 with the C x C inverse, for features (C, P) and references (k, C, P)."""
    distances = []
    for position in range(features.shape[1]):
        samples = references[:, :, position].double()
        centred = samples - samples.mean(dim=0)
        covariance = centred.T @ centred / max(1, len(samples) - 1)
        covariance += eps * torch.eye(features.shape[0], dtype=torch.float64)
        residual = features[:, position].double() - samples.mean(dim=0)
        distances.append((residual @ torch.linalg.inv(covariance) @ residual).sqrt())
    return torch.stack(distances).float()


@pytest.mark.parametrize("number", [1, 2, 3, 6])
@pytest.mark.parametrize("eps", [0.01, 1.0])
def test_woodbury_equals_the_definition(number, eps):
    generator = torch.Generator().manual_seed(number)
    features = torch.randn(2, 12, 5, generator=generator)
    references = torch.randn(2, number, 12, 5, generator=generator)
    result = mahalanobis(features, references, torch.ones(2, number), eps)
    expected = torch.stack([by_definition(features[i], references[i], eps) for i in range(2)])
    torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-3)


def test_reference_that_does_not_count_changes_nothing():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, 8, 4, generator=generator)
    references = torch.randn(1, 3, 8, 4, generator=generator)
    result = mahalanobis(features, references, torch.tensor([[1.0, 0.0, 1.0]]), 0.1)
    expected = mahalanobis(features, references[:, [0, 2]], torch.ones(1, 2), 0.1)
    torch.testing.assert_close(result, expected)

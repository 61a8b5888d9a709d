# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch

from anomalib_logic.models.glcf.loss import GlcfLoss

ONES = (1.0, 1.0, 1.0)
SHAPES = [(2, 3, 8, 8), (2, 5, 4, 4), (2, 7, 2, 2)]


@pytest.fixture
def maps():
    torch.manual_seed(0)
    return [[torch.randn(shape) for shape in SHAPES] for _ in range(4)]


def frobenius(first, second):
    """Squared Frobenius norm over H W C of each image, averaged over the batch (equation 1)."""
    per_image = [np.linalg.norm((a - b).ravel()) ** 2 / a.size for a, b in zip(first, second, strict=True)]
    return np.mean(per_image)


def cosine(first, second):
    return np.mean(
        [1 - a.ravel() @ b.ravel() / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(first, second, strict=True)]
    )


@pytest.mark.parametrize(("distance", "reference"), [("mse", frobenius), ("cosine", cosine)])
def test_terms_equal_an_independent_computation(maps, distance, reference):
    features, correspondence, local, global_ = [[m.double().numpy() for m in group] for group in maps]
    expected = {
        "loss_correspondence": sum(reference(g, f) for g, f in zip(correspondence, features, strict=True)),
        "loss_local": sum(reference(e, f) for e, f in zip(local, features, strict=True)),
        "loss_global": sum(reference(e, g) for e, g in zip(global_, correspondence, strict=True)),
    }
    terms = GlcfLoss(distance, ONES)(*maps)
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-5)
    assert terms["loss"].item() == pytest.approx(sum(expected.values()), rel=1e-5)


def test_weights_scale_the_terms(maps):
    plain, weighted = GlcfLoss("mse", ONES)(*maps), GlcfLoss("mse", (0.5, 2.0, 3.0))(*maps)
    expected = 0.5 * plain["loss_correspondence"] + 2 * plain["loss_local"] + 3 * plain["loss_global"]
    torch.testing.assert_close(weighted["loss"], expected)


def test_equal_maps_cost_nothing(maps):
    for distance in ("mse", "cosine"):
        assert GlcfLoss(distance, ONES)(maps[0], maps[0], maps[0], maps[0])["loss"].item() == pytest.approx(0, abs=1e-5)


def test_unknown_distance_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"distance must be one of \('mse', 'cosine'\), got 'l1'"):
        GlcfLoss("l1", ONES)


def test_network_that_does_not_run_has_no_term(maps):
    terms = GlcfLoss("mse", ONES)(maps[0], None, maps[2], None)
    assert set(terms) == {"loss", "loss_local"}
    assert terms["loss"].item() == pytest.approx(GlcfLoss("mse", ONES)(*maps)["loss_local"].item())

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from anomalib_logic.models.sam_lad import clustering, measurement
from anomalib_logic.models.sam_lad.clustering import assign, nearest_centroid, sample_features
from anomalib_logic.models.sam_lad.measurement import mahalanobis, nearest_distance, nearest_point


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


def nearest_case():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 5, 8, 30, generator=generator)
    return features, torch.randn(2, 5, 3, 8, 30, generator=generator), torch.tensor([1.0, 0.0, 1.0]).expand(2, 5, 3)


def test_nearest_distance_is_the_least_of_all_pairs_that_count():
    features, references, weights = nearest_case()
    pairs = torch.cdist(features.unsqueeze(2).transpose(-1, -2), references.transpose(-1, -2))
    expected = pairs[:, :, [0, 2]].amin(dim=(2, 4))
    torch.testing.assert_close(nearest_distance(features, references, weights), expected, rtol=1e-4, atol=1e-4)


def test_nearest_distance_holds_the_pairs_of_each_reference_once():
    features, references, weights = nearest_case()
    with Made() as made:
        nearest_distance(features, references, weights)
    pairs = 2 * 5 * 30 * 30
    assert [elements for elements in made.storages.values() if elements >= pairs] == [pairs] * 3


def test_reference_that_does_not_count_is_told_apart_in_half_precision():
    features, references, weights = nearest_case()
    references[:, :, 1] = features  # would be the nearest, at distance 0
    expected = nearest_distance(features, references, weights)
    result = nearest_distance(features.half(), references.half(), weights.half())
    torch.testing.assert_close(result.float(), expected, rtol=0.02, atol=0.05)


def test_distance_is_finite_where_no_reference_counts():
    features, references, weights = nearest_case()
    assert torch.isfinite(nearest_distance(features.half(), references.half(), torch.zeros_like(weights).half())).all()


@pytest.mark.parametrize("part", [7, 30, 1000])
def test_nearest_point_is_the_least_of_all_pairs_whatever_the_number_at_a_time(monkeypatch, part):
    monkeypatch.setattr(measurement, "PART", part)
    generator = torch.Generator().manual_seed(0)
    features, points = torch.randn(2, 8, 30, generator=generator), torch.randn(8, 11, generator=generator)
    expected = torch.cdist(features.transpose(1, 2), points.T).amin(dim=2)
    torch.testing.assert_close(nearest_point(features, points), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("part", [7, 1000])
def test_nearest_centroid_is_found_for_each_clustering(monkeypatch, part):
    monkeypatch.setattr(measurement, "PART", part)
    generator = torch.Generator().manual_seed(0)
    features, centroids = torch.randn(2, 8, 5, 6, generator=generator), torch.randn(3, 4, 8, generator=generator)
    result = nearest_centroid(features, centroids)
    distances = torch.cdist(features.flatten(2).transpose(1, 2).unsqueeze(1), centroids)
    assert torch.equal(result, distances.argmin(dim=3).unflatten(2, (5, 6)))


@pytest.mark.parametrize("part", [7, 1000])
def test_positions_are_assigned_to_the_nearest_centroid_and_softly_to_all(monkeypatch, part):
    monkeypatch.setattr(measurement, "PART", part)
    monkeypatch.setattr(clustering, "PART", part)
    generator = torch.Generator().manual_seed(0)
    features, centroids = torch.randn(2, 8, 5, 6, generator=generator), torch.randn(3, 4, 8, generator=generator)
    temperatures = torch.tensor([0.5, 2.0, 1e-3])
    nearest, shares = assign(features, centroids, temperatures)
    squared = torch.cdist(features.flatten(2).transpose(1, 2).unsqueeze(1), centroids).square()
    expected = (-squared / temperatures.view(3, 1, 1)).exp()
    expected = (expected / expected.sum(dim=3, keepdim=True)).unflatten(2, (5, 6))
    quarters = [
        expected[:, :, y, x].sum(dim=(2, 3)) / 30 for y in (slice(3), slice(3, 5)) for x in (slice(3), slice(3, 6))
    ]
    assert torch.equal(nearest, squared.argmin(dim=3).unflatten(2, (5, 6)))
    torch.testing.assert_close(shares[:, :, :2], torch.stack(quarters, dim=1)[:, :, :2])
    torch.testing.assert_close(shares.sum(dim=(1, 3)), torch.ones(2, 3))
    # At a low temperature shares are counts of the nearest.
    counts = torch.nn.functional.one_hot(nearest[:, 2].flatten(1), 4).float().mean(dim=1)
    torch.testing.assert_close(shares[:, :, 2].sum(dim=1), counts, rtol=0, atol=1e-2)


def test_sample_follows_the_weights_and_has_no_position_twice(monkeypatch):
    monkeypatch.setattr(clustering, "SAMPLE", 100)
    features = torch.arange(2 * 1000.0).view(2, 1, 25, 40)
    weights = torch.ones(2, 25, 40)
    weights[1] = 3
    weights[0, :5] = 0
    drawn = [sample_features(features, seed, weights).flatten() for seed in range(20)]
    assert all(len(one.unique()) == 100 for one in drawn)
    drawn = torch.cat(drawn)
    assert drawn.min() >= 200  # nothing of weight 0
    assert (drawn >= 1000).float().mean().item() == pytest.approx(3000 / 3800, abs=0.04)


def test_a_sample_without_any_weight_is_drawn_evenly(monkeypatch):
    monkeypatch.setattr(clustering, "SAMPLE", 100)
    features = torch.arange(1000.0).view(1, 1, 25, 40)
    drawn = torch.cat([sample_features(features, seed, torch.zeros(1, 25, 40)).flatten() for seed in range(20)])
    assert drawn.mean().item() == pytest.approx(500, abs=30)


class Made(TorchDispatchMode):
    """Remember the storages that operations make, and their size."""

    def __init__(self) -> None:
        super().__init__()
        self.storages, self.results = {}, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.results.append(result)  # so that no storage is used again
            self.storages[result.untyped_storage().data_ptr()] = result.untyped_storage().nbytes() // 4
        return result

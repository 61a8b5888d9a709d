# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

from anomalib_logic.models.sam_lad.matching import ObjectMatching, sinkhorn


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def boxes_at(centres: torch.Tensor, size: float = 0.1) -> torch.Tensor:
    return torch.cat([centres - size / 2, centres + size / 2], dim=-1)


def all_valid(*shape: int) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.bool)


def test_sinkhorn_has_superglues_marginals(generator):
    scores = torch.randn(1, 4, 6, generator=generator)
    plan = sinkhorn(scores, all_valid(1, 4), all_valid(1, 6), 0.3, iterations=200)
    torch.testing.assert_close(plan.sum(dim=2), torch.tensor([[1.0, 1, 1, 1, 6]]))
    torch.testing.assert_close(plan.sum(dim=1), torch.tensor([[1.0, 1, 1, 1, 1, 1, 4]]))


def test_sinkhorn_agrees_with_plain_normalisation_of_rows_and_columns(generator):
    scores = torch.randn(3, 5, generator=generator)
    kernel = np.exp(np.pad(scores.numpy(), ((0, 1), (0, 1)), constant_values=0.5).astype(float))
    rows, columns = np.array([1.0, 1, 1, 5]), np.array([1.0, 1, 1, 1, 1, 3])
    u, v = np.ones(4), np.ones(6)
    for _ in range(100):
        u = rows / (kernel @ v)
        v = columns / (kernel.T @ u)
    plan = sinkhorn(scores[None], all_valid(1, 3), all_valid(1, 5), 0.5, iterations=100)[0]
    np.testing.assert_allclose(plan.numpy(), u[:, None] * kernel * v, rtol=1e-3, atol=1e-5)


def test_sinkhorn_gives_empty_slots_nothing_and_ignores_them(generator):
    scores = torch.randn(1, 3, 4, generator=generator)
    padded = torch.randn(1, 5, 6, generator=generator)
    padded[:, :3, :4] = scores
    rows, columns = torch.arange(5)[None] < 3, torch.arange(6)[None] < 4
    plan = sinkhorn(padded, rows, columns, 0.1)
    expected = sinkhorn(scores, all_valid(1, 3), all_valid(1, 4), 0.1)
    torch.testing.assert_close(plan[:, :3, :4], expected[:, :3, :4])
    assert plan[:, 3:5, :].max() < 1e-6
    assert plan[:, :, 4:6].max() < 1e-6


def test_sharp_sinkhorn_finds_the_optimal_assignment(generator):
    scores = torch.rand(6, 6, generator=generator)
    plan = sinkhorn(scores[None] / 0.003, all_valid(1, 6), all_valid(1, 6), -100.0, iterations=2000)[0, :-1, :-1]
    _, columns = linear_sum_assignment(scores.numpy(), maximize=True)
    assert plan.argmax(dim=1).tolist() == columns.tolist()


def normals(generator, images: int, moving: bool):
    """Six kinds of objects in every image, shuffled, in the same places or anywhere."""
    kinds = torch.randn(6, 32, generator=generator)
    places = torch.rand(6, 2, generator=generator)
    orders = torch.stack([torch.randperm(6, generator=generator) for _ in range(images)])
    looks = kinds[orders] + 0.15 * torch.randn(images, 6, 32, generator=generator)
    centres = torch.rand(images, 6, 2, generator=generator) if moving else places[orders]
    return F.normalize(looks, dim=-1), boxes_at(centres), orders


def neighbors_of(images: int) -> torch.Tensor:
    return torch.stack([(torch.arange(2) + i + 1) % images for i in range(images)])


@pytest.mark.parametrize("moving", [False, True])
def test_calibrated_matching_finds_the_shuffled_objects(generator, moving):
    looks, boxes, orders = normals(generator, 12, moving)
    matching = ObjectMatching()
    matching.calibrate(looks[:10], boxes[:10], all_valid(10, 6), neighbors_of(10))
    scores = matching.scores(looks[10:11], boxes[10:11], looks[None, 11:], boxes[None, 11:])
    matches = matching(scores, all_valid(1, 6), all_valid(1, 1, 6))
    assert matches.matched.all()
    assert orders[11][matches.partner[0, 0]].tolist() == orders[10].tolist()


def test_calibration_knows_whether_objects_move(generator):
    precisions = []
    for moving in (False, True):
        looks, boxes, _ = normals(generator, 10, moving)
        matching = ObjectMatching()
        matching.calibrate(looks, boxes, all_valid(10, 6), neighbors_of(10))
        precisions.append(matching.precision[:2])
    assert precisions[0].min() > 1e4
    assert precisions[1].max() < 10


def test_calibrated_dustbin_suits_cosine_scores_and_superglues_does_not(generator):
    looks, boxes, _ = normals(generator, 12, True)
    matching = ObjectMatching()
    scores = matching.scores(looks[:1], boxes[:1], looks[None, 1:2], boxes[None, 1:2])
    literal = sinkhorn(scores, all_valid(1, 1, 6), all_valid(1, 1, 6), 1.0)
    assert literal[0, 0, :6, :6].max() < 0.4
    matching.calibrate(looks, boxes, all_valid(12, 6), neighbors_of(12))
    z, temperature = matching.dustbin, matching.temperature
    plan = sinkhorn(scores / temperature, all_valid(1, 1, 6), all_valid(1, 1, 6), z / temperature)
    assert plan[0, 0, :6, :6].amax(dim=1).median() > 0.7


def test_new_and_missing_objects_stay_unmatched(generator):
    looks, boxes, orders = normals(generator, 14, True)
    matching = ObjectMatching(geometry=0.0)
    matching.calibrate(looks[:11], boxes[:11], all_valid(11, 6), neighbors_of(11))
    query = looks[11].clone()
    query[2] = F.normalize(torch.randn(32, generator=generator), dim=0)
    references = looks[None, 12:14]
    scores = matching.scores(query[None], boxes[11:12], references, boxes[None, 12:14])
    matches = matching(scores, all_valid(1, 6), all_valid(1, 2, 6))
    assert matches.matched[0].tolist() == [[slot != 2 for slot in range(6)]] * 2
    missing = matching.missing(matches, references, boxes[None, 12:14], all_valid(1, 2, 6), share=1.0)
    assert (orders[12:14][missing[0]] == orders[11, 2]).all()
    assert missing.sum() == 2


def test_object_that_only_one_reference_has_is_not_missing(generator):
    looks, boxes, orders = normals(generator, 14, True)
    matching = ObjectMatching(geometry=0.0)
    matching.calibrate(looks[:11], boxes[:11], all_valid(11, 6), neighbors_of(11))
    query_valid = orders[11:12] != 0
    reference_valid = all_valid(1, 2, 6)
    reference_valid[0, 1] = orders[13] != 0
    scores = matching.scores(looks[11:12], boxes[11:12], looks[None, 12:14], boxes[None, 12:14])
    matches = matching(scores, query_valid, reference_valid)
    references, places = looks[None, 12:14], boxes[None, 12:14]
    assert not matching.missing(matches, references, places, reference_valid, share=0.6).any()
    assert matching.missing(matches, references, places, reference_valid, share=0.5).sum() == 1


def test_identical_objects_are_told_apart_by_place_where_places_are_fixed(generator):
    places = torch.rand(12, 2, generator=generator)
    boxes = boxes_at(places + 0.01 * torch.randn(10, 12, 2, generator=generator))
    looks = F.normalize(torch.ones(10, 12, 8) + 0.1 * torch.randn(10, 12, 8, generator=generator), dim=-1)
    matching = ObjectMatching()
    matching.calibrate(looks, boxes, all_valid(10, 12), neighbors_of(10))
    scores = matching.scores(looks[:1], boxes[:1], looks[None, 1:2], boxes[None, 1:2])
    matches = matching(scores, all_valid(1, 12), all_valid(1, 1, 12))
    assert matches.partner[0, 0].tolist() == list(range(12))


def test_calibration_with_one_normal_that_has_objects_changes_nothing(generator):
    looks, boxes, _ = normals(generator, 4, False)
    valid = torch.zeros(4, 6, dtype=torch.bool)
    valid[1] = True
    matching = ObjectMatching()
    before = matching.state_dict()
    matching.calibrate(looks, boxes, valid, neighbors_of(4))
    assert all(torch.equal(value, before[name]) for name, value in matching.state_dict().items() if name != "precision")

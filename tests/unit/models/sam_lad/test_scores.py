# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The scores one by one: what they learn, measure and draw, and how they are calibrated."""

import copy
from typing import NamedTuple

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from torch.nn.functional import one_hot

from anomalib_logic.export.runners import openvino_core
from anomalib_logic.models.sam_lad import bank as bank_module
from anomalib_logic.models.sam_lad.bank import Bank
from anomalib_logic.models.sam_lad.encoder import Maps
from anomalib_logic.models.sam_lad.options import SamLadBank, SamLadScoring
from anomalib_logic.models.sam_lad.scores import build_scores
from anomalib_logic.models.sam_lad.scores.amounts import CELLS, EXCHANGES, SIDES, exchange_windows, power_mean
from anomalib_logic.models.sam_lad.scores.anywhere import Anywhere, half_whitening
from anomalib_logic.models.sam_lad.scores.composition import Composition, Layout
from anomalib_logic.models.sam_lad.scores.count import Count
from anomalib_logic.models.sam_lad.scores.place import Place, nearest_differences, principal_components
from anomalib_logic.models.sam_lad.scores.scene import Scene
from anomalib_logic.models.sam_lad.scores.score import Measured


class Compared(NamedTuple):
    """What scores of coarse features take of a comparison."""

    query: dict
    bank: Bank
    exclude: torch.Tensor | None
    alike: torch.Tensor | None = None


def bank_of(features: torch.Tensor, field: str = "coarse") -> Bank:
    bank = Bank({field: torch.half, "valid": torch.bool}, {}, half=False)
    bank.fill([{field: features, "valid": torch.zeros(len(features), 1, dtype=torch.bool)}], len(features))
    return bank


def learned(features: torch.Tensor, seed: int = 0, patches: int = 1000, fine: bool = False) -> Anywhere:
    score = Anywhere(8, fine, patches)
    score.learn(bank_of(features, score.field), None, {}, seed)
    return score


def random_changes(score, number: int = 20) -> torch.Tensor:
    shares = torch.rand(2, number, 4, *score.shape[1:])
    return score.histogram(shares[0]) - score.histogram(shares[1])


def changes_of(score, words: torch.Tensor) -> torch.Tensor:
    """Changes by exchanged windows of images of 8 x 8 positions, each of which is a cell."""
    cells = one_hot(words.flatten(2), score.shape[2]).transpose(1, 2) / CELLS**2
    before, after = exchange_windows(cells, 0)
    return score.histogram(after) - score.histogram(before)


def compared_features(score: Anywhere, features: torch.Tensor) -> torch.Tensor:
    """Features as the score compares them, shape ``(N, h * w, C)``."""
    points = features.flatten(2).transpose(1, 2)
    return points @ score.whitening if score.fine else points


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["objects", "details", "anywhere", "place", "count", "composition", "layout"]),
        ({"composition": False}, ["objects", "details", "anywhere", "place", "count"]),
        ({"lite": True}, ["objects", "count", "composition", "layout"]),
        ({"align": "none", "composition": False}, ["positions", "count"]),
        ({"align": "box"}, ["positions", "count", "composition", "layout"]),
    ],
    ids=str,
)
def test_options_choose_the_scores(options, expected):
    assert list(build_scores(SamLadScoring(**options), SamLadBank(), (4, 5), [2, 4])) == expected


@pytest.mark.parametrize("fine", [True, False])
def test_nearest_patch_is_that_of_any_other_image(fine):
    coarse = torch.rand(4, 3, 4, 5)
    score, query, exclude = learned(coarse, fine=fine), coarse[1:3], torch.tensor([1, 2])
    assert {"scene" if fine else "coarse": torch.half} == score.SAMPLED
    whitened = compared_features(score, coarse).transpose(1, 2).unflatten(2, coarse.shape[2:])
    others = torch.stack([whitened[[0, 2, 3]], whitened[[0, 1, 3]]]).transpose(1, 2).flatten(2)
    queries = whitened[1:3].flatten(2).transpose(1, 2)
    expected = torch.cdist(queries, others.transpose(1, 2)).amin(dim=2).view(2, 4, 5)
    found = score.measure(Compared({score.field: query}, None, exclude)).map
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    assert score.measure(Compared({score.field: query}, None, None)).map.max() < 2e-3


def test_details_learn_from_the_images_that_are_held_out_and_know_whose_patches_are_whose(monkeypatch):
    monkeypatch.setattr(bank_module, "HELD_OUT", 4)
    features = torch.rand(10, 3, 8, 8) + torch.arange(10).view(-1, 1, 1, 1)
    bank = Bank({"scene": torch.half, "valid": torch.bool}, {}, half=False, sampled=["scene"])
    bank.fill([{"scene": features, "valid": torch.zeros(10, 1, dtype=torch.bool)}], 10)
    score = Anywhere(8, True, 40)
    score.learn(bank, None, {}, 0)
    assert set(score.owners.tolist()) <= {0, 2, 5, 7}
    everything = compared_features(score, features)
    for owner, patch, substitute in zip(score.owners, score.patches, score.substitutes, strict=True):
        assert torch.cdist(patch[None], everything[owner]).min() < 1e-2
        others = everything[[i for i in (0, 2, 5, 7) if i != owner]].flatten(0, 1)
        assert torch.cdist(substitute[None], others).min() < 1e-2


def test_without_an_image_the_coreset_goes_on_among_the_features_of_all_others():
    coarse = torch.rand(4, 3, 4, 5)
    score = learned(coarse, patches=12)
    features = compared_features(score, coarse)
    for image in score.owners.unique().tolist():
        own = score.owners == image
        others = torch.cat([features[i] for i in range(4) if i != image])
        chosen = score.patches[~own]
        for substitute in score.substitutes[own]:
            farthest = others[torch.cdist(others, chosen).amin(dim=1).argmax()]
            torch.testing.assert_close(substitute, farthest)
            chosen = torch.cat([chosen, farthest[None]])


def test_coreset_is_of_the_images_features_and_depends_on_the_seed():
    coarse = torch.rand(4, 3, 4, 5)
    score = learned(coarse, patches=7)
    assert len(score.patches) == len(score.owners) == 7
    of_owners = compared_features(score, coarse)[score.owners]
    assert torch.isclose(of_owners, score.patches.unsqueeze(1)).all(dim=2).any(dim=1).all()
    assert torch.equal(learned(coarse, patches=7).patches, score.patches)
    assert not torch.equal(learned(coarse, seed=1, patches=7).patches, score.patches)


def test_half_whitened_features_have_the_square_root_of_their_deviations():
    torch.manual_seed(0)
    turned = torch.linalg.qr(torch.randn(3, 3)).Q
    features = torch.randn(20_000, 3) * torch.tensor([4.0, 1.0, 0.25]) @ turned + 5
    whitened = features @ half_whitening(features)
    deviations = torch.linalg.eigvalsh(torch.cov(whitened.T)).sqrt().flip(0)
    assert deviations / deviations[0] == pytest.approx([1, 0.48, 0.18], abs=0.01)  # 1, .5 and .25 but for the shrinkage
    assert torch.isfinite(half_whitening(torch.ones(1, 3))).all()


def windows_at(coarse: torch.Tensor, row: int, column: int) -> torch.Tensor:
    """Windows of 5 x 3 that begin there, as vectors."""
    return coarse[:, :, row : row + 5, column : column + 3].flatten(1)


def prepared_place(coarse: torch.Tensor, sample: torch.Tensor) -> Place:
    """A score, and its components by the sample."""
    score = Place(8, tuple(coarse.shape[2:]), coarse.shape[1])
    assert score.prepare(sample, sample, 0) == {}
    return score


def place_map(score: Place, query: torch.Tensor, normal: torch.Tensor, alike: torch.Tensor) -> torch.Tensor:
    kept = score.keep(Maps(normal, normal, normal), None)["windows"]
    compared = Compared(score.keep(Maps(query, query, query), None), bank_of(kept, "windows"), None, alike)
    return score.measure(compared).map


def test_windows_are_compared_with_about_the_same_place_of_the_images_that_are_alike():
    torch.manual_seed(0)
    # Windows of 5 x 3 positions and 2 channels have fewer numbers than there are components: distances are of all.
    normal, query, alike = torch.rand(3, 2, 16, 8), torch.rand(1, 2, 16, 8), torch.tensor([[2, 0]])
    score = prepared_place(normal, torch.cat([normal, query]))
    found = place_map(score, query, normal, alike)
    assert found.shape == (1, 16, 8)
    for row, column in [(y, x) for y in range(12) for x in range(6)]:
        shifted = [(y, x) for y in range(row - 1, row + 2) for x in range(column - 1, column + 2)]
        normals = [windows_at(normal[alike[0]], y, x) for y, x in shifted if 0 <= y <= 11 and 0 <= x <= 5]
        distances = (torch.stack(normals) - windows_at(query, row, column)).norm(dim=2)
        assert found[0, row + 2, column + 1] == pytest.approx(float(distances.min()), rel=1e-3)
    # at the border that of the next window
    assert torch.equal(found[0, :2, 1:-1], found[0, 2, 1:-1].expand(2, -1))
    assert torch.equal(found[0, :, -1], found[0, :, -2])


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_an_image_that_is_shifted_by_one_position_is_not_unusual(shift):
    torch.manual_seed(0)
    wide = torch.rand(4, 3, 12, 14)
    normal, query = wide[..., 2:-2, 2:-2], wide[:1, :, 2 - shift : 10 - shift, 2 + shift : 12 + shift]
    score = prepared_place(normal, normal)
    found = place_map(score, query, normal, torch.tensor([[0, 1, 2, 3]]))[0, 3:-3, 3:-3]
    assert (found.amax() < 1e-2) == (shift <= 1)


@pytest.mark.parametrize("grid", [(3, 9), (1, 1), (5, 4)])
def test_places_of_small_grids(grid):
    torch.manual_seed(0)
    normal = torch.rand(4, 2, *grid)
    score = prepared_place(normal, normal)
    found = place_map(score, normal[:1] + 1, normal, torch.tensor([[1, 2, 3]]))
    assert found.shape == (1, *grid)
    assert found.amin() > 0.1


def test_windows_that_are_all_the_same_have_no_components():
    coarse = torch.ones(1, 2, 6, 6)  # all windows are the same
    score = prepared_place(coarse, coarse)
    assert not score.components.any()
    # What differs is seen all the same, by the length of the windows.
    assert place_map(score, coarse, coarse, torch.tensor([[0]])).amax() < 1e-3
    expected = score.mean_window.square().sum().sqrt()  # of twice the mean window
    torch.testing.assert_close(place_map(score, coarse * 2, coarse, torch.tensor([[0]])), expected.expand(1, 6, 6))


def test_windows_differ_least_from_about_the_same_place_of_other_images():
    torch.manual_seed(0)
    windows = torch.rand(4, 3, 5, 6)
    differences = nearest_differences(windows).view(4, 5, 6, 3)
    for image, row, column in [(i, y, x) for i in range(4) for y in range(5) for x in range(6)]:
        rows, columns = slice(max(0, row - 1), row + 2), slice(max(0, column - 1), column + 2)
        others = torch.cat([windows[:image], windows[image + 1 :]])[:, :, rows, columns].movedim(1, 3).flatten(0, 2)
        expected = windows[image, :, row, column] - others
        expected = expected[expected.norm(dim=1).argmin()]
        torch.testing.assert_close(differences[image, row, column], expected)


def test_directions_in_which_normal_windows_differ_count_less():
    generator = torch.Generator().manual_seed(0)
    parts = torch.randn(1, 48, 12, 12, generator=generator)  # at each place another one, the same in all images
    look, other = torch.linalg.qr(torch.randn(48, 2, generator=generator)).Q.T.unsqueeze(2).unsqueeze(3)
    normal = parts + 3 * look * torch.randn(12, 1, 12, 12, generator=generator)  # that looks different in each
    score = prepared_place(normal, normal)
    assert not score.remainder
    query, alike = parts.clone(), torch.arange(12).unsqueeze(0)
    found = []
    for direction in (look, other):
        query[..., 3:6, 3:6] = parts[..., 3:6, 3:6] + 3 * direction
        found.append(float(place_map(score, query, normal, alike)[0, 4, 4]))
    usual = float(place_map(score, parts, normal, alike)[0, 4, 4])
    # Both changes have the same length; with Euclidean distances the first one would count more.
    assert found[1] - usual > 1.5 * (found[0] - usual)


class Windows(torch.nn.Module):
    """What a score keeps of features."""

    def __init__(self, score: Place) -> None:
        super().__init__()
        self.score = score

    def forward(self, coarse: torch.Tensor) -> torch.Tensor:
        return self.score.keep(Maps(coarse, coarse, coarse), None)["windows"]


@pytest.mark.parametrize("grid", [(4, 6), (6, 4), (5, 7), (6, 8)])
def test_windows_are_the_same_in_openvino_in_images_of_any_shape(grid, tmp_path):
    pytest.importorskip("openvino")
    normal, *images = torch.randn(3, 1, 24, *grid, generator=torch.Generator().manual_seed(0))
    model, file = Windows(prepared_place(normal, normal)).eval(), tmp_path / "model.onnx"
    queries, shapes = torch.cat(images), ({0: torch.export.Dim.DYNAMIC},)
    torch.onnx.export(model, (queries,), file, dynamo=True, verbose=False, dynamic_shapes=shapes)
    compiled = openvino_core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for query in (*images, queries):
        expected = model(query)
        assert expected[:, -1].amin() > 1  # the remainder counts
        np.testing.assert_allclose(compiled(query.numpy())[0], expected, rtol=1e-4, atol=1e-4)


def test_principal_components_are_those_of_the_covariance():
    torch.manual_seed(0)
    points = torch.randn(30, 4) * torch.tensor([3.0, 1.0, 0.1, 2.0]) + 7
    mean, directions = principal_components(torch.cat([points, torch.zeros(30, 40)], dim=1), 6)
    torch.testing.assert_close(mean[:4], points.double().mean(dim=0))
    expected = torch.linalg.eigh(torch.cov(points.double().T)).eigenvectors.flip(1)
    torch.testing.assert_close((directions[:4, :4].T @ expected).abs(), torch.eye(4).double(), atol=1e-6, rtol=0)
    assert not directions[:, 4:].any()  # there are four only


def test_changes_are_noticed_in_deviations_of_the_normal_images():
    score = Count(4)
    number = torch.tensor([0.0, 1.0, 2.0])
    score.calibrate([Measured(torch.zeros(1, 4, 4), value) for value in number.split(1)])
    changed = [Measured(torch.zeros(1, 4, 4), torch.tensor([value])) for value in (3.0, 9.0, 4.0)]
    assert score.notice(changed) == pytest.approx((4 - 1) / 1.0)
    assert score.notice([Measured(torch.zeros(1, 4, 4), torch.tensor([0.0]))]) == 0


def test_changes_are_located_by_the_share_of_the_map_that_lies_inside():
    score = Count(4)
    maps = torch.zeros(3, 4, 4)
    maps[0, 0, 0] = maps[1, :, 0] = 2  # in the first all of it is inside, in the second a quarter, in the third nothing
    regions = torch.zeros(3, 1, 8, 8)
    regions[:, :, :2, :2] = 1
    assert score.locate([Measured(map_) for map_ in maps.split(1)], regions) == pytest.approx((1 + 1 / 4 + 0) / 3)


def test_map_shows_what_lies_above_the_values_of_normal_images():
    score = Scene(4)
    score.calibrate([Measured(torch.full((1, 4, 4), value)) for value in (1.0, 2.0, 3.0)])
    score.map_trust.fill_(0.5)
    below, at, above = (score.excess(Measured(torch.full((1, 4, 4), value)))[0, 0, 0] for value in (-98.0, 2.0, 102.0))
    # The mean of the maps, 2, is one unit, so the values' deviation is 0.5.
    assert below == pytest.approx(0, abs=1e-6)
    assert at == pytest.approx(0.5 * np.log(2))
    assert above == pytest.approx(0.5 * 50 / 0.5)


@pytest.mark.parametrize("score", [Scene(4), Count(4)], ids=lambda score: type(score).__name__)
def test_held_out_values_deviate_from_the_mean_of_the_others_by_their_deviation(score):
    values = 5 * torch.rand(9) + 3

    def calibrate(some):
        score.calibrate([Measured(torch.ones(1, 4, 4), value[None]) for value in some])

    calibrate(values[1:])
    expected = score.deviation(values[:1])
    calibrate(values)
    torch.testing.assert_close(score.deviation(values[:1], 9), expected, rtol=1e-3, atol=1e-3)
    assert score.deviation(values[:1], 2) == score.deviation(values[:1])  # too few to leave one out


def test_equal_values_have_the_least_deviation():
    score = Count(4)
    score.calibrate([Measured(torch.zeros(1, 4, 4), torch.zeros(1))] * 5)
    assert score.deviation(torch.tensor([3.0])).item() == pytest.approx(3 / 0.3)


@pytest.mark.parametrize(
    "score", [Composition(8, 3, words=4, clusterings=2), Layout(8, clusterings=2, words=4)], ids=["whole", "parts"]
)
@pytest.mark.parametrize("number", [5, 40])  # fewer than there are amounts, and more
def test_amounts_without_a_normal_image_are_those_of_all_others(score, number):
    histograms, changes = score.histogram(torch.rand(number, 4, 2, 4)), random_changes(score)
    score.fit_gaussian(histograms, changes)
    others = copy.deepcopy(score)
    rest = torch.cat([histograms[:3], histograms[4:]]).double()
    gaussian = LedoitWolf().fit(histograms.double().numpy())
    # The shrinkage of all images, and the covariance of the others.
    even = gaussian.shrinkage_ * np.trace(np.cov(histograms.T.numpy(), bias=True)) / histograms.shape[1]
    covariance = (1 - gaussian.shrinkage_) * np.cov(rest.T.numpy(), bias=True)
    covariance += even * number / (number - 1) * np.eye(len(covariance))
    weighted = np.linalg.inv(covariance) @ changes.T.double().numpy()
    lengths = np.sqrt((changes.T.double().numpy() * weighted).sum(axis=0))
    others.location = rest.mean(dim=0).float()
    others.filters = torch.from_numpy(weighted / lengths).float()
    words = torch.randint(4, (number, 2, 8, 8))
    found = score.without(histograms[3])
    torch.testing.assert_close(found.distance(histograms), others.fitted.distance(histograms), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        found.amounts(histograms, words), others.fitted.amounts(histograms, words), rtol=1e-3, atol=1e-3
    )
    assert found.distance(histograms)[3] > score.fitted.distance(histograms)[3]


def test_one_of_two_images_cannot_be_left_out():
    score = Layout(8, clusterings=2, words=4)
    score.fit_gaussian(score.histogram(torch.rand(2, 4, 2, 4)), random_changes(score))
    assert score.without(torch.rand(32)).filters is score.filters


def test_composition_learns_from_images_that_the_bank_does_not_keep():
    score, shares = Composition(8, 3, words=4, clusterings=2), torch.rand(10, 4, 2, 4)
    bank = Bank({"shares": torch.float, "valid": torch.bool}, {})
    bank.fill([{"shares": shares[:6], "valid": torch.zeros(6, 1, dtype=torch.bool)}], 6)
    score.learn(bank, {"shares": shares[6:]}, {"unchanged": shares, "exchanged": shares.flip(0)}, 0)
    histograms = shares.sum(dim=1).flatten(1).pow(0.75)
    assert score.number == 10
    torch.testing.assert_close(score.location, histograms.mean(dim=0))
    expected = (histograms.flip(0) - histograms) @ score.precision
    torch.testing.assert_close(score.filters.T * score.lengths.unsqueeze(1), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("number", [1, 2, 5])
def test_normal_images_that_do_not_differ_have_a_distance_of_zero(number):
    score, histograms = Composition(8, 3, words=4, clusterings=2), torch.rand(1, 8).expand(number, 8)
    score.fit_gaussian(histograms, random_changes(score))
    assert score.fitted.distance(histograms).tolist() == pytest.approx([0] * number, abs=1e-3)
    assert torch.isfinite(score.fitted.distance(torch.rand(3, 8))).all()


def test_components_are_the_distances_along_changes_in_standard_deviations():
    score = Composition(8, 3, words=4, clusterings=2)
    histograms, query, changes = torch.rand(10, 8), torch.rand(2, 8), random_changes(score)
    score.fit_gaussian(histograms, changes)
    gaussian = LedoitWolf().fit(histograms.numpy())
    residual = query.numpy() - gaussian.location_
    expected = residual @ gaussian.precision_ @ changes.T.numpy()
    expected /= np.sqrt(np.einsum("kd,de,ke->k", changes.numpy(), gaussian.precision_, changes.numpy()))
    components = score.fitted.components(query)
    np.testing.assert_allclose(components.numpy(), expected, rtol=1e-3, atol=1e-4)
    # No component is larger than the Mahalanobis distance, which is that along the residual itself.
    assert (components.square().amax(dim=1).numpy() <= gaussian.mahalanobis(query.numpy())).all()
    np.testing.assert_allclose(
        score.fitted.distance(query).numpy(), (np.abs(expected) ** 8).mean(axis=1) ** (1 / 8), rtol=1e-3
    )


def test_what_no_exchange_changes_does_not_count():
    torch.manual_seed(0)
    score = Composition(8, 3, words=4, clusterings=2)
    changes = torch.zeros(5, 8)
    changes[:, :2] = torch.randn(5, 2)
    score.fit_gaussian(torch.randn(4000, 8), changes)  # amounts that have nothing to do with each other
    at = torch.eye(8) * 4
    assert score.fitted.distance(at)[:2].min() > 2
    assert score.fitted.distance(at)[2:].max() < 0.3


def test_terms_of_amounts_add_up_to_their_squared_distance():
    score, query = Layout(8, clusterings=2, words=4), torch.rand(3, 32)
    score.fit_gaussian(torch.rand(10, 32), random_changes(score))
    torch.testing.assert_close(
        score.fitted.terms(query).sum(dim=1), score.fitted.distance(query).square(), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e-4, 1e12])
def test_power_mean_is_between_the_mean_and_the_highest_of_absolute_values(scale):
    components = scale * torch.tensor([[1.0, -3.0, 2.0], [0.0, 0.0, 0.5]])
    found = power_mean(components)
    torch.testing.assert_close(found, torch.tensor([(1 + 3**8 + 2**8) / 3, 0.5**8 / 3]).pow(1 / 8) * scale)
    assert (found >= components.abs().mean(dim=1)).all()
    assert (found <= components.abs().amax(dim=1)).all()


def test_amounts_without_a_sample_say_what_to_do():
    score, bank = Composition(8, 3, words=4, clusterings=2), Bank({"shares": torch.float, "valid": torch.bool}, {})
    bank.fill([{"shares": torch.rand(6, 4, 2, 4), "valid": torch.zeros(6, 1, dtype=torch.bool)}], 6)
    with pytest.raises(RuntimeError, match="fit_encoder must come before each fit"):
        score.learn(bank, None, {}, 0)


@pytest.mark.parametrize("side", [16, 20])  # of cells of equal sizes, and of others
def test_composition_exchanges_windows_of_the_sample(side):
    torch.manual_seed(0)
    features = torch.randn(5, 3, side, side)
    score = Composition(8, 3, words=4, clusterings=2)
    prepared = score.prepare(features, features, 0)
    kept = score.outline(Maps(features, features, features))["shares"]
    assert all((kept - one).abs().flatten(1).amax(dim=1).min() < 1e-5 for one in prepared["unchanged"][:50])
    for shares in prepared.values():
        torch.testing.assert_close(shares.sum(dim=(1, 3)), torch.ones(len(shares), 2), rtol=1e-4, atol=1e-4)
    assert (prepared["exchanged"] - prepared["unchanged"]).abs().flatten(1).sum(dim=1).min() > 0


@pytest.mark.parametrize("number", [1, 2, 7])
def test_windows_of_normal_images_are_exchanged(number):
    cells = torch.rand(number, CELLS**2, 2, 4)
    before, after = exchange_windows(cells, 0)
    assert before.shape == after.shape == (EXCHANGES, 4, 2, 4)
    images = cells.view(number, 2, CELLS // 2, 2, CELLS // 2, 2, 4).sum(dim=(2, 4)).flatten(1, 2)
    assert all((images - one).abs().flatten(1).amax(dim=1).min() < 1e-5 for one in before[:50])
    if number > 1:  # no image is exchanged with itself
        assert not torch.isclose(before, after).flatten(1).all(dim=1).any()
    else:  # from the same place of the same image comes what is there
        assert torch.isclose(before, after).flatten(1).all(dim=1)[1::2].all()
        assert not torch.isclose(before, after).flatten(1).all(dim=1)[::2].all()
    repeated = exchange_windows(cells, 0)[1]
    assert torch.equal(after, repeated)
    assert not torch.equal(after, exchange_windows(cells, 1)[1])


def test_every_second_window_comes_from_the_same_place_and_all_sides_from_both():
    number = CELLS**2
    cells = torch.zeros(2, number, 1, 2 * number)  # each cell of both images has a centroid of its own
    cells[0, :, 0, :number] = cells[1, :, 0, number:] = torch.eye(number)
    sides = {True: set(), False: set()}
    for i, shares in enumerate(exchange_windows(cells, 0)[1].sum(dim=(1, 2)).unflatten(1, (2, number))):
        own, other = (shares, shares.flip(0))[int(shares[1].sum() > shares[0].sum())]
        same = torch.equal(own, 1 - other)
        assert same or i % 2 == 0
        sides[same].add(int(other.sum()))
    assert sides[True] == sides[False] == {side**2 for side in SIDES}


def test_clusters_are_made_of_what_changes_from_image_to_image():
    torch.manual_seed(0)
    features = torch.randn(6, 2, 8, 8) * torch.tensor([1.0, 0.01]).view(1, 2, 1, 1)
    features[:, 0] = features[:1, 0]  # a background of many colours, the same in all images
    features[:, :, :2, :2] = torch.tensor([9.0, 9.0]).view(1, 2, 1, 1)
    features[::2, :, :2, :2] *= -1  # and a part that has one of two
    score = Composition(8, 2, words=4, clusterings=3)
    score.prepare(features, features, 0)
    # Of all positions one in 16 is of the part, and of the centroids one in two.
    assert (score.centroids.abs().amin(dim=2) > 5).sum(dim=1).tolist() == [2, 2, 2]
    spread = torch.cdist(features.movedim(1, 3).flatten(0, 2), score.centroids).amin(dim=2).square().mean(dim=1)
    torch.testing.assert_close(score.temperatures, 0.25 * spread, rtol=1e-3, atol=1e-5)


def test_amounts_mark_what_there_is_too_much_of():
    torch.manual_seed(0)
    score = Composition(8, 3, words=4, clusterings=1)
    words = torch.randint(2, (30, 1, 8, 8))  # two words, never the third
    words[:, :, 0, 0] = 2

    def histogram(words):
        return one_hot(words.flatten(1), 4).float().mean(dim=1).pow(0.75)

    score.fit_gaussian(histogram(words), changes_of(score, words))
    query = words[:1].clone()
    query[:, :, 3:5, 3:5] = 2
    amounts = score.fitted.amounts(histogram(query), query)[0]
    assert amounts[query[0, 0] == 2].min() > 2 * amounts[query[0, 0] != 2].max()
    # All positions together give the squared distance, but for amounts that make it smaller.
    terms = score.fitted.terms(histogram(query))
    assert terms.sum().item() == pytest.approx(score.fitted.distance(histogram(query)).square().item(), rel=1e-4)
    assert amounts.square().mean().item() == pytest.approx(terms.clamp_min(0).sum().item(), rel=1e-3)


def test_layout_marks_what_is_in_the_wrong_quarter_of_the_image():
    torch.manual_seed(0)
    words = torch.randint(2, (30, 2, 8, 8))
    words[:, :, :2, :2], words[:, :, 6:, 6:] = 2, 3  # one part on the upper left and another on the lower right
    whole, quarters = Composition(8, 3, words=4, clusterings=2), Layout(8, clusterings=2, words=4)

    def shares(words):
        counts = [one_hot(words[:, :, y : y + 4, x : x + 4].flatten(2), 4).sum(dim=2) for y in (0, 4) for x in (0, 4)]
        return torch.stack(counts, dim=1) / 64

    query = words[:1].clone()
    query[:, :, :2, :2], query[:, :, 6:, 6:] = 3, 2
    distances = {}
    for score in (whole, quarters):
        score.fit_gaussian(score.histogram(shares(words)), changes_of(score, words))
        distances[score] = score.fitted.distance(score.histogram(shares(torch.cat([query, words]))))
    assert distances[whole][0] <= distances[whole][1:].max()
    assert distances[quarters][0] > 3 * distances[quarters][1:].max()
    amounts = quarters.fitted.amounts(quarters.histogram(shares(query)), query)[0]
    parts = query[0, 0] > 1
    assert amounts[parts].min() > 3 * amounts[~parts].max()

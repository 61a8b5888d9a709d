# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Calibration and scores of the network without files, data module or trainer."""

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torchvision.transforms.v2.functional import normalize

from anomalib_logic.models.sam_lad import bank as bank_module
from anomalib_logic.models.sam_lad import composition, fitting, torch_model
from anomalib_logic.models.sam_lad.bank import Bank, Template, greedy_k_center
from anomalib_logic.models.sam_lad.scoring import Comparison, Scoring, exchange_windows
from anomalib_logic.models.sam_lad.torch_model import SamLadModel

from .conftest import SMALL, SQUARES, draw


def drawn(seed: int, contents) -> torch.Tensor:
    """One image for each list of squares, with values around 0."""
    generator = np.random.default_rng(seed)
    pictures = [np.array(draw(generator, squares)) for squares in contents]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 64 - 1


def filled(images: torch.Tensor, **arguments) -> SamLadModel:
    torch.manual_seed(0)
    model = SamLadModel(**{**SMALL, **arguments}).eval()
    with torch.no_grad():
        model.standardization.update(model.features(images))
        model.standardization.finalize()
        model.fit_objects(images, model.enlarge(model.features(images), images))
        model.fit([model.represent(part) for part in images.split(4)])
    return model


@pytest.fixture(scope="module")
def normals():
    return drawn(0, [SQUARES] * 10)


@pytest.fixture(scope="module")
def model(normals):
    return filled(normals)


@torch.no_grad()
def test_one_object_too_many_does_not_outweigh_everything_where_all_normals_agree(model):
    more = (*SQUARES, (24, 36, 160))
    scores = model(drawn(1, [SQUARES, more])).pred_score
    assert scores[1] > scores[0]
    assert scores.abs().max() < 200


@torch.no_grad()
def test_scores_of_normals_stay_moderate_with_a_bank_of_two(normals):
    scores = filled(normals[:2])(drawn(1, [SQUARES] * 4)).pred_score
    assert scores.abs().max() < 200


def empty_slots(model, rows) -> None:
    """Take the objects away from images of the bank."""
    for name in ("valid", "boxes", "masks", "crops", "crop_masks", "descriptors", "found"):
        getattr(model.bank, name)[rows] = 0


@torch.no_grad()
def test_object_whose_references_have_none_is_compared_with_the_scene(normals):
    model = filled(normals)
    empty_slots(model, slice(None))
    query = model.represent(drawn(1, [SQUARES]))
    compared = model.compare(query)
    assert query.valid.any()
    assert compared.objects[query.valid].max() <= compared.scene.max() * 1.001
    assert compared.objects[query.valid].min() > 0


@torch.no_grad()
def test_picture_of_an_image_without_objects_can_be_drawn(normals):
    model = filled(normals)
    empty_slots(model, slice(None))
    model.objects.areas.fill_(2.0)
    explanation = model.explain(drawn(1, [SQUARES]))[0]
    assert len(explanation.masks) == len(explanation.reference_masks) == 0
    assert explanation.draw(size=64).size == (128, 64)


@torch.no_grad()
def test_mixed_precision_changes_neither_scores_nor_maps(model):
    images = drawn(1, [SQUARES])
    expected = model(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = model(images)
    assert result.anomaly_map.dtype == torch.float
    assert torch.equal(result.pred_score, expected.pred_score)
    assert torch.equal(result.anomaly_map, expected.anomaly_map)


@pytest.mark.parametrize("number", [2, 3, 49])
def test_smallest_coreset_keeps_one_image(number):
    bank = Bank()
    bank.fill([template(number)], coreset=1e-3)
    assert len(bank) == 1


def template(number: int) -> Template:
    """Random fields; only the coarse features have their shape."""
    return Template(**{name: torch.rand(number, 3, *([4, 5] if name == "coarse" else [])) for name in Template._fields})


def test_nearest_patch_is_that_of_any_other_image():
    bank, fields = Bank(half=False), template(4)
    bank.fill([fields])
    query = fields.coarse[1:3]
    others = torch.stack([fields.coarse[[0, 2, 3]], fields.coarse[[0, 1, 3]]]).transpose(1, 2).flatten(2)
    expected = torch.cdist(query.flatten(2).transpose(1, 2), others.transpose(1, 2)).amin(dim=2).view(2, 4, 5)
    torch.testing.assert_close(bank.nearest_patch(query, exclude=torch.tensor([1, 2])), expected, atol=1e-3, rtol=1e-3)
    assert bank.nearest_patch(query).max() < 2e-3


def test_without_an_image_the_coreset_goes_on_among_the_features_of_all_others(monkeypatch):
    monkeypatch.setattr(bank_module, "PATCHES", 12)
    bank, fields = Bank(half=False), template(4)
    bank.fill([fields])
    features = fields.coarse.flatten(2).transpose(1, 2)
    for image in bank.owners.unique().tolist():
        own = bank.owners == image
        others = torch.cat([features[i] for i in range(4) if i != image])
        chosen = bank.patches[~own]
        for substitute in bank.substitutes[own]:
            distances = torch.cdist(others, chosen).amin(dim=1)
            farthest = others[distances.argmax()]
            torch.testing.assert_close(substitute, farthest)
            chosen = torch.cat([chosen, farthest[None]])


@pytest.mark.parametrize("seed", [0, 1])
def test_bank_depends_on_its_seed_alone(monkeypatch, seed):
    monkeypatch.setattr(bank_module, "PATCHES", 7)
    fields, banks = template(4), []
    for global_seed, own_seed in ((0, seed), (1, seed), (1, seed + 1)):
        torch.manual_seed(global_seed)
        banks.append(Bank())
        banks[-1].fill([fields], seed=own_seed)
    states = [bank.state_dict() for bank in banks]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["patches"], states[2]["patches"])
    assert not torch.equal(states[0]["priority"], states[2]["priority"])


@torch.no_grad()
def test_random_reference_is_one_of_the_nearest_and_always_the_same(normals):
    model, images = filled(normals, selection="random", k=4), drawn(1, [SQUARES] * 6)
    query = model.represent(images)
    references = model.compare(query).references
    assert torch.equal(model.compare(query).references, references)
    nearest = model.bank.search(query.key, 4)
    assert (nearest == references).any(dim=1).all()
    assert not torch.equal(nearest[:, :1], references)


EIGHT_BITS = torch.arange(256).repeat(9)[: 3 * 64 * 96 // 8].repeat(8).view(1, 3, 64, 96) / 255


@torch.no_grad()
@pytest.mark.parametrize(
    "statistics", [{}, {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}], ids=["imagenet", "half"]
)
def test_picture_has_the_bytes_of_the_image_whatever_the_normalization(monkeypatch, statistics):
    monkeypatch.setattr(torch_model, "PICTURE", 64)
    model = SamLadModel(**{**SMALL, "image_size": (64, 64)}, **statistics)
    pixels = EIGHT_BITS[..., :64]
    picture = model.represent((pixels - model.pixel_mean) / model.pixel_std).picture
    assert torch.equal(picture, (255 * pixels).round().to(torch.uint8))


@torch.no_grad()
@pytest.mark.parametrize("step", ["fit_objects", "represent"])
def test_objects_are_found_on_images_of_imagenets_normalization(normals, step):
    model = SamLadModel(**SMALL, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    seen = []
    method = {"fit_objects": "fit", "represent": "forward"}[step]
    original = getattr(model.objects, method)
    setattr(model.objects, method, lambda images, *others: seen.append(images) or original(images, *others))
    images = 2 * EIGHT_BITS - 1
    if step == "fit_objects":
        model.fit_objects(images, model.enlarge(model.features(images), images))
    else:
        model.represent(images)
    torch.testing.assert_close(seen[0], normalize(EIGHT_BITS, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))


def test_images_of_imagenets_normalization_are_not_changed_for_objects():
    images = torch.randn(1, 3, 64, 96)
    assert torch.equal(SamLadModel(**SMALL)._normalize_for_objects(images), images)


def test_coreset_takes_the_farthest_point_each_time():
    points = torch.rand(30, 3)
    chosen = greedy_k_center(points, 30).tolist()
    assert sorted(chosen) == list(range(30))
    for i in range(1, 29):
        nearest = torch.cdist(points, points[chosen[:i]]).amin(dim=1)
        assert nearest[chosen[i]] == pytest.approx(nearest.max().item(), abs=1e-4)


@pytest.mark.parametrize("most", [500, 2])
def test_place_distances_are_those_to_other_normals(most, monkeypatch):
    monkeypatch.setattr(bank_module, "COMPARED", most)
    bank, fields = Bank(half=False), template(4)
    bank.fill([fields])
    distances = bank.place_distances(fields.coarse[2:3], exclude=torch.tensor([2]))[0]
    normals = fields.coarse[:: 4 // min(4, most)]
    expected = (normals - fields.coarse[2]).square().sum(dim=1)
    own = list(range(0, 4, 4 // min(4, most))).index(2)
    assert distances[own].min() > 1e20
    others = [i for i in range(len(normals)) if i != own]
    torch.testing.assert_close(distances[others], expected[others])


def test_bank_keeps_a_coreset_of_the_coarse_features(monkeypatch):
    monkeypatch.setattr(bank_module, "PATCHES", 7)
    bank = Bank()
    bank.fill([template(4)])
    assert len(bank.patches) == len(bank.owners) == 7
    of_owners = bank.coarse.flatten(2).transpose(1, 2)[bank.owners]
    assert (of_owners == bank.patches.unsqueeze(1)).all(dim=2).any(dim=1).all()


def test_one_broken_rule_is_enough():
    scoring = Scoring("combined", "max", lite=False, grid=(2, 2))
    usual, unusual = torch.zeros(1, 7), torch.zeros(1, 7)
    unusual[0, 5] = 20.0
    spread = torch.full((1, 7), 3.0)
    assert scoring.fuse(unusual) > scoring.fuse(spread) > scoring.fuse(usual)
    assert scoring.fuse(unusual).item() == pytest.approx(20, abs=0.1)


def test_held_out_scores_deviate_from_the_mean_of_the_others_by_their_deviation():
    scoring, scores = Scoring("combined", "max", lite=False, grid=(2, 2)), 5 * torch.rand(9, 7) + 3
    scoring.calibrate_scores(scores)
    others = Scoring("combined", "max", lite=False, grid=(2, 2))
    others.calibrate_scores(scores[1:])
    torch.testing.assert_close(scoring.fuse_held_out(scores[:1], 9), others.fuse(scores[:1]), rtol=1e-3, atol=1e-3)


def test_calibration_compares_at_most_so_many_normals(normals, monkeypatch):
    monkeypatch.setattr(fitting, "CALIBRATION_IMAGES", 6)
    compared, compare = [], SamLadModel.compare
    monkeypatch.setattr(
        SamLadModel, "compare", lambda *args, **kwargs: compared.extend(args[1].found) or compare(*args, **kwargs)
    )
    filled(normals)
    assert 0 < len(compared) <= 6


def test_composition_without_a_normal_is_that_of_all_others():
    model, histograms = composition.Composition(3, words=4, clusterings=2), torch.rand(10, 8)
    model.fit_gaussian(histograms)
    others = composition.Composition(3, words=4, clusterings=2)
    others.fit_gaussian(histograms[[0, 1, 2, 4, 5, 6, 7, 8, 9]])
    assert torch.equal(model.without(3)(histograms), others(histograms))


@torch.no_grad()
def test_held_out_predictions_are_those_of_the_bank_compared_with_all_others(model):
    predictions = list(model.held_out_predictions())
    assert len(predictions) == len(model.bank)
    for index, prediction in zip(torch.arange(10).split(1), predictions, strict=True):
        query = model.bank.template(index)
        compared = model.compare(query, exclude=index)
        assert index not in compared.references
        assert torch.equal(compared.composition, model.composition.without(int(index))(query.histogram))
        assert torch.equal(prediction.pred_score, model.score(query, compared, calibrated_on=10).pred_score)
        assert prediction.anomaly_map.shape == (1, 1, 64, 96)


@torch.no_grad()
def test_held_out_prediction_finds_the_odd_one_among_the_normals():
    images = drawn(0, [SQUARES] * 9 + [SQUARES[:2]])
    model = filled(images)
    scores = torch.cat([prediction.pred_score for prediction in model.held_out_predictions()])
    assert scores.argmax() == 9
    assert scores[9] > model(images[9:]).pred_score + 1


@torch.no_grad()
def test_composition_of_a_held_out_normal_is_its_own_with_a_coreset(normals):
    model = filled(normals, coreset=0.5)
    assert torch.equal(model.composition.histograms[:5].half(), model.bank.histogram.half())
    assert len(model.composition.histograms) == 10


@pytest.mark.parametrize(("number", "expected"), [(1, 0), (2, 2)])
def test_bank_of_one_image_has_no_held_out_prediction(normals, number, expected):
    scores = [prediction.pred_score for prediction in filled(normals[:number]).held_out_predictions()]
    assert len(scores) == expected
    assert all(score.abs() < 200 for score in scores)


def test_composition_averages_the_squared_distances_of_its_clusterings():
    model = composition.Composition(3, words=4, clusterings=2)
    histograms, query = torch.rand(10, 8), torch.rand(2, 8)
    model.fit_gaussian(histograms)
    expected = [
        LedoitWolf().fit(histograms[:, part].numpy()).mahalanobis(query[:, part].numpy())
        for part in (slice(4), slice(4, 8))
    ]
    np.testing.assert_allclose(model(query).square().numpy(), np.mean(expected, axis=0), rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("moving", "least", "most"), [(False, 0.9, 1.0), (True, 0.0, 0.2)])
def test_place_is_trusted_where_everything_has_its_place(moving, least, most):
    torch.manual_seed(0)
    model = SamLadModel(**SMALL)
    model.scoring = Scoring("combined", "max", lite=False, grid=(12, 12))
    coarse = torch.randn(40, 3, 12, 12) if moving else torch.randn(3, 12, 12) + 0.1 * torch.randn(40, 3, 12, 12)
    model.bank.fill([Template(**{**template(40)._asdict(), "coarse": coarse})])
    generator = torch.Generator().manual_seed(0)

    def compare(features, i):
        fields = dict.fromkeys(Comparison._fields)
        none = {"surplus": torch.zeros(1, 2), "missing": torch.full((1, 1, 2), 1.5)}
        return Comparison(**{**fields, **none, **model._measure_coarse(features, torch.tensor([i]))})

    normal = [compare(coarse[i : i + 1], i) for i in range(40)]
    exchanged = [compare(exchange_windows(coarse[i : i + 1], generator), i) for i in range(40)]
    model.scoring.calibrate_trust(normal, exchanged)
    trust = model.scoring.trust
    assert ((trust[3:5] >= least) & (trust[3:5] <= most)).all()
    assert trust.tolist()[0] == trust.tolist()[5] == pytest.approx(1 / (1 + 3))
    assert (trust[[1, 2, 6]] == 1).all()


@pytest.mark.parametrize("size", [(8, 9), (2, 2), (1, 1)])
def test_two_windows_change_places(size):
    features = torch.arange(2.0 * 2 * size[0] * size[1]).view(2, 2, *size)
    exchanged = exchange_windows(features, torch.Generator().manual_seed(0))
    for before, after in zip(features, exchanged, strict=True):
        if size != (1, 1):
            assert 2 * 2 * min(3, size[0] // 2) ** 2 == (before != after).sum()
        assert sorted(after.flatten().tolist()) == sorted(before.flatten().tolist())


def test_score_without_trust_does_not_count():
    scoring = Scoring("combined", "max", lite=False, grid=(4, 6))
    scores = torch.zeros(2, 7)
    scores[1, 5] = 20.0
    assert scoring.fuse(scores)[1] > scoring.fuse(scores)[0] + 10
    scoring.trust[5] = 0.0
    assert scoring.fuse(scores)[1] == scoring.fuse(scores)[0]


def test_trust_is_measured_when_the_bank_is_filled(model, normals):
    assert (model.scoring.trust[3:5] > 0.9).all()
    assert torch.equal(filled(normals, align="nearest").scoring.trust[:5], torch.ones(5))


def test_amounts_mark_what_there_is_too_much_of():
    torch.manual_seed(0)
    model = composition.Composition(3, words=4, clusterings=1)
    words = torch.randint(2, (30, 1, 8, 8))  # two words, never the third
    words[:, :, 0, 0] = 2
    model.fit_gaussian(model.histogram(words))
    query = words[:1].clone()
    query[:, :, 3:5, 3:5] = 2
    amounts = model.amounts(model.histogram(query), query)[0]
    assert amounts[query[0, 0] == 2].min() > 2 * amounts[query[0, 0] != 2].max()
    # All positions together give the squared distance.
    expected = model(model.histogram(query)).square().item()
    assert amounts.square().mean().item() == pytest.approx(expected, rel=0.05)


@torch.no_grad()
def test_map_shows_an_amount_that_no_normal_has(model, normals):
    query, compared = model.look_up(drawn(1, [SQUARES]))
    expected = model.score(query, compared).anomaly_map
    amounts = torch.zeros_like(compared.amounts)
    amounts[:, 5:10, 5:10] = 5 * model.scoring.usual_amount
    found = model.score(query, compared._replace(amounts=amounts)).anomaly_map - expected
    assert found.amax() > model.scoring.novelty
    assert found.amax(dim=(1, 2, 3)) > 10 * found[..., -1, -1].abs()

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Calibration and scores of the network without files, data module or trainer."""

import copy

import numpy as np
import pytest
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn
from torchvision.transforms.v2.functional import normalize

from anomalib_logic.models.sam_lad import bank, comparison, encoder, torch_model
from anomalib_logic.models.sam_lad.scores import build_scores
from anomalib_logic.models.sam_lad.scores.score import Measured
from anomalib_logic.models.sam_lad.torch_model import SamLadModel

from .conftest import SQUARES, TELLING, build_model, draw, fill, fit_encoder

VIT = {"backbone": "vit_tiny_patch16_224", "backbone_args": {"depth": 1, "embed_dim": 32, "num_heads": 2}}


def drawn(seed: int, contents) -> torch.Tensor:
    """One image for each list of squares, with values around 0."""
    generator = np.random.default_rng(seed)
    pictures = [np.array(draw(generator, squares)) for squares in contents]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 64 - 1


FITTED: dict = {}  # models by what they were fitted with: a fit takes seconds


def fitted(fit, images: torch.Tensor, **arguments) -> SamLadModel:
    """A copy of a model that was fitted to images."""
    key = (fit.__name__, images.numpy().tobytes(), repr(sorted(arguments.items())))
    if key not in FITTED:
        FITTED[key] = build_model(**arguments)
        fit(FITTED[key], images)
    return copy.deepcopy(FITTED[key])


def filled(images: torch.Tensor, **arguments) -> SamLadModel:
    return fitted(fill, images, **arguments)


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


def remove_objects(model) -> None:
    """Take the objects away from all images of the bank."""
    model.bank.valid.fill_(False)
    model.bank.boxes.fill_(0)


@torch.no_grad()
@pytest.mark.parametrize("align", ["combined", "nearest", "box"])
def test_object_whose_references_have_none_is_compared_with_the_scene(normals, align):
    model = filled(normals, align=align)
    remove_objects(model)
    compared = model.compare(model.represent(drawn(1, [SQUARES])))
    assert compared.query["valid"].any()
    if align == "combined":  # other scores compare the whole image
        assert model.scores["objects"].measure(compared).map.max() == 0
        assert model.scores["details"].measure(compared).map.min() > 0
    else:
        found, scene = model.scores["positions"].measure(compared).map, model.scores["positions"].scene
        assert torch.equal(found, scene.measure(compared).map)


@torch.no_grad()
def test_picture_of_an_image_without_objects_can_be_drawn(normals):
    model = filled(normals)
    remove_objects(model)
    model.encoder.objects.areas.fill_(2.0)
    explanation = model.explain(drawn(1, [SQUARES]))[0]
    assert len(explanation.masks) == len(explanation.reference_masks) == 0
    assert explanation.draw(size=64).size == (128, 64)
    assert explanation.draw(size=(64, 96)).size == (192, 64)


@torch.no_grad()
def test_mixed_precision_changes_neither_scores_nor_maps(model):
    images = drawn(1, [SQUARES])
    expected = model(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = model(images)
    assert result.anomaly_map.dtype == torch.float
    assert torch.equal(result.pred_score, expected.pred_score)
    assert torch.equal(result.anomaly_map, expected.anomaly_map)


@torch.no_grad()
def test_random_reference_is_one_of_the_nearest_and_always_the_same(normals):
    model, images = filled(normals, selection="random", k=4), drawn(1, [SQUARES] * 6)
    query = model.represent(images)
    references = model.compare(query).references
    assert torch.equal(model.compare(query).references, references)
    nearest = model.bank.search(query["key"], 4)
    assert (nearest == references).any(dim=1).all()
    assert not torch.equal(nearest[:, :1], references)


EIGHT_BITS = torch.arange(256).repeat(9)[: 3 * 64 * 96 // 8].repeat(8).view(1, 3, 64, 96) / 255


@torch.no_grad()
@pytest.mark.parametrize(
    "statistics", [{}, {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}], ids=["imagenet", "half"]
)
def test_picture_has_the_bytes_of_the_image_whatever_the_normalization(monkeypatch, statistics):
    monkeypatch.setattr(torch_model, "PICTURE", 64)
    model = build_model(image_size=(64, 64), **statistics)
    pixels = EIGHT_BITS[..., :64]
    normalized = (pixels - model.encoder.pixel_mean) / model.encoder.pixel_std
    picture = model.represent(normalized)["picture"]
    assert torch.equal(picture, (255 * pixels).round().to(torch.uint8))


@torch.no_grad()
@pytest.mark.parametrize("step", ["fit_objects", "represent"])
def test_objects_are_found_on_images_of_imagenets_normalization(normals, step):
    model = build_model(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    encoder, seen = model.encoder, []
    method = {"fit_objects": "fit", "represent": "forward"}[step]
    original = getattr(encoder.objects, method)
    setattr(encoder.objects, method, lambda images, *others: seen.append(images) or original(images, *others))
    images = 2 * EIGHT_BITS - 1
    if step == "fit_objects":
        encoder.fit_objects(images, encoder.maps(images).fine)
    else:
        model.represent(images)
    torch.testing.assert_close(seen[0], normalize(EIGHT_BITS, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))


def test_images_of_imagenets_normalization_are_not_changed_for_objects():
    images = torch.randn(1, 3, 64, 96)
    assert torch.equal(build_model().encoder.normalize_for_objects(images), images)


@torch.no_grad()
def test_one_broken_rule_is_enough(model):
    measured = model.measure(model.compare(model.represent(drawn(1, [SQUARES]))))
    names = list(model.scores)

    def score(deviations):
        changed = dict(measured)
        for name, deviation in deviations.items():
            own = model.scores[name]
            changed[name] = measured[name]._replace(value=own.mean + own.std / own.trust * torch.tensor([deviation]))
        return model.predict(changed).pred_score.item()

    usual = score(dict.fromkeys(names, 0.0))
    unusual = score({**dict.fromkeys(names, 0.0), "count": 20.0})
    assert unusual > score(dict.fromkeys(names, 3.0)) > usual
    assert unusual == pytest.approx(20, abs=0.1)


def test_calibration_compares_at_most_so_many_normals(normals, monkeypatch):
    monkeypatch.setattr(bank, "HELD_OUT", 6)
    measured, measure = [], SamLadModel.measure
    monkeypatch.setattr(SamLadModel, "measure", lambda *args: measured.append(args[1]) or measure(*args))
    fill(build_model(), normals)
    assert 0 < len(measured) <= 6


@torch.no_grad()
def test_held_out_predictions_are_those_of_the_bank_compared_with_all_others(model):
    predictions = list(model.held_out_predictions())
    assert len(predictions) == len(model.bank)
    for index, prediction in zip(torch.arange(10).split(1), predictions, strict=True):
        compared = model.compare(model.bank.template(index), exclude=index)
        assert index not in compared.references
        assert index not in compared.alike
        measured, composition = model.measure(compared), model.scores["composition"]
        histogram = composition.histogram(compared.query["shares"])
        others = composition.without(histogram[0])
        assert torch.equal(measured["composition"].value, others.distance(histogram))
        assert torch.equal(prediction.pred_score, model.predict(measured, calibrated_on=10).pred_score)
        assert prediction.anomaly_map.shape == (1, 1, 64, 96)


@torch.no_grad()
def test_held_out_prediction_finds_the_odd_one_among_the_normals():
    images = drawn(0, [SQUARES] * 9 + [SQUARES[:2]])
    model = filled(images, **TELLING)
    scores = torch.cat([prediction.pred_score for prediction in model.held_out_predictions()])
    assert scores.argmax() == 9
    assert scores[9] > model(images[9:]).pred_score + 1


@pytest.mark.parametrize(("number", "expected"), [(1, 0), (2, 2)])
def test_bank_of_one_image_has_no_held_out_prediction(normals, number, expected):
    scores = [prediction.pred_score for prediction in filled(normals[:number]).held_out_predictions()]
    assert len(scores) == expected
    assert all(score.abs() < 200 for score in scores)


@torch.no_grad()
def test_score_without_trust_does_not_count(normals):
    model = filled(normals)
    measured = model.measure(model.compare(model.represent(drawn(1, [SQUARES] * 2))))
    measured["count"] = measured["count"]._replace(value=torch.tensor([0.0, 20.0]))
    for name in set(model.scores) - {"count"}:
        model.scores[name].trust.fill_(0.0)
    usual, unusual = model.predict(measured).pred_score
    assert unusual > usual + 10
    model.scores["count"].trust.fill_(0.0)
    usual, unusual = model.predict(measured).pred_score
    assert unusual == usual


def sample_of(images: torch.Tensor) -> list[tuple[torch.Tensor, int]]:
    return [(image, i) for i, image in enumerate(images)]


def test_scores_count_fully_without_images_to_change(model):
    assert all(score.trust == 1 for score in model.scores.values())


def test_trust_is_what_a_score_notices_of_changes_in_normal_images(normals):
    model = fitted(fit_encoder, normals)
    # A score that sees nothing, and one that sees everything.
    model.scores["count"].measure = lambda compared: Measured(torch.zeros(len(compared.alike), 16, 16), torch.zeros(1))
    found = model.scores["composition"].measure
    model.scores["composition"].measure = lambda compared: found(compared)._replace(value=_grey(compared))
    model.fit((model.represent(part) for part in normals.split(4)), len(normals), sample=sample_of(normals[:4]))
    trust = {name: float(score.trust) for name, score in model.scores.items()}
    assert trust["count"] == 0
    assert trust["composition"] == max(trust.values()) == 1
    assert all(0 <= value <= 1 for value in trust.values())


def test_trust_is_the_share_of_the_change_that_a_score_notices_best(normals):
    model = fitted(fit_encoder, normals)
    noticed = {  # spot, filled window, exchanged window; what no score notices by a deviation is chance
        "details": (8.0, 0.0, 0.1),
        "anywhere": (4.0, 2.0, 0.0),
        "composition": (0.0, 10.0, 0.2),
        "count": (0.0, 0.0, 0.5),
    }
    located = {"details": (0.8, 0.5, 0.5), "anywhere": (0.4, 0.5, 0.5), "composition": (0.2, 0.1, 0.5)}
    for name, score in model.scores.items():
        values = iter(noticed.get(name, (0.0, 0.0, 0.0)))
        score.notice = lambda changed, values=values: torch.tensor(next(values))
        shares = iter(located.get(name, (0.0, 0.0, 0.25)))
        score.locate = lambda changed, regions, shares=shares: torch.tensor(next(shares))
    model.fit((model.represent(part) for part in normals.split(4)), len(normals), sample=sample_of(normals[:2]))
    trust = {name: float(score.trust) for name, score in model.scores.items() if score.trust > 0}
    assert trust == {"details": 1.0, "anywhere": 0.5, "composition": 1.0, "count": 0.5}
    # Sums of products: details 1 + 0 + .1, anywhere .5 / 2 + .2 + 0, composition 0 + .2 + .2, count 0 + 0 + .5 / 2
    expected = {"details": 1.0, "anywhere": 0.45 / 1.1, "composition": 0.4 / 1.1, "count": 0.25 / 1.1}
    assert {name: float(model.scores[name].map_trust) for name in expected} == pytest.approx(expected)


def test_changes_are_the_same_whatever_images_are_normalised_by(normals, monkeypatch):
    pictures, changed = (normals[:5] + 1) / 4, []  # between black and white
    for mean, std in ((0.5, 0.5), (0.0, 1.0), (0.45, 0.225)):
        model, seen = build_model(mean=3 * [mean], std=3 * [std]), []
        images = (pictures - mean) / std
        fit_encoder(model, images)
        represent = model.represent
        monkeypatch.setattr(model, "represent", lambda image, f=represent, seen=seen: seen.append(image) or f(image))
        model.fit([represent(images)], len(images), sample=sample_of(images[:2]))
        changed.append(torch.cat(seen) * std + mean)
    assert changed[0].shape == (6, *pictures.shape[1:])
    assert 0 <= changed[0].min() <= changed[0].max() <= 1
    for other in changed[1:]:
        torch.testing.assert_close(other, changed[0], atol=1e-5, rtol=0)


def test_map_is_trusted_by_where_the_change_is(normals):
    model = fitted(fit_encoder, normals)
    regions = []
    for score in model.scores.values():
        score.notice = lambda changed: torch.tensor(5.0)
        score.locate = lambda changed, where: regions.append(where) or torch.tensor(0.0)
    model.fit((model.represent(part) for part in normals.split(4)), len(normals), sample=sample_of(normals[:2]))
    assert all(where.shape == (2, 1, *normals.shape[2:]) for where in regions)
    assert {float(where.unique().sum()) for where in regions} == {1.0}  # changed, or not
    assert all(0 < where.mean() < 0.17 for where in regions)
    assert all(torch.isfinite(score.map_trust) for score in model.scores.values())  # nothing is located


def _grey(compared) -> torch.Tensor:
    """Sum over the picture of the image: any change of an image changes it, mostly far more than the noise does."""
    usual = compared.bank.picture.float().sum(dim=(1, 2, 3)).mean()
    return 100 * (compared.query["picture"].float().sum(dim=(1, 2, 3)) / usual - 1).abs()


def test_changed_image_is_compared_with_all_others_or_with_the_whole_bank(normals, monkeypatch):
    model, compared = fitted(fit_encoder, normals), []
    compare = model.compare
    monkeypatch.setattr(
        model, "compare", lambda query, exclude=None: compared.append(exclude) or compare(query, exclude)
    )
    sample = [(normals[8], None), (normals[1], 1)]
    model.fit((model.represent(part) for part in normals[:8].split(4)), 8, sample=sample)
    assert [None if index is None else index.tolist() for index in compared[8:]] == 3 * [None, [1]]


@torch.no_grad()
def test_map_shows_an_amount_that_no_normal_image_has(model):
    measured = model.measure(model.compare(model.represent(drawn(1, [SQUARES]))))
    expected = model.predict(measured).anomaly_map
    amounts = torch.zeros_like(measured["composition"].map)
    amounts[:, 5:10, 5:10] = 5 * model.scores["composition"].unit
    measured["composition"] = measured["composition"]._replace(map=amounts)
    found = model.predict(measured).anomaly_map - expected
    assert found.amax() > 3 * model.scores["composition"].map_trust
    assert found.amax(dim=(1, 2, 3)) > 10 * found[..., -1, -1].abs()


@torch.no_grad()
@pytest.mark.parametrize(
    "left_out",
    [
        {"objects"},
        {"composition", "layout"},
        *(pytest.param(names, marks=pytest.mark.slow) for names in ({"details", "anywhere"}, {"place"}, {"count"})),
    ],
)
def test_scores_need_no_others(normals, monkeypatch, left_out):
    def build(*arguments):
        scores = build_scores(*arguments)
        return nn.ModuleDict({name: score for name, score in scores.items() if name not in left_out})

    monkeypatch.setattr(torch_model, "build_scores", build)
    model = fill(build_model(**TELLING), normals)
    image = drawn(1, [SQUARES[:3]])
    assert model(image).pred_score > model(normals[:1]).pred_score
    (explanation,) = model.explain(image)
    assert {reason.score for reason in explanation.reasons} == model.scores.keys()
    assert len(explanation.scores) == 3
    assert explanation.scores.any() == ("objects" not in left_out)  # who measures no objects does not know


@torch.no_grad()
def test_layout_needs_composition(normals, monkeypatch):
    def build(*arguments):
        scores = build_scores(*arguments)
        del scores["composition"]
        return scores

    monkeypatch.setattr(torch_model, "build_scores", build)
    with pytest.raises(RuntimeError, match="with composition"):
        fill(build_model(), normals)


@torch.no_grad()
def test_only_so_many_normal_images_are_compared_place_by_place(normals, monkeypatch):
    monkeypatch.setattr(comparison, "ALIKE", 4)
    model = fill(build_model(k=2), normals)
    compared = model.compare(model.represent(drawn(1, [SQUARES] * 3)))
    assert compared.alike.shape == (3, 4)
    assert torch.equal(compared.references, compared.alike[:, :2])


@torch.no_grad()
def test_outline_has_the_keys_and_shares_of_the_template(model, normals):
    outline, template = model.outline(normals[:2]), model.represent(normals[:2])
    assert set(outline) == {"key", "shares"}
    assert all(torch.equal(outline[name], template[name]) for name in outline)


@torch.no_grad()
def test_map_does_not_depend_on_what_the_image_score_takes_of_it(normals):
    images = drawn(1, [SQUARES, SQUARES[:3]])
    highest, spread = (filled(normals, image_score=score, **TELLING)(images) for score in ("max", "std"))
    torch.testing.assert_close(spread.anomaly_map, highest.anomaly_map)
    assert not torch.equal(spread.pred_score, highest.pred_score)


@torch.no_grad()
@pytest.mark.parametrize("number", [1, 2, 5])
def test_object_less_or_more_is_worse_than_a_normal_image_whatever_the_number_of_normal_ones(normals, number):
    model = filled(normals, **TELLING)  # objects as they were found in all
    model.fit((model.represent(part) for part in normals[:number].split(1)), number)
    more = (*SQUARES, (24, 36, 160))
    own, less, surplus = model(torch.cat([normals[:1], drawn(1, [SQUARES[:3], more])])).pred_score
    assert less > own
    assert surplus > own


@torch.no_grad()
def test_fit_that_breaks_off_leaves_no_bank(normals, monkeypatch):
    model = filled(normals)

    def interrupted(measured):
        raise KeyboardInterrupt

    monkeypatch.setattr(model.scores["place"], "calibrate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.fit((model.represent(part) for part in normals.split(4)), len(normals))
    with pytest.raises(RuntimeError, match="the bank is empty"):
        model(normals[:1])


@torch.no_grad()
def test_scores_that_notice_nothing_are_all_trusted(normals, monkeypatch):
    monkeypatch.setattr(torch_model, "CHANGES", {"nothing": lambda image, other, generator: image})
    model = fitted(fit_encoder, normals)
    templates = (model.represent(part) for part in normals.split(4))
    model.fit(templates, len(normals), sample=[(image, i) for i, image in enumerate(normals[:4])])
    assert {float(score.trust) for score in model.scores.values()} == {1.0}
    assert {float(score.map_trust) for score in model.scores.values()} == {1.0}


@torch.no_grad()
def test_up_sampled_features_are_standardised_by_their_own_statistics(normals):
    for weights in ("jbu", "jbu_norm"):
        model = build_model(**VIT, upsample=2, upsampler_weights=weights)
        fit_encoder(model, normals)
        fine = model.encoder.maps(normals).fine.transpose(0, 1).flatten(1) * 32**0.5
        assert fine.mean(dim=1).abs().max() < 0.01
        assert fine.std(dim=1).median() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ({"objects": "sam_vit_b"}, 16),
        ({}, 8),  # clusters
        ({"objects": "sam_vit_b", **VIT}, 8),
        ({"objects": "sam_vit_b", **VIT, "upsampler_weights": "jbu"}, 16),
        ({"objects": "sam_vit_b", **VIT, "object_size": 5}, 5),
        ({"object_size": 17}, 17),
    ],
    ids=str,
)
def test_objects_are_compared_as_finely_as_features_and_segments_are(arguments, size, monkeypatch):
    monkeypatch.setattr(encoder, "_segment_anything", lambda *_: torch.nn.Identity())
    assert build_model(**{"object_size": None, **arguments}).encoder.object_size == size

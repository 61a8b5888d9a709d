# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import json
import math

import pytest
import torch

from anomalib_logic.explanations.findings import FoundObject, Region
from anomalib_logic.explanations.record import make_record, to_json
from anomalib_logic.models.sam_lad.explanation import Reason

NO_MASK = torch.zeros(1, 1, dtype=torch.bool)


def record(**changes):
    usual = {
        "file": "a.png",
        "size": (90, 300),
        "model": "Glcf",
        "score": 0.8,
        "threshold": 0.5,
        "anomalous": True,
        "pixel_threshold": 0.5,
        "regions": [],
        "objects": None,
        "reasons": None,
    }
    return make_record(**{**usual, **changes})


def region(*box, share=0.1, score=0.9):
    return Region(box, share, score, (0, 0))


def one(kind, *box, score=0.7):
    return FoundObject(kind, box or None, 0.01, score if box else None, NO_MASK)


def test_anomalous_image_is_said_with_its_largest_difference():
    said = record(regions=[region(0, 0, 90, 20, share=0.02), region(200, 60, 300, 90, share=0.01, score=0.6)])
    assert said["sentence"] == (
        "Anomalous: the score 0.800 is above the threshold 0.500. "
        "2 regions differ (3.0% of the image), most of all one at the top left."
    )


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((0, 0, 10, 10), "at the top left"),
        ((140, 0, 150, 10), "at the top"),
        ((140, 40, 160, 50), "in the centre"),
        ((290, 40, 300, 50), "at the right"),
        ((290, 80, 300, 90), "at the bottom right"),
        ((0, 0, 300, 90), "in the centre"),
    ],
)
def test_place_is_said_in_thirds_of_the_image(box, words):
    assert words in record(regions=[region(*box)])["sentence"]


def test_objects_are_said_by_kind_and_the_most_different_first():
    objects = [
        one("changed", 0, 0, 10, 10, score=0.6),
        one("normal", 0, 0, 10, 10),
        one("changed", 290, 0, 300, 10, score=0.9),
        one("missing"),
        one("surplus", 140, 40, 150, 50),
    ]
    said = record(objects=objects, regions=[region(0, 0, 1, 1)])
    assert [found["kind"] for found in said["objects"]] == ["missing", "surplus", "changed", "changed"]
    assert said["object_count"] == 4  # without the missing one
    assert said["sentence"].endswith(
        "Missing: 1 object. Surplus: 1 object in the centre. Changed: 2 objects at the top right, at the top left."
    )


REASONS = [Reason("count", 4.25, "the number of objects"), Reason("place", -0.5, "what is at a place")]


def test_reasons_are_listed_and_the_first_is_said():
    said = record(regions=[region(0, 0, 10, 10)], reasons=REASONS)
    assert said["reasons"] == [
        {"score": "count", "deviation": 4.25, "finding": "the number of objects"},
        {"score": "place", "deviation": -0.5, "finding": "what is at a place"},
    ]
    assert said["sentence"].endswith(
        "Most unusual is the number of objects (4.2 standard deviations above normal images)."
    )


@pytest.mark.parametrize("changes", [{"anomalous": False, "reasons": REASONS}, {"reasons": REASONS[1:]}])
def test_reason_is_not_said_of_a_normal_image_nor_where_nothing_is_above_normal(changes):
    assert "Most unusual" not in record(**changes)["sentence"]


def test_normal_image_lists_findings_but_its_sentence_does_not():
    said = record(anomalous=False, score=0.4, objects=[one("missing", 0, 0, 5, 5)])
    assert said["sentence"] == "Normal: the score 0.400 does not exceed the threshold 0.500."
    assert len(said["objects"]) == 1


def test_model_without_threshold_has_no_label():
    said = record(anomalous=None, threshold=None, pixel_threshold=None, regions=None, score=3.2)
    assert said["label"] is None
    assert "No threshold was measured" in said["sentence"]


@pytest.mark.parametrize("score", [math.nan, math.inf, None])
def test_score_that_is_no_number_is_null(score):
    assert json.loads(to_json(record(score=score, anomalous=None)))["score"] is None


def test_json_is_ascii_with_boxes_in_one_line_and_any_name():
    name = 'a "b" [\n  1,\n  2\n] größe \udcff.png'
    said = record(file=name, regions=[region(1, 2, 3, 4)])
    text = to_json(said)
    assert text.isascii()
    assert '"box": [1, 2, 3, 4]' in text
    assert json.loads(text) == said


def test_list_of_regions_ends_at_fifty_and_their_number_does_not():
    said = record(regions=[region(0, 0, 1, 1, share=0.001)] * 60)
    assert (len(said["regions"]), said["region_count"]) == (50, 60)
    assert said["anomalous_share"] == pytest.approx(0.06)


def test_records_fit_the_schema(schema):
    schema.validate(record())
    schema.validate(record(anomalous=None, score=None, threshold=None, pixel_threshold=None, regions=None))
    schema.validate(record(reasons=REASONS))
    schema.validate(
        record(regions=[region(0, 0, 300, 90, share=1.0)], objects=[one("missing"), one("surplus", 0, 0, 1, 1)])
    )


@pytest.mark.parametrize("change", [{"label": "bad"}, {"version": 2}, {"more": 1}, {"width": 0}, {"regions": [{}]}])
def test_schema_refuses_other_records(schema, change):
    assert not schema.is_valid({**record(), **change})

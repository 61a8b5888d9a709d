# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

from types import SimpleNamespace

import pytest
import torch
from torchvision.transforms.v2 import CenterCrop, Resize

from anomalib_logic.explanations.findings import find_objects, find_regions
from anomalib_logic.metrics.map_geometry import MapGeometry

from .conftest import tensor

NOTHING = torch.zeros(8, 8, dtype=torch.bool)
LEFT = tensor(["........"] * 2 + [".##....."] * 2 + ["........"] * 4)
RIGHT = tensor(["........"] * 4 + [".....##."] * 3 + ["........"])


def objects(masks=(), surplus=(), reference_masks=(), missing=()):
    def stacked(some):
        return torch.stack(list(some)) if len(some) else torch.zeros(0, 8, 8, dtype=torch.bool)

    flags = [torch.tensor(list(some), dtype=torch.bool) for some in (surplus, missing)]
    return SimpleNamespace(
        masks=stacked(masks), surplus=flags[0], reference_masks=stacked(reference_masks), missing=flags[1]
    )


def found(explained, anomaly_map, threshold=0.5, geometry=None):
    above = anomaly_map > threshold
    regions = find_regions(anomaly_map, above)
    return list(find_objects(explained, geometry or MapGeometry(), anomaly_map, above, regions))


def test_regions_have_exact_boxes_shares_and_highest_scores_first():
    scores = torch.zeros(10, 20)
    scores[2:4, 3:8] = 0.6
    scores[7, 15] = 0.9
    scores[8, 16] = 0.7  # touches at a corner
    first, second = find_regions(scores, scores > 0.5)
    assert (first.box, first.share, first.peak) == ((15, 7, 17, 9), 2 / 200, (7, 15))
    assert first.score == pytest.approx(0.9)
    assert (second.box, second.share) == ((3, 2, 8, 4), 10 / 200)


def test_map_without_anything_above_the_threshold_has_no_regions():
    assert find_regions(torch.ones(3, 3), torch.zeros(3, 3, dtype=torch.bool)) == []


def test_missing_object_is_where_the_normal_image_has_it():
    (one,) = found(objects(reference_masks=[LEFT, RIGHT], missing=[False, True]), torch.zeros(8, 8))
    assert (one.kind, one.box, one.share) == ("missing", (5, 4, 7, 7), 6 / 64)


def test_boxes_are_in_pixels_of_the_image_file():
    (one,) = found(objects(masks=[LEFT], surplus=[True]), torch.zeros(80, 160))
    assert one.kind == "surplus"
    assert one.box == pytest.approx((20, 20, 60, 40), abs=2)  # eighths of the sides


def test_boxes_of_a_model_that_crops_are_where_the_crop_was():
    geometry = MapGeometry(Resize((16, 32)), CenterCrop((8, 8)))
    (one,) = found(objects(masks=[LEFT], surplus=[True]), torch.zeros(160, 320), geometry=geometry)
    assert one.box == pytest.approx((120 + 10, 40 + 20, 120 + 30, 40 + 40), abs=3)


def test_object_with_the_peak_of_a_region_is_changed_and_others_are_not():
    scores = torch.zeros(8, 8)
    scores[2, 2] = 0.8
    left, right = found(objects(masks=[LEFT, RIGHT], surplus=[False, False]), scores)
    assert (left.kind, left.score) == ("changed", pytest.approx(0.8))
    assert (right.kind, right.score) == ("normal", 0.0)


def test_object_whose_half_is_above_the_threshold_is_changed_though_the_peak_is_elsewhere():
    scores = torch.zeros(8, 8)
    scores[2:4, 1], scores[2:4, 0] = 0.8, 0.9
    (one,) = found(objects(masks=[LEFT], surplus=[False]), scores)
    assert one.kind == "changed"


def test_object_that_is_barely_touched_by_a_region_is_not_changed():
    scores = torch.zeros(8, 8)
    scores[2, 1], scores[2, 0] = 0.8, 0.9
    (one,) = found(objects(masks=[LEFT], surplus=[False]), scores)
    assert one.kind == "normal"


@pytest.mark.parametrize("size", [(1, 40), (3, 2), (1, 1)])
def test_object_is_not_lost_in_an_image_that_is_smaller_than_its_mask(size):
    (one,) = found(objects(masks=[LEFT], surplus=[True]), torch.zeros(size))
    assert one.box[2] > one.box[0]
    assert one.box[3] > one.box[1]
    assert one.box[2] <= size[1]
    assert one.box[3] <= size[0]


def test_object_too_small_for_the_grid_of_masks_is_named_without_a_place():
    (one,) = found(objects(reference_masks=[NOTHING], missing=[True]), torch.zeros(8, 8))
    assert (one.kind, one.box, one.share, one.score) == ("missing", None, 0.0, None)

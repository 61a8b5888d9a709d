# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Scenes by themselves: their rules, the defects that break them, and what a defect changes in the picture."""

from __future__ import annotations

from collections import Counter

import cv2
import numpy as np
import pytest

from anomalib_logic.data._scenes import SCENES, Scene, render
from anomalib_logic.data._scenes.component_tray import COUNTS, ComponentTray
from anomalib_logic.data._scenes.pellet_dish import BEAN, LENTIL, NONE, PEA, SHARES, PelletDish
from anomalib_logic.data._scenes.tablet_blister import TabletBlister
from anomalib_logic.data._scenes.vial_rack import VialRack
from anomalib_logic.data._scenes.wire_plug import ORDER, WirePlug

SIZE = 96
SEEDS = range(4)
LOGICAL = [(category, defect) for category, scene in SCENES.items() for defect in scene.logical]
STRUCTURAL = [(category, defect) for category, scene in SCENES.items() for defect in scene.structural]


def blister_is_right(scene: TabletBlister) -> bool:
    one_each = all(len(pocket) == 1 for pocket in scene.pockets) and not scene.loose
    return one_each and all(
        not tablet.oblong and np.abs(tablet.colour - scene.colour).max() < 0.1
        for pocket in scene.pockets
        for tablet in pocket
    )


def tray_is_right(scene: ComponentTray) -> bool:
    there = [part for part in scene.parts if part.there]
    return Counter(part.kind for part in there) == COUNTS and all(part.colour == "red" for part in there)


def rack_is_right(scene: VialRack) -> bool:
    return all(vial.cap is not None and vial.cap == vial.label for vial in scene.vials)


def plug_is_right(scene: WirePlug) -> bool:
    return [(wire.slot, wire.colour) for wire in scene.wires if wire.there] == list(enumerate(ORDER))


def dish_is_right(scene: PelletDish) -> bool:
    """Count the pellets and look where around the dish each kind lies."""
    shares = {kind: np.mean(scene.kinds == kind) for kind in (PEA, LENTIL, BEAN, NONE)}
    middles = {PEA: 0.25, LENTIL: 0.625, BEAN: 0.875}
    near = [np.abs(scene.turns[scene.kinds == kind] - middle).max(initial=0) for kind, middle in middles.items()]
    return all(abs(shares[kind] - share) < 0.06 for kind, share in (SHARES | {NONE: 0}).items()) and all(
        distance <= SHARES[kind] / 2 for kind, distance in zip(middles, near, strict=True)
    )


RULES = {
    "tablet_blister": blister_is_right,
    "component_tray": tray_is_right,
    "vial_rack": rack_is_right,
    "wire_plug": plug_is_right,
    "pellet_dish": dish_is_right,
}


def arrange(category: str, seed: int) -> Scene:
    return SCENES[category](np.random.default_rng(seed))


@pytest.mark.parametrize("category", SCENES)
def test_normal_scene_obeys_the_rule(category):
    assert all(RULES[category](arrange(category, seed)) for seed in range(100))


@pytest.mark.parametrize(("category", "defect"), LOGICAL)
def test_logical_defect_breaks_the_rule(category, defect):
    for seed in range(30):
        scene = arrange(category, seed)
        scene.spoil(defect, np.random.default_rng(seed + 1))
        assert not RULES[category](scene)


# Other structural defects are damage to the picture, which no rule sees.
ARRANGED = [(category, defect) for category, defect in STRUCTURAL if SCENES[category].structural[defect].damage is None]


@pytest.mark.parametrize(("category", "defect"), ARRANGED)
def test_structural_defect_of_the_arrangement_keeps_the_rule(category, defect):
    for seed in range(30):
        scene = arrange(category, seed)
        scene.spoil(defect, np.random.default_rng(seed + 1))
        assert RULES[category](scene)


@pytest.mark.parametrize("category", SCENES)
def test_normal_image_has_no_masks(category):
    assert render(category, None, SIZE, (0, 0))[1] == []


@pytest.mark.parametrize(("category", "defect"), LOGICAL + STRUCTURAL)
def test_defect_shows_at_its_mask_and_nowhere_else(category, defect):
    for seed in SEEDS:
        normal, _ = render(category, None, SIZE, (seed, 5))
        image, masks = render(category, defect, SIZE, (seed, 5))
        change = np.abs(image.astype(int) - normal).max(axis=-1)
        assert masks
        for mask in masks:
            assert mask.any()
            assert change[mask].max() > 30
        reach = 2 * round(0.07 * SIZE) + 1  # of shadows and of parts beside the region
        near = cv2.dilate(np.logical_or.reduce(masks).astype(np.uint8), np.ones((reach, reach))).astype(bool)
        assert change[~near].max(initial=0) <= 1


@pytest.mark.parametrize(("category", "defect"), LOGICAL + STRUCTURAL)
def test_mask_is_no_larger_than_the_defect_has_to_be(category, defect):
    largest = 0.7 if category == "component_tray" and defect.startswith("missing") else 0.35
    for seed in SEEDS:
        _, masks = render(category, defect, 64, (seed, 6))
        assert np.logical_or.reduce(masks).mean() < largest


@pytest.mark.parametrize("category", SCENES)
@pytest.mark.parametrize("size", [64, 97, 400])
def test_every_size_shows_the_same_scene(category, size):
    defect = next(iter(SCENES[category].logical))
    image, masks = render(category, defect, size, (3,))
    assert image.shape == (size, size, 3)
    large, large_masks = render(category, defect, 256, (3,))
    small, reference = (cv2.resize(each, (16, 16), interpolation=cv2.INTER_AREA).ravel() for each in (image, large))
    assert np.corrcoef(small, reference)[0, 1] > 0.95
    for mask, large_mask in zip(masks, large_masks, strict=True):
        assert mask.shape == (size, size)
        place, expected = ((np.argwhere(each).mean(axis=0) + 0.5) / len(each) for each in (mask, large_mask))
        np.testing.assert_allclose(place, expected, atol=0.01)
        assert mask.mean() == pytest.approx(large_mask.mean(), rel=0.4)  # pixels that a region touches count in full


@pytest.mark.parametrize("category", SCENES)
def test_brightness_does_not_tell_logical_anomalies(category):
    """Means of images with a logical defect lie within those of normal images."""
    normal = np.array([render(category, None, 64, (0, index))[0].mean() for index in range(20)])
    for defect in SCENES[category].logical:
        means = np.array([render(category, defect, 64, (1, index))[0].mean() for index in range(6)])
        assert abs(means.mean() - normal.mean()) < 1.5 * normal.std()

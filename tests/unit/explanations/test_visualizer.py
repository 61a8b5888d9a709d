# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch
from anomalib.data import PredictDataset
from anomalib.visualization import ImageVisualizer
from PIL import Image

from anomalib_logic import ExplanationVisualizer, Glcf
from anomalib_logic.explanations.findings import FoundObject
from anomalib_logic.explanations.visualizer import COLOURS, draw_objects

from .conftest import Brightness, engine, write

SIZE = (48, 48)
SMALL_GLCF = {
    "backbone": "test_efficientnet",
    "pre_trained": False,
    "image_size": 64,
    "depth": 1,
    "width": 48,
    "heads": 4,
}


def pictures(tmp_path, model):
    """The pictures of a prediction of one image, side by side."""
    write(tmp_path / "in" / "a.png", (40, 60, 3), value=0.9)
    engine(tmp_path).predict(model, dataset=PredictDataset(tmp_path / "in"))
    (path,) = tmp_path.glob("results/**/images/**/a.png")
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("branch", ["both", "local", "global"])
def test_maps_of_the_branches_add_up_to_the_anomaly_map(branch):
    torch.manual_seed(0)
    model = Glcf(**SMALL_GLCF, branch=branch).eval().model
    images = torch.rand(2, 3, 64, 64)
    maps = model.branch_maps(images)
    wanted = {"both": {"local_map", "global_map"}, "local": {"local_map"}, "global": {"global_map"}}
    assert set(maps) == wanted[branch]
    torch.testing.assert_close(sum(maps.values()), model(images).anomaly_map, rtol=1e-4, atol=1e-4)


def with_known_branches(*panels):
    """A model whose local map is high above, and whose global map is high on the left."""
    visualizer = ExplanationVisualizer(panels or None, field_size=SIZE, text_config={"enable": False})
    model = Glcf(**SMALL_GLCF, visualizer=visualizer)
    high = torch.zeros(1, 1, 64, 64)
    high[:, :, :32] = 1
    model.model.branch_maps = lambda images: {"local_map": high, "global_map": high.transpose(2, 3)}
    return model


def redder(first, second):
    """Whether a part of a picture is red where another one is blue: high scores and low ones."""
    first, second = (part.reshape(-1, 3).mean(axis=0) for part in (first, second))
    return first[0] > second[0] + 50 and second[2] > first[2] + 50


def test_glcf_has_a_panel_for_each_branch_beside_anomalibs(tmp_path):
    picture = pictures(tmp_path, with_known_branches())
    assert picture.shape == (48, 5 * 48, 3)  # image, map, mask, local map, global map
    of_local, of_global = picture[:, 3 * 48 : 4 * 48], picture[:, 4 * 48 :]
    assert redder(of_local[:20], of_local[-20:])
    assert redder(of_global[:, :20], of_global[:, -20:])


def test_one_panel_can_be_chosen(tmp_path):
    picture = pictures(tmp_path, with_known_branches("global_map"))
    assert picture.shape == (48, 4 * 48, 3)
    assert redder(picture[:, 3 * 48 :][:, :20], picture[:, -20:])


def test_other_models_get_anomalibs_picture(tmp_path):
    ours, theirs = (
        pictures(tmp_path / kind.__name__, Brightness(visualizer=kind(field_size=SIZE)))
        for kind in (ExplanationVisualizer, ImageVisualizer)
    )
    assert np.array_equal(ours, theirs)


def test_unknown_panel_is_refused():
    with pytest.raises(ValueError, match="panels must be of"):
        ExplanationVisualizer(["heat"])


def test_objects_have_the_colours_of_their_kinds_at_the_size_of_the_picture():
    def one(kind, left):
        mask = torch.zeros(10, 40, dtype=torch.bool)
        mask[2:8, left : left + 8] = True
        return FoundObject(kind, (left, 2, left + 8, 8), 0.1, 0.5, mask)

    objects = [one(kind, 1 + 10 * i) for i, kind in enumerate(COLOURS)]
    drawn = np.asarray(draw_objects(Image.new("RGB", (160, 40)), objects)).astype(int)
    for i, (kind, colour) in enumerate(COLOURS.items()):
        expected = np.array([int(colour[j : j + 2], 16) for j in (1, 3, 5)])
        assert np.abs(drawn[27, 20 + 40 * i] - 0.4 * expected).max() < 3, kind
        box = drawn[31:33, 4 + 40 * i : 36 + 40 * i]
        assert (np.abs(box - expected).max(axis=-1) < 3).any() == (kind != "normal")


def test_image_without_objects_is_drawn_as_it_is():
    image = Image.new("RGB", (8, 8), "red")
    assert draw_objects(image, []).tobytes() == image.tobytes()

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import pytest
from anomalib.loggers.base import ImageLoggerBase
from PIL import Image

from anomalib_logic.benchmark import __main__ as command
from anomalib_logic.benchmark.plots import bars_of, chosen, draw_plots

FIGURES = {f"image_auroc{kind}": 0.8 for kind in ("", "_logical", "_structural")}


class Recorder(ImageLoggerBase):
    def __init__(self) -> None:
        self.names = []

    def add_image(self, image, name=None, **kwargs) -> None:
        assert image.axes
        assert kwargs == {"global_step": 0}
        self.names.append(name)


@pytest.fixture
def results(result):
    made = [result(FIGURES, model=model, seed=seed) for model in ("glcf", "padim") for seed in (0, 1)]
    for one in made:
        one["curves"] = {kind: {"fpr": [0.0, 0.3], "spro": [0.0, 1.0]} for kind in ("logical", "structural")}
    return made


def test_plots_are_written_as_files_and_given_to_a_logger(results, tmp_path):
    recorder = Recorder()
    files = draw_plots(results, tmp_path / "plots", recorder)
    assert recorder.names == ["scores-wire_plug", "curves-wire_plug", "bars"]
    assert [path.stem for path in files] == recorder.names
    for path in files:
        image = Image.open(path)
        assert len(image.convert("L").getcolors(256)) > 10  # not blank


def test_bars_span_the_seeds(result):
    made = [result({"image_auroc": value}, seed=seed) for seed, value in enumerate((0.5, 0.6, 0.9))]
    rows, means, ((below, above),) = bars_of(made, "image_auroc")
    assert rows == ["glcf"]
    assert means == pytest.approx([2 / 3])
    assert (means[0] - below, means[0] + above) == pytest.approx((0.5, 0.9))


def test_bars_of_a_kind_are_over_the_categories_that_have_it(result):
    made = [
        result({"image_auroc": 0.5, "image_auroc_structural": 0.7}),
        result({"image_auroc": 0.6}, category="digits"),
    ]
    assert bars_of(made, "image_auroc_structural")[1] == pytest.approx([0.7])
    assert bars_of(made, "image_auroc")[1] == pytest.approx([0.55])
    assert bars_of([*made[:1], result({}, category="digits", seed=1)], "image_auroc")[0] == []


def test_a_gallery_has_images_of_each_kind_at_equal_distances():
    kinds = ["good"] * 5 + ["logical"] * 12 + ["structural"] * 3
    assert chosen(kinds) == [5, 7, 9, 11, 13, 15, 17, 18, 19]


def test_plots_without_matplotlib_are_refused_before_anything_runs(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert command.main(["scenes", "--plots", f"--output={tmp_path}"]) == 2
    assert "pip install 'anomalib-logic[plots]'" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())

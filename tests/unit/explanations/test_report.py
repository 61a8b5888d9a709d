# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The page as text; how it behaves is in ``test_report_in_browser.py``."""

import base64
import re
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_logic import HtmlReport
from anomalib_logic.explanations.record import make_record
from anomalib_logic.explanations.report import render, verdict

from .conftest import ODD, Brightness, data, engine, surrogate_name, write

NASTY = "</script><script>alert('1')</script>&\"' onerror=x größe"


class Page(HTMLParser):
    """Names of a page's elements, and its attributes and texts."""

    def __init__(self, text: str):
        super().__init__()
        self.elements, self.attributes, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += attrs

    def handle_data(self, text):
        self.texts.append(text.strip())


def row(name="a.png", score=0.7, kind="good", anomalous=False, label="anomalous", **more):
    record = make_record(name, (10, 10), "Glcf", score, 0.5, label and label == "anomalous", 0.5, [], None, None)
    pictures = {"picture": "data:,", "map": "data:,", "truth": None}
    shown = {"record": record, "name": name, "kind": kind, "anomalous": anomalous}
    return {**shown, "verdict": verdict(anomalous, label), **pictures, **more}


def page(rows, metrics=None, max_pictures=500):
    about = {"model": "Glcf", "data": NASTY, "versions": "1"}
    return render(rows, metrics or {}, about, max_pictures)


def names(text):
    return re.findall(r"<h2[^>]*>([^<]*)</h2>", text)


@pytest.fixture
def report(parts, tmp_path):
    engine(tmp_path, HtmlReport()).test(Brightness(visualizer=False), datamodule=data(parts))
    (path,) = tmp_path.rglob("report.html")
    return path


@pytest.fixture
def report_with_masks(parts, tmp_path):
    for path in parts.rglob("one pixel high.png"):
        path.unlink()
    run = engine(tmp_path, HtmlReport(tmp_path / "report.html"))
    run.test(Brightness(visualizer=False), datamodule=data(parts, masks=True))
    return tmp_path / "report.html"


def test_predictions_get_no_report_and_that_is_said(parts, tmp_path, caplog):
    engine(tmp_path, HtmlReport()).predict(Brightness(visualizer=False), datamodule=data(parts))
    assert not list(tmp_path.rglob("report.html"))
    assert "HtmlReport reports test runs only" in caplog.text


def test_wrong_answers_come_first_then_the_highest_scores():
    rows = [
        row("right, low", 0.1, label="normal"),
        row("right, high", 0.9, anomalous=True),
        row("missed", 0.3, anomalous=True, label="normal"),
        row("open, without a score", None, anomalous=None, label=None),
        row("false alarm", 0.6),
    ]
    expected = ["false alarm", "missed", "right, high", "right, low", "open, without a score"]
    assert names(page(rows)) == expected


def test_every_text_is_escaped():
    clean, nasty = (Page(page([row(name, kind=name)], {name: 1.0})) for name in ("a", NASTY))
    assert nasty.elements == clean.elements
    assert [name for name, _ in nasty.attributes] == [name for name, _ in clean.attributes]
    assert nasty.texts.count(NASTY) >= 3  # heading, kind and figure


def test_images_beyond_the_number_of_pictures_keep_their_text():
    text = page([row(str(i), 0.9 - i / 10) for i in range(4)], max_pictures=1)
    assert names(text) == ["0", "1", "2", "3"]
    assert Page(text).elements.count("button") == 1
    assert "Only the first 1 images" in text


def test_report_has_every_image_of_a_run_on_odd_files(report):
    text = report.read_text(encoding="utf-8")
    shown = [t for t in Page(text).texts if t in (*ODD, "missed.png")]
    assert sorted(set(shown)) == sorted((*ODD, "missed.png"))
    assert "13 images. Wrong: 2" in text
    assert "(1 missed, 1 false alarms)" in text


def test_report_loads_nothing_from_elsewhere(report):
    addresses = [v for k, v in Page(report.read_text(encoding="utf-8")).attributes if k in ("src", "href", "action")]
    assert addresses
    assert all(address.startswith("data:image/webp;base64,") for address in addresses)
    assert "url(" not in report.read_text(encoding="utf-8")


def pictures_of(name, report):
    """The pictures on the card of an image."""
    text = report.read_text(encoding="utf-8")
    (card,) = (card for card in text[text.index("<ol") :].split("<li") if f">{name}</h2>" in card)
    found = re.findall(r'src="data:image/webp;base64,([^"]+)', card)
    return [Image.open(BytesIO(base64.b64decode(data))) for data in found]


def test_pictures_of_a_run_are_what_they_should_be(report_with_masks):
    """Picture, map and ground truth."""
    picture, heat, truth = pictures_of("missed.png", report_with_masks)
    assert picture.size == heat.size == truth.size == (60, 40)
    assert abs(picture.convert("L").getpixel((20, 15)) - 51) < 8
    assert truth.getchannel("A").getbbox() == pytest.approx((15, 10, 30, 20), abs=1)


def test_report_of_300_large_images_of_noise_is_below_30_megabytes(tmp_path):
    """One such image; noise compresses worst."""
    generator = np.random.default_rng(0)
    path = write(tmp_path / "good" / "noise.png", (1000, 1300, 3))
    Image.fromarray(generator.integers(0, 255, (1000, 1300, 3), dtype=np.uint8)).save(path)
    run = engine(tmp_path, HtmlReport(tmp_path / "report.html"))
    from anomalib.data import PredictDataset
    from torch.utils.data import DataLoader

    dataset = PredictDataset(path)
    run.test(Brightness(visualizer=False), dataloaders=DataLoader(dataset, collate_fn=dataset.collate_fn))
    empty = len(page([]))
    assert 300 * ((tmp_path / "report.html").stat().st_size - empty) + empty < 30e6


def test_name_that_is_no_unicode_is_shown(tmp_path):
    folder = tmp_path / "parts" / "good & new"
    write(folder / "plain.png", (9, 9, 3))
    try:
        write(folder / "x.png", (9, 9, 3)).rename(folder / surrogate_name())
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    text = page([row(surrogate_name())])
    path = tmp_path / "report.html"
    from anomalib_logic._files import write_text

    write_text(path, text)
    assert "caf\\udce9.png" in path.read_text(encoding="utf-8")


def test_path_that_is_a_folder_is_refused_before_the_run(parts, tmp_path):
    with pytest.raises(IsADirectoryError, match="path must be a file"):
        engine(tmp_path, HtmlReport(tmp_path)).test(Brightness(visualizer=False), datamodule=data(parts))


def test_interrupted_run_leaves_the_former_report(parts, tmp_path):
    class Failing(Brightness):
        def test_step(self, batch, batch_idx):
            if batch_idx == 1:
                msg = "power failure"
                raise RuntimeError(msg)
            return super().validation_step(batch)

    (tmp_path / "report.html").write_text("former")
    with pytest.raises(RuntimeError, match="power failure"):
        engine(tmp_path, HtmlReport(tmp_path / "report.html")).test(Failing(visualizer=False), datamodule=data(parts))
    assert (tmp_path / "report.html").read_text() == "former"


def test_size_below_one_is_refused():
    with pytest.raises(ValueError, match="picture_size and max_pictures"):
        HtmlReport(picture_size=0)


def test_model_without_maps_is_reported(parts, tmp_path):
    class Classifier(Brightness):
        def validation_step(self, batch, *args):
            score = batch.image.amax(dim=(1, 2, 3))
            return batch.update(pred_score=score)

        test_step = validation_step

    engine(tmp_path, HtmlReport(tmp_path / "r.html")).test(Classifier(visualizer=False), datamodule=data(parts))
    assert "missed.png" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_raw_maps_of_a_model_without_post_processor_are_drawn(parts, tmp_path):
    class Raw(Brightness):
        def __init__(self):
            super().__init__(visualizer=False)
            self.post_processor = None

        def test_step(self, batch, *args):
            batch = super().validation_step(batch)
            return batch.update(anomaly_map=500 * batch.anomaly_map)

    engine(tmp_path, HtmlReport(tmp_path / "r.html")).test(Raw(), datamodule=data(parts))
    assert "Without label or threshold: 13." in (tmp_path / "r.html").read_text(encoding="utf-8")
    _, heat = pictures_of("plain.png", tmp_path / "r.html")
    (red, _, blue), (other_red, _, other_blue) = (heat.getpixel(place) for place in ((24, 18), (50, 36)))
    assert red > other_red + 50  # in the bright square, and beside it
    assert other_blue > blue + 50


def test_two_processes_write_one_report(tmp_path):
    """The files between them, without the processes."""
    from types import SimpleNamespace

    def trainer(rank):
        barrier = SimpleNamespace(barrier=lambda: None)
        return SimpleNamespace(world_size=2, global_rank=rank, is_global_zero=rank == 0, strategy=barrier)

    reports = [HtmlReport(tmp_path / "report.html") for _ in range(2)]
    reports[0]._rows, reports[1]._rows = [row("a"), row("b")], [row("c"), row("a")]
    reports[1]._gather(trainer(1))
    assert sorted(r["name"] for r in reports[0]._gather(trainer(0))) == ["a", "b", "c"]
    assert not list(tmp_path.glob("*.json"))


def test_small_defect_is_seen_in_the_small_picture_of_the_ground_truth():
    from anomalib_logic.explanations.report import _truth

    mask = torch.zeros(1000, 1000)
    mask[500, 500] = 1
    assert _truth(mask, (100, 100)).getchannel("A").getbbox() == (50, 50, 51, 51)

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Runs of Anomalib's engine on odd files, with the post-processor and the visualiser of Anomalib."""

import json
import logging

import pytest
import torch
from anomalib.data import PredictDataset
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import RandomRotation

from anomalib_logic import ExplanationWriter

from .conftest import ODD, SCRIPT, Brightness, data, engine, write


def predicted(parts, folder, model=None, **arguments):
    """JSON files of a prediction of all images below a folder, by their path."""
    engine(folder, ExplanationWriter(**arguments)).predict(model or Brightness(), dataset=PredictDataset(parts))
    return {path: json.loads(path.read_text()) for path in folder.rglob("*.json")}


def test_each_odd_file_has_a_valid_json_beside_its_picture(parts, tmp_path, schema):
    folder = parts / SCRIPT
    records = predicted(folder, tmp_path)
    assert {path.name for path in records} == {f"{name}.json" for name in (*ODD, "missed.png")}
    for path, record in records.items():
        schema.validate(record)
        assert path.with_suffix("").is_file()  # the picture
        assert record["file"] == str(folder / "script>" / path.stem)


def test_boxes_are_in_pixels_of_the_file_and_not_of_the_models_input(parts, tmp_path):
    records = {path.stem: record for path, record in predicted(parts / SCRIPT, tmp_path).items()}
    (region,) = records["plain.png"]["regions"]
    assert (records["plain.png"]["width"], records["plain.png"]["height"]) == (64, 48)
    assert region["box"] == pytest.approx([16, 12, 32, 24], abs=2)
    assert region["share"] == pytest.approx(1 / 16, rel=0.2)


def test_label_is_that_of_the_post_processor(parts, tmp_path):
    records = {path.stem: record for path, record in predicted(parts / SCRIPT, tmp_path).items()}
    assert records["plain.png"]["label"] == "anomalous"
    assert records["missed.png"]["label"] == "normal"
    assert {record["threshold"] for record in records.values()} == {0.5}


def test_sensitivity_moves_the_threshold_that_is_named(parts, tmp_path):
    model = Brightness()
    model.post_processor.image_sensitivity = 0.9
    records = predicted(parts / "good & new", tmp_path, model)
    assert [record["threshold"] for record in records.values()] == pytest.approx([0.1] * 4)


def test_model_without_thresholds_gets_no_label(parts, tmp_path, schema):
    model = Brightness()
    for buffer in model.post_processor.buffers():
        buffer.fill_(float("nan"))
    records = predicted(parts / SCRIPT, tmp_path, model)
    assert len(records) == len(ODD) + 1
    for record in records.values():
        schema.validate(record)
        assert record["label"] is record["threshold"] is record["regions"] is None
        assert record["score"] is not None


def test_mask_of_another_rule_than_the_threshold_gives_the_regions(parts, tmp_path):
    class Masked(Brightness):
        def validation_step(self, batch, *args):
            mask = torch.zeros(len(batch.image), 32, 32, dtype=torch.bool)
            mask[:, 16:] = True
            return super().validation_step(batch, *args).update(pred_mask=mask)

        predict_step = validation_step

    record = next(iter(predicted(parts / "good & new", tmp_path, Masked()).values()))
    assert record["pixel_threshold"] is None
    assert [region["box"] for region in record["regions"]] == [[0, 20, 60, 40]]


def test_images_of_one_name_have_files_of_their_own(tmp_path, caplog):
    sources = {str(write(tmp_path / f"in/{line}/größe/1.png", (9, 9, 3))) for line in ("a", "b")}
    with caplog.at_level(logging.WARNING, "anomalib_logic"):
        records = predicted(tmp_path / "in", tmp_path / "out")
    assert {record["file"] for record in records.values()} == sources
    assert "is of another image" in caplog.text


def test_second_run_replaces_the_files_of_the_first(parts, tmp_path):
    first = predicted(parts / "good & new", tmp_path, output_dir=tmp_path / "out")
    again = predicted(parts / "good & new", tmp_path, output_dir=tmp_path / "out")
    assert first == again
    assert not list((tmp_path / "out").rglob("*.tmp*"))


def test_returned_batches_have_the_sentences(parts, tmp_path):
    run = engine(tmp_path, ExplanationWriter())
    batches = run.predict(Brightness(), dataset=PredictDataset(parts / "good & new"))
    assert [batch.explanation[0].split(":")[0] for batch in batches] == ["Normal"] * 3 + ["Anomalous"]


def test_test_run_writes_files_too(parts, tmp_path):
    engine(tmp_path, ExplanationWriter(tmp_path / "out")).test(Brightness(visualizer=False), datamodule=data(parts))
    assert len(list((tmp_path / "out").rglob("*.json"))) == len(ODD) + 1 + 4


def test_folder_that_is_a_file_is_refused_before_the_run(parts, tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(NotADirectoryError, match="output_dir must be a folder"):
        predicted(parts, tmp_path, output_dir=tmp_path / "out")


def test_geometry_that_cannot_be_undone_is_refused_before_the_first_image(parts, tmp_path):
    model = Brightness(pre_processor=PreProcessor(RandomRotation(9)))
    with pytest.raises(ValueError, match="RandomRotation"):
        predicted(parts, tmp_path, model)
    assert not list(tmp_path.rglob("*.json"))


def test_map_that_is_not_finite_is_an_error_that_names_the_file(parts, tmp_path):
    class Broken(Brightness):
        def predict_step(self, batch, *args):
            batch = super().validation_step(batch)
            return batch.update(anomaly_map=batch.anomaly_map * float("nan"))

    with pytest.raises(ValueError, match=r"0\.png: anomaly map must have finite scores"):
        predicted(parts / "good & new", tmp_path, Broken(visualizer=False))

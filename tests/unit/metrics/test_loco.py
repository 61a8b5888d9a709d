# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The command on maps in MVTec's layout."""

import json
import shutil

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from anomalib_logic import AUsPRO
from anomalib_logic.metrics import loco
from anomalib_logic.metrics.functional import auroc, resize_anomaly_map

from .conftest import CONFIG, SIZE, batches

LIMITS = ["0.01", "0.05", "0.1", "0.3", "1.0"]


@pytest.fixture
def anomaly_maps(test_set, tmp_path):
    """The test set's maps on disk."""
    folder = tmp_path / "maps"
    for path, kind, scores in zip(test_set.paths, test_set.kinds, test_set.maps, strict=True):
        file = folder / "tray" / "test" / kind / f"{path[-7:-4]}.tiff"
        file.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(file, scores.numpy())
    return folder


@pytest.fixture
def command(test_set, anomaly_maps, tmp_path):
    """Run the command; return its exit status and the JSON file that it may have written."""

    def run(*arguments, objects=("tray",)):
        output = tmp_path / "metrics.json"
        options = ["--dataset", str(test_set.category.parent), "--anomaly-maps", str(anomaly_maps)]
        return loco.main([*options, "--object", *objects, "--output", str(output), *arguments]), output

    return run


def first_map(anomaly_maps):
    return anomaly_maps / "tray" / "test" / "good" / "000.tiff"


def test_localization_is_that_of_the_metric_at_all_limits(test_set, command):
    status, output = command()
    metrics = json.loads(output.read_text())["localization"]["auc_spro"]
    assert status == 0
    for kind in ("logical", "structural", "mean"):
        folder = kind if kind == "mean" else f"{kind}_anomalies"
        assert list(metrics[folder]) == LIMITS
        for limit in LIMITS:
            metric = AUsPRO(limit=float(limit), kind=kind)
            for batch in batches(test_set, 9):
                metric.update(batch)
            assert metrics[folder][limit] == pytest.approx(metric.compute().item(), abs=1e-7)


def test_classification_is_the_auroc_of_the_maxima_of_the_maps_at_the_images_size(test_set, command):
    metrics = json.loads(command()[1].read_text())["classification"]["auc_roc"]
    maxima = torch.stack([resize_anomaly_map(m, SIZE).max() for m in test_set.maps])
    expected = [auroc(maxima[:4], maxima[4:7]).item(), auroc(maxima[:4], maxima[7:]).item()]
    assert [metrics["logical_anomalies"], metrics["structural_anomalies"]] == pytest.approx(expected)
    assert metrics["mean"] == pytest.approx(sum(expected) / 2)


def test_figures_of_each_defect_are_an_option(test_set, command):
    metrics = json.loads(command("--per-defect")[1].read_text())["localization"]["auc_spro_per_defect"]
    assert metrics.pop("unseen") is None
    assert set(metrics) == {"missing", "scratch"}
    for defect, figures in metrics.items():
        assert list(figures) == LIMITS
        for limit, figure in figures.items():
            metric = AUsPRO(limit=float(limit), defect=defect)
            for batch in batches(test_set, 9):
                metric.update(batch)
            assert figure == pytest.approx(metric.compute().item(), abs=1e-7)


def test_several_objects_give_their_mean(test_set, anomaly_maps, command):
    shutil.copytree(test_set.category, test_set.category.with_name("crate"))
    shutil.copytree(anomaly_maps / "tray", anomaly_maps / "crate")
    for path in (anomaly_maps / "crate").rglob("*.tiff"):
        tifffile.imwrite(path, -tifffile.imread(path))
    results = json.loads(command(objects=("tray", "crate"))[1].read_text())
    for section, metric in (("localization", "auc_spro"), ("classification", "auc_roc")):
        values = [results["objects"][name][section][metric]["mean"] for name in ("tray", "crate")]
        values = [value["0.05"] if isinstance(value, dict) else value for value in values]
        mean = results[section][metric]["mean"]
        assert values[0] != values[1]
        assert (mean["0.05"] if isinstance(mean, dict) else mean) == pytest.approx(sum(values) / 2)


def test_number_of_workers_changes_nothing(command):
    files = [command("--workers", workers)[1].read_text() for workers in ("1", "3")]
    assert files[0] == files[1]


def test_figures_that_cannot_be_written_are_printed(command, monkeypatch, capsys):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(loco, "write_json", full)
    assert command()[0] == 1
    printed = capsys.readouterr()
    assert "localization" in json.loads(printed.out)
    assert "could not be written" in printed.err and "no space left on device" in printed.err


def test_command_leaves_the_number_of_threads_alone(command):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        command()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_figures_go_to_the_standard_output_without_an_output_file(test_set, anomaly_maps, capsys):
    options = ["--dataset", str(test_set.category.parent), "--anomaly-maps", str(anomaly_maps), "--object", "tray"]
    assert loco.main(options) == 0
    printed = capsys.readouterr()
    assert set(json.loads(printed.out)) == {"localization", "classification"}
    assert "tray: 100%" in printed.err


@pytest.mark.parametrize("dtype", ["float16", "float64", "int16"])
def test_maps_of_other_numbers_have_the_figures_of_the_same_scores_in_single_precision(anomaly_maps, command, dtype):
    files = list(anomaly_maps.rglob("*.tiff"))
    for path in files:
        tifffile.imwrite(path, (10 * tifffile.imread(path)).astype(dtype).astype("float32"))
    expected = read(command())
    for path in files:
        tifffile.imwrite(path, tifffile.imread(path).astype(dtype))
    assert read(command()) == expected


def read(result):
    status, output = result
    assert status == 0
    return json.loads(output.read_text())


def remove_kind(category, anomaly_maps, kind="structural_anomalies"):
    for folder in (category / "test", category / "ground_truth", anomaly_maps / category.name / "test"):
        shutil.rmtree(folder / kind)


@pytest.mark.parametrize("kind", ["logical_anomalies", "structural_anomalies"])
def test_category_with_one_kind_gets_that_kinds_figures_and_the_rest_is_said_to_be_left_out(
    category, anomaly_maps, command, capsys, kind
):
    both = read(command())
    other = {"logical_anomalies": "structural_anomalies", "structural_anomalies": "logical_anomalies"}[kind]
    remove_kind(category, anomaly_maps, other)
    results = read(command())
    assert results["localization"]["auc_spro"] == {kind: both["localization"]["auc_spro"][kind]}
    assert results["classification"]["auc_roc"] == {kind: both["classification"]["auc_roc"][kind]}
    assert f"tray: no test images in {other}, so its metrics and the mean are left out" in capsys.readouterr().err


def test_mean_over_objects_is_over_those_that_have_the_figure_and_their_number_is_given(
    test_set, anomaly_maps, command
):
    crate = test_set.category.with_name("crate")
    shutil.copytree(test_set.category, crate)
    shutil.copytree(anomaly_maps / "tray", anomaly_maps / "crate")
    remove_kind(crate, anomaly_maps)
    results = read(command(objects=("tray", "crate")))
    auc_roc, tray = (part["classification"]["auc_roc"] for part in (results, results["objects"]["tray"]))
    assert auc_roc["structural_anomalies"] == tray["structural_anomalies"]
    assert results["number_of_objects"]["classification"]["auc_roc"] == {
        "logical_anomalies": 2,
        "structural_anomalies": 1,
        "mean": 1,
    }
    assert results["number_of_objects"]["localization"]["auc_spro"]["structural_anomalies"]["0.05"] == 1


def test_category_without_ground_truth_gets_the_same_image_figures_and_no_localization(category, command, capsys):
    both = read(command())
    shutil.rmtree(category / "ground_truth")
    assert read(command("--per-defect")) == {"classification": both["classification"]}
    assert "tray: no ground_truth folder and so no masks: localization is left out" in capsys.readouterr().err


def test_each_defect_folder_of_autovi_has_the_figures_of_the_same_images_in_locos_layout(
    category, anomaly_maps, command, request
):
    loco_metrics = read(command("--per-defect"))
    request.getfixturevalue("autovi_set")
    names = {"logical_anomalies": "no clip", "structural_anomalies": "scratch"}
    for kind, name in names.items():
        (anomaly_maps / "tray" / "test" / kind).rename(anomaly_maps / "tray" / "test" / name)
    autovi_metrics = read(command("--per-defect"))
    for section, metric in (("localization", "auc_spro"), ("classification", "auc_roc")):
        expected = {names.get(kind, kind): value for kind, value in loco_metrics[section][metric].items()}
        assert autovi_metrics[section][metric] == expected
    assert autovi_metrics["localization"]["auc_spro_per_defect"] == loco_metrics["localization"]["auc_spro_per_defect"]


def test_images_of_other_formats_are_measured(category, command):
    before = read(command())
    for path in (category / "test").rglob("*.png"):
        with Image.open(path) as image:
            image.save(path.with_suffix(".jpg"))
        path.unlink()
    assert read(command()) == before


def break_shape(category, maps):
    tifffile.imwrite(first_map(maps), np.zeros((3, 10, 12), np.float32))


def break_nan(category, maps):
    tifffile.imwrite(first_map(maps), np.full((10, 12), np.nan, np.float32))


def break_infinity(category, maps):
    tifffile.imwrite(first_map(maps), np.full((10, 12), 1e300))


def break_tiff(category, maps):
    first_map(maps).write_bytes(first_map(maps).read_bytes()[:300])


def remove_map(category, maps):
    first_map(maps).unlink()


def remove_maps(category, maps):
    shutil.rmtree(maps / "tray")


def add_map(category, maps):
    shutil.copy(first_map(maps), first_map(maps).with_name("099.tiff"))


def add_map_folder(category, maps):
    shutil.copytree(first_map(maps).parent, first_map(maps).parent.with_name("broken"))


def double_map(category, maps):
    shutil.copy(first_map(maps), first_map(maps).with_suffix(".tif"))


def break_mask(category, maps):
    pixels = np.zeros(SIZE, np.uint8)
    pixels[0, :2] = (254, 255)
    Image.fromarray(pixels).save(category / "ground_truth" / "logical_anomalies" / "000" / "000.png")


def remove_defect(category, maps):
    (category / "defects_config.json").write_text(json.dumps(CONFIG[:1]))


def remove_config(category, maps):
    (category / "defects_config.json").unlink()


def break_config(category, maps):
    (category / "defects_config.json").write_text("[{]")


def raise_threshold(category, maps):
    (category / "defects_config.json").write_text(json.dumps([{**CONFIG[0], "saturation_threshold": 1.01}]))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_shape, "000.tiff must be 2-D (height, width) and real, got shape (3, 10, 12)"),
        (break_nan, "000.tiff must have finite scores only"),
        (break_infinity, "000.tiff must have finite scores only"),
        (break_tiff, "000.tiff is not a readable TIFF file"),
        (remove_map, "1 of 9 test images have no map"),
        (remove_maps, "9 of 9 test images have no map"),
        (add_map, "1 maps belong to no test image"),
        (add_map_folder, "4 maps belong to no test image"),
        (double_map, "are maps of the same image"),
        (break_mask, "must have exactly one non-zero pixel value, got [254, 255]"),
        (remove_defect, "unknown pixel value 254"),
        (remove_config, "defects_config.json does not exist"),
        (break_config, "is not valid JSON"),
        (raise_threshold, "saturation_threshold must be a share of the area in (0, 1], got 1.01"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_bad_input_is_one_error_and_writes_nothing(category, anomaly_maps, command, capsys, damage, message):
    damage(category, anomaly_maps)
    status, output = command()
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert (status, len(lines)) == (1, 1)
    assert message in lines[0]
    assert sorted(path.name for path in output.parent.iterdir()) == ["data", "maps"]


def test_bad_input_leaves_an_earlier_file_as_it_is(anomaly_maps, command):
    before = command()[1].read_text()
    break_nan(None, anomaly_maps)
    status, output = command()
    assert (status, output.read_text()) == (1, before)


def test_unknown_object_is_named_with_those_there_are(command, capsys):
    assert command(objects=("tray", "box"))[0] == 1
    assert "object must be a folder of" in (error := capsys.readouterr().err)
    assert "('tray',), got 'box'" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "no/such/folder/f.json"], "--output must be a file in a folder that exists, got no/such/folder"),
        (["--workers", "0"], "--workers must be at least 1, got 0"),
    ],
)
def test_option_out_of_range_is_refused_by_name(command, arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        command(*arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err

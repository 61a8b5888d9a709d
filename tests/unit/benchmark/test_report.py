# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import csv
from pathlib import Path

import pytest

from anomalib_logic.benchmark.jobs import failure, read_results
from anomalib_logic.benchmark.report import page, published, section, write_csv
from anomalib_logic.benchmark.suites import OURS, PEERS, SUITES

REPOSITORY = Path(__file__).parents[3]
RESULTS, PAGE = REPOSITORY / "docs/results", REPOSITORY / "docs/results.md"


def auroc(logical: float, structural: float) -> dict[str, float]:
    return {
        "image_auroc_logical": logical,
        "image_auroc_structural": structural,
        "image_auroc": (logical + structural) / 2,
    }


def test_figures_are_means_over_categories_with_the_deviation_over_seeds(result):
    results = [
        result(auroc(logical, 0.5), category=category, seed=seed)
        for category, seed, logical in (("a", 0, 0.8), ("b", 0, 0.6), ("a", 1, 0.9), ("b", 1, 0.7))
    ]
    text = section("scenes", results)
    # seeds: 0.7 and 0.8; standard deviation of the two 0.0707
    assert (
        "| glcf | tf_efficientnet_lite0, 256 | 2 | 0.750 ± 0.071 / 0.500 ± 0.000 / 0.625 ± 0.035 | 10 | 5 | 700 |"
        in text
    )
    assert "| glcf | tf_efficientnet_lite0, 256 | 0.850 / 0.500 | 0.650 / 0.500 |" in text


def test_a_seed_without_all_categories_is_in_no_mean(result):
    whole = [result(auroc(0.8, 0.8), category=category, seed=0) for category in ("a", "b")]
    part = [result(auroc(0.1, 0.1), category="a", seed=1)]
    summary, _, _ = section("scenes", whole + part).partition("Image AUROC by category")
    (row,) = (line for line in summary.splitlines() if line.startswith("| glcf | tf"))
    assert "| 1 | 0.800 / 0.800 / 0.800 |" in row
    alone = section("scenes", [*whole, result(auroc(0.3, 0.3), category="a", model="padim")])
    summary, _, _ = alone.partition("Image AUROC by category")
    (row,) = (line for line in summary.splitlines() if line.startswith("| padim | tf"))
    assert "| 0 |  | 10 |" in row


def test_settings_have_rows_of_their_own(result):
    results = [result(auroc(0.8, 0.8)), result(auroc(0.6, 0.6), limit=5), result(auroc(0.7, 0.7), epochs=3)]
    text = section("scenes", results)
    assert all(f"\n| {name} |" in text for name in ("glcf", "glcf, 5 images at most", "glcf, 3 epochs"))


def test_each_machine_is_named_once_with_the_sources_and_the_models_of_each(result):
    one, two, three = result({}), result({}, model="padim"), result({}, model="lgfdr")
    two["environment"] = {**one["environment"], "source": "2"}
    three["environment"] = {**one["environment"], "processor": "another"}
    text = section("scenes", [one, two, one, three])
    versions = "anomalib-logic 1, anomalib 1, torch 1, lightning 1, timm 1, python 1"
    assert f"{versions}; a processor, 2 core(s), 1 thread(s), cpu. Source: 1 (glcf), 2 (padim).\n" in text
    assert f"{versions}; another, 2 core(s), 1 thread(s), cpu. Source: 1 (lgfdr).\n" in text


def test_a_model_without_maps_has_an_empty_cell(result):
    maps = {"au_spro_logical": 0.1, "au_spro_structural": 0.3, "au_spro": 0.2}
    text = section("scenes", [result(auroc(0.8, 0.8) | maps), result(auroc(0.6, 0.6), model="ganomaly")])
    assert "| 0.800 / 0.800 / 0.800 | 0.100 / 0.300 / 0.200 |" in text
    assert "| 0.600 / 0.600 / 0.600 |  | 10 |" in text


def test_failures_are_listed_once_with_their_number(job, result):
    failed = [{"job": vars(job(model="draem", seed=seed)), **failure("URLError: no network")} for seed in (0, 1)]
    text = section("scenes", [result(auroc(0.8, 0.8)), *failed])
    assert "* draem, 2 jobs: URLError: no network" in text


def test_published_figures_stand_beside_ours(result):
    text = section("digits", [result({"image_auroc": 0.8, "image_auroc_logical": 0.8}, ("logical",), suite="digits")])
    assert "| glcf | mean | image_auroc | 0.800 | 0.786 | SAM-LAD, table 4 (other images of digits) |" in text
    assert "| sam_lad | mean | image_auroc |  | 0.923 |" in text


def test_figures_of_diseases_have_columns_and_those_of_many_defects_have_none(result):
    diseases = {f"image_auroc_{kind}": 0.9 for kind in ("CNV", "DME", "DRUSEN")}
    text = section("oct", [result({"image_auroc": 0.8, **diseases}, ("CNV", "DME", "DRUSEN"), suite="oct")])
    assert "| image AUROC, CNV / DME / DRUSEN / mean |" not in text  # one figure of all together is no mean
    assert "| image AUROC, CNV / DME / DRUSEN / all |" in text
    assert "| 0.900 / 0.900 / 0.900 / 0.800 |" in text
    many = tuple("abcd")
    defects = {f"image_auroc_{kind}": 0.9 for kind in many}
    assert "| image AUROC |" in section("mvtec", [result({"image_auroc": 0.8, **defects}, many, suite="mvtec")])


def test_csv_has_a_line_for_each_job(result, job, tmp_path):
    failed = {"job": vars(job(seed=1)), **failure("no, not this")}
    write_csv([result(auroc(0.8, 0.7)), failed], tmp_path / "scenes.csv")
    with (tmp_path / "scenes.csv").open() as file:
        first, second = csv.DictReader(file)
    assert (first["image_auroc_structural"], first["fit_seconds"], first["status"]) == ("0.7", "10.0", "done")
    assert (second["image_auroc"], second["error"], second["status"]) == ("", "no, not this", "failed")


def test_published_figures_are_shares_of_known_models_and_categories():
    figures = published()
    assert len({(one.suite, one.category, one.model, one.figure, one.source) for one in figures}) == len(figures)
    for one in figures:
        assert 0.5 < one.value <= 1 or one.figure.startswith("au_spro")
        assert one.model in (*OURS, *PEERS)
        assert one.category in (*SUITES[one.suite].categories, "mean")


@pytest.fixture
def results():
    found = read_results(RESULTS)
    assert found
    return found


def test_page_of_results_is_what_the_command_writes_of_the_result_files(results):
    assert PAGE.read_text(encoding="utf-8") == page(results, "docs/results")

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The metric from batches and files, over batches and processes."""

import json
import math
import multiprocessing
import pickle
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anomalib.metrics import Evaluator
from PIL import Image

from anomalib_logic import AUsPRO, LocoAUROC
from anomalib_logic.metrics.functional import resize_anomaly_map

from .conftest import CONFIG, SIZE, arguments_of_reference, batches
from .reference import reference_area, reference_curve

KINDS = ("logical", "structural", "mean")


def value_of(test_set, size=4, **arguments):
    metric = AUsPRO(**arguments)
    for batch in batches(test_set, size):
        metric.update(batch)
    return metric.compute().item()


def coarsen(test_set):
    """Make maps of the images' size with some hundred distinct scores, for the reference to be fast."""
    test_set.maps = torch.stack([(10 * resize_anomaly_map(m, SIZE)).round() for m in test_set.maps])


def every_threshold(maps):
    return [*torch.cat([m.flatten() for m in maps]).unique().flip(0).tolist(), -math.inf]


@pytest.mark.parametrize("kind", ["logical", "structural"])
@pytest.mark.parametrize("limit", [0.05, 1.0])
def test_figure_is_that_of_the_definition_at_every_distinct_score(test_set, kind, limit):
    coarsen(test_set)
    arguments = arguments_of_reference(test_set, ("good", f"{kind}_anomalies"))
    fpr, spro = reference_curve(*arguments, every_threshold(arguments[0]))
    expected = reference_area(fpr.tolist(), spro.tolist(), limit)
    assert value_of(test_set, limit=limit, kind=kind) == pytest.approx(expected, abs=1e-6)


def test_mean_is_of_the_two_kinds(test_set):
    logical, structural, mean = (value_of(test_set, kind=kind) for kind in KINDS)
    assert mean == pytest.approx((logical + structural) / 2)


def test_figure_of_a_defect_considers_good_images_and_those_that_show_it(test_set):
    coarsen(test_set)
    maps, channels, areas, scratches, scratch_areas = arguments_of_reference(test_set, test_set.kinds, defect=254)
    assert (len(maps), sum(map(len, scratches))) == (7, 3)
    thresholds = every_threshold(maps)
    fpr, _ = reference_curve(maps, channels, areas, thresholds)
    _, spro = reference_curve(maps, scratches, scratch_areas, thresholds)
    expected = reference_area(fpr.tolist(), spro.tolist(), 0.3)
    assert value_of(test_set, defect="scratch", limit=0.3) == pytest.approx(expected, abs=1e-6)


def test_defect_that_no_image_shows_has_no_metric(test_set):
    assert math.isnan(value_of(test_set, defect="unseen"))


def test_name_tells_limit_and_kind():
    metrics = [AUsPRO(), AUsPRO(0.3, "logical", prefix="pixel_"), AUsPRO(1, defect="dent"), LocoAUROC("logical")]
    names = ["AUsPRO_5_mean", "pixel_AUsPRO_30_logical", "AUsPRO_100_dent", "AUROC_logical"]
    assert [metric.name for metric in metrics] == names


def test_kinds_of_autovi_are_its_defect_folders_and_the_mean_is_over_them(test_set, request):
    expected = [value_of(test_set, kind=kind) for kind in KINDS]
    autovi = request.getfixturevalue("autovi_set")
    assert [value_of(autovi, kind=kind) for kind in ("no clip", "scratch", "mean")] == expected


@pytest.mark.parametrize("kind", KINDS)
def test_batch_size_changes_nothing(test_set, kind):
    assert value_of(test_set, size=1, kind=kind) == value_of(test_set, size=32, kind=kind)


def test_order_of_images_changes_nothing(test_set):
    before = value_of(test_set)
    order = torch.randperm(len(test_set.paths), generator=torch.Generator().manual_seed(1))
    test_set.paths = [test_set.paths[i] for i in order]
    test_set.maps, test_set.scores = test_set.maps[order], test_set.scores[order]
    assert value_of(test_set) == pytest.approx(before, abs=1e-7)


def test_image_that_comes_twice_counts_once(test_set):
    before = value_of(test_set)
    test_set.paths += test_set.paths[4:6]
    test_set.maps = torch.cat([test_set.maps, test_set.maps[4:6]])
    test_set.scores = test_set.maps.amax(dim=(1, 2))
    assert value_of(test_set) == before


def test_map_of_another_size_is_resized_to_the_images(test_set):
    before = value_of(test_set)
    test_set.maps = torch.stack([resize_anomaly_map(m, SIZE) for m in test_set.maps])
    assert value_of(test_set) == before


def test_memory_does_not_grow_with_the_size_of_the_map(test_set):
    size = (1000, 1200)
    for path in test_set.paths[:1]:
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(path)
    metric = AUsPRO()
    test_set.maps = torch.randn(9, *size, generator=torch.Generator().manual_seed(0))
    metric.update(next(batches(test_set, 1)))
    states = [metric.parts, metric.values, metric.counts]
    kept = sum(t.nbytes for state in states for t in state)
    assert kept < 150_000 < 4 * size[0] * size[1] / 30


def test_metrics_start_anew_after_reset(test_set):
    metric = AUsPRO()
    for batch in batches(test_set, 9):
        metric.update(batch)
    before = metric.compute().item()
    metric.reset()
    test_set.maps = -test_set.maps
    for batch in batches(test_set, 9):
        metric.update(batch)
    assert metric.compute().item() == value_of(test_set) != before


def test_metric_works_in_anomalibs_evaluator(test_set):
    evaluator = Evaluator(test_metrics=[AUsPRO(kind=kind) for kind in KINDS])
    for batch in batches(test_set, 4):
        evaluator.on_test_batch_end(None, None, None, batch, 0)
    assert [m.compute().item() for m in evaluator.test_metrics] == [value_of(test_set, kind=kind) for kind in KINDS]


def test_metric_can_be_pickled_with_what_it_has_seen(test_set):
    metric = AUsPRO()
    for batch in batches(test_set, 4):
        metric.update(batch)
    assert pickle.loads(pickle.dumps(metric)).compute() == metric.compute()


# processes


def figures_of_a_process(rank, shares, test_set, address, queue):
    """One process's part of a test run."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=len(shares))
    mine = shares[rank]
    part = SimpleNamespace(
        paths=[test_set.paths[i] for i in mine], maps=test_set.maps[mine], scores=test_set.scores[mine]
    )
    kinds = KINDS if "logical_anomalies" in test_set.kinds else ("no clip", "scratch", "mean")
    metrics = [AUsPRO(kind=kind) for kind in kinds] + [LocoAUROC(kind) for kind in kinds]
    for batch in batches(part, 2):
        for metric in metrics:
            metric.update(batch)
    queue.put([metric.compute().item() for metric in metrics])
    torch.distributed.destroy_process_group()


def figures_of_processes(shares, test_set, tmp_path):
    """Fork, for a new process would import Anomalib for many seconds."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    address = f"file://{tmp_path}/rendezvous{len(shares)}"
    arguments = (shares, test_set, address, queue)
    workers = [context.Process(target=figures_of_a_process, args=(rank, *arguments)) for rank in range(len(shares))]
    for worker in workers:
        worker.start()
    try:
        return [queue.get(timeout=60) for _ in workers]
    finally:
        for worker in workers:
            worker.join(timeout=10)
            worker.kill()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs to fork")
@pytest.mark.parametrize(
    "shares",
    [
        pytest.param([[0, 2, 4, 6, 8], [1, 3, 5, 7, 0]], id="an image repeated to fill up"),
        pytest.param([list(range(9)), []], id="a process without images"),
    ],
)
def test_two_processes_give_the_figures_of_one(test_set, shares, tmp_path):
    (one,) = figures_of_processes([list(range(9))], test_set, tmp_path)
    two = figures_of_processes(shares, test_set, tmp_path)
    assert two[0] == two[1] == pytest.approx(one, abs=1e-7)
    assert one[:3] == [value_of(test_set, kind=kind) for kind in KINDS]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs to fork")
def test_two_processes_give_autovis_figures_of_one(autovi_set, tmp_path):
    """The second process sees no image, so that it knows no folder's name."""
    (one,) = figures_of_processes([list(range(9))], autovi_set, tmp_path)
    two = figures_of_processes([list(range(9)), []], autovi_set, tmp_path)
    assert two[0] == two[1] == pytest.approx(one, abs=1e-7)


# bad input


def update(test_set):
    AUsPRO().update(next(batches(test_set, 9)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_map_that_is_not_finite_is_named_by_its_image(test_set, value):
    test_set.maps[5, 3, 3] = value
    with pytest.raises(ValueError, match=r"logical_anomalies/001\.png: .*NaN or infinity"):
        update(test_set)


def test_mask_with_two_values_is_named(test_set):
    pixels = np.zeros(SIZE, np.uint8)
    pixels[0, :2] = (255, 254)
    path = test_set.category / "ground_truth" / "logical_anomalies" / "000" / "000.png"
    Image.fromarray(pixels).save(path)
    with pytest.raises(ValueError, match=r"000\.png must have exactly one non-zero pixel value, got \[254, 255\]"):
        update(test_set)


def test_pixel_value_that_the_configuration_lacks_is_named(test_set):
    (test_set.category / "defects_config.json").write_text(json.dumps(CONFIG[:1]))
    with pytest.raises(ValueError, match="unknown pixel value 254"):
        update(test_set)


def test_missing_configuration_is_named(test_set):
    (test_set.category / "defects_config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"defects_config\.json does not exist"):
        update(test_set)


def test_relative_threshold_above_one_is_refused(test_set):
    (test_set.category / "defects_config.json").write_text(json.dumps([{**CONFIG[0], "saturation_threshold": 1.5}]))
    with pytest.raises(ValueError, match=r"share of the area in \(0, 1\], got 1\.5"):
        update(test_set)


def test_missing_ground_truth_is_named(test_set):
    shutil.rmtree(test_set.category / "ground_truth")
    with pytest.raises(FileNotFoundError, match=r"tray has no ground_truth folder, so there are no masks"):
        AUsPRO().check_images(test_set.paths)


def test_missing_masks_are_named(test_set):
    shutil.rmtree(test_set.category / "ground_truth" / "structural_anomalies" / "001")
    with pytest.raises(FileNotFoundError, match=r"structural_anomalies/001 does not exist"):
        update(test_set)


def test_unknown_defect_is_refused_with_the_first_batch(test_set):
    with pytest.raises(ValueError, match=r"defect must be one of \('missing', 'scratch', 'unseen'\), got 'dent'"):
        AUsPRO(defect="dent").update(next(batches(test_set, 2)))


def test_image_outside_the_layout_is_refused_with_the_first_batch(test_set):
    test_set.paths[0] = "somewhere/else.png"
    with pytest.raises(ValueError, match="must lie in a folder named one of"):
        update(test_set)


def test_images_of_two_categories_are_refused(test_set):
    other = test_set.category.with_name("other")
    shutil.copytree(test_set.category, other)
    metric = AUsPRO()
    metric.update(next(batches(test_set, 2)))
    test_set.paths = [path.replace(str(test_set.category), str(other)) for path in test_set.paths]
    with pytest.raises(ValueError, match="one category at a time"):
        metric.update(next(batches(test_set, 2)))


def test_kind_without_images_is_named(test_set):
    metric = AUsPRO(kind="structural")
    metric.update(next(batches(test_set, 7)))
    with pytest.raises(ValueError, match=r"none in \['structural_anomalies'\]"):
        metric.compute()


@pytest.mark.parametrize(("argument", "value"), [("limit", 0), ("limit", 2), ("kind", "test/all")])
def test_argument_out_of_range_is_refused(argument, value):
    with pytest.raises(ValueError, match=argument):
        AUsPRO(**{argument: value})

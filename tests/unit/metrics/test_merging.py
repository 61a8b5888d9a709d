# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Many images are merged to bounded memory, and the figures stay what they were."""

import math
import multiprocessing
import os
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torchmetrics import MetricCollection

from anomalib_logic import AUsPRO
from anomalib_logic.metrics import spro
from anomalib_logic.metrics.functional import (
    ScoreCounts,
    au_spro,
    count_scores,
    merge_regions,
    merge_scores,
    spro_curve,
)
from anomalib_logic.metrics.merging import merge_round
from anomalib_logic.metrics.protocol import ImageScores, Region

from .conftest import batches
from .test_functional_spro import DISTRIBUTIONS, LIMITS
from .test_spro import KINDS, figures_of_processes, value_of

ARGUMENTS = [{"kind": kind, "limit": limit} for kind in KINDS for limit in LIMITS]
ARGUMENTS += [{"defect": defect, "limit": 0.05} for defect in ("missing", "scratch")]
FEW_ARGUMENTS = [{"kind": "mean", "limit": 0.05}, {"defect": "scratch", "limit": 0.3}]

# merging counts and regions


def above(counted, thresholds):
    """Weight of what is above each threshold."""
    weight = torch.cat([torch.zeros(1, dtype=torch.float64), counted.counts.double().cumsum(0)])
    return weight[-1] - weight[torch.searchsorted(counted.values, thresholds, right=True)]


def merge_in_pairs(parts, merge):
    """Merge parts in pairs, pairs of pairs and so on: each part log2 of their number times."""
    while len(parts) > 1:
        parts = [merge(parts[i : i + 2]) for i in range(0, len(parts), 2)]
    return parts[0]


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_each_merge_adds_at_most_an_8192th_to_the_number_of_scores_above_a_threshold(name):
    generator = torch.Generator().manual_seed(0)
    parts = [count_scores(DISTRIBUTIONS[name](50_000, generator)) for _ in range(16)]
    merged = merge_in_pairs(parts, merge_scores)
    thresholds = torch.cat([part.values for part in parts]).unique()
    true = sum(above(part, thresholds) for part in parts)
    counted = above(merged, thresholds)
    assert merged.counts.sum() == 800_000
    assert len(merged.values) < 8192 * (1 + math.log(800_000 / 8192)) + 2
    assert (counted >= true).all()
    assert (counted <= true * (1 + 1 / 8192) ** 4).all()


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_each_merge_adds_at_most_an_8192th_to_the_mean_overlap(name):
    generator = torch.Generator().manual_seed(0)
    sizes = [1, 2, 9, 5000] * 16
    regions = [(count_scores(DISTRIBUTIONS[name](n, generator)), float(max(n // 2, 1)), 1) for n in sizes]

    def merge(parts):
        number = sum(part[2] for part in parts)
        return merge_regions(*zip(*parts, strict=True)), float(number), number

    merged, _, number = merge_in_pairs(regions, merge)
    thresholds = torch.cat([region.values for region, _, _ in regions]).unique()
    true = sum((above(region, thresholds) / area).clamp(max=1) for region, area, _ in regions) / 64
    overlap = above(merged, thresholds) / 64
    assert number == merged.counts.sum().round() == 64
    assert len(merged.values) <= 8192
    assert (overlap >= true - 1e-9).all()
    assert (overlap <= true + 6 / 8192 + 1e-9).all()


def test_few_scores_are_merged_without_loss():
    parts = [count_scores(torch.tensor(scores)) for scores in ([3.0, 1.0, 1.0], [2.0, 1.0], [])]
    merged = merge_scores(parts)
    assert (merged.values.tolist(), merged.counts.tolist()) == ([1, 2, 3], [3, 1, 1])
    assert merge_scores(parts[2:]).values.tolist() == []


def test_counts_may_exceed_32_bits():
    most = ScoreCounts(torch.tensor([0.5, 0.7]), torch.tensor([2**31 - 1, 5], dtype=torch.int32))
    assert merge_scores([most] * 4).counts.tolist() == [4 * (2**31 - 1), 20]


def test_merged_region_counts_as_many_as_it_stands_for():
    free = count_scores(torch.arange(40.0))
    regions = [count_scores(torch.tensor(scores)) for scores in ([30.5, 20.5], [39.5], [0.5, 38.5, 7.5])]
    separate = spro_curve([free], regions, [2, 1, 2])
    together = spro_curve([free], [merge_regions(regions[:2], [2, 1], [1, 1]), regions[2]], [2, 2], [2, 1])
    for limit in LIMITS:
        assert au_spro(together.fpr, together.spro, limit).item() == pytest.approx(
            au_spro(separate.fpr, separate.spro, limit).item()
        )


def test_rounds_are_merged_with_as_many_at_most():
    one = count_scores(torch.ones(1))
    images = [ImageScores("good", one), ImageScores("hole", one, [Region(7, 1.0, one)])]
    merged = []
    for _ in range(13):
        merged = merge_round(images, merged)
    for kind in ("good", "hole"):
        assert sorted(part.rounds for part in merged if part.images.kind == kind) == [1, 4, 8]


# the metric


@pytest.fixture
def many(test_set):
    """Return a function that makes a test set of many images: copies of the nine, with maps of their own."""

    def make(count):
        paths = []
        for i in range(count):
            image = Path(test_set.paths[i % 9])
            copy = image.with_name(f"{1000 + i}.png")
            os.link(image, copy)
            masks = test_set.category / "ground_truth" / image.parent.name / image.stem
            if masks.exists():
                masks.with_name(copy.stem).symlink_to(masks)
            paths.append(str(copy))
        shift = {"good": 0.0, "logical_anomalies": 0.7, "structural_anomalies": 0.4}
        kinds = [Path(path).parent.name for path in paths]
        maps = 3 * torch.randn(count, 12, 10, generator=torch.Generator().manual_seed(0))
        maps += torch.tensor([shift[kind] for kind in kinds])[:, None, None]
        return SimpleNamespace(paths=paths, maps=maps, scores=maps.amax(dim=(1, 2)))

    return make


def seen_by(metric, test_set, size=50):
    for batch in batches(test_set, size):
        metric.update(batch)
    return metric


def figures_of(metric, every=ARGUMENTS):
    """Compute figures of all kinds, limits and defects from one metric's states."""
    figures = []
    for arguments in every:
        other = AUsPRO(**arguments)
        other.__dict__.update({name: getattr(metric, name) for name in (*metric._defaults, "_configs")})
        other._update_count = 1
        figures.append(other.compute().item())
    return figures


def numbers_in(metric):
    return sum(part.numel() for name in metric._defaults for part in getattr(metric, name))


@pytest.mark.slow
def test_state_after_2000_images_is_bounded_and_figures_are_those_without_merging(many, monkeypatch):
    test_set = many(2000)
    monkeypatch.setattr(spro, "_PAIRS", 2**40)
    unmerged = seen_by(AUsPRO(), test_set)
    expected = figures_of(unmerged, FEW_ARGUMENTS)
    monkeypatch.setattr(spro, "_PAIRS", 2**16)
    metric, most = AUsPRO(), 0
    for i, batch in enumerate(batches(test_set, 1)):
        metric.update(batch)
        if i % 10 == 9:
            most = max(most, numbers_in(metric))
    assert numbers_in(unmerged) > 7_000_000
    assert most < 2_000_000
    rounds = max(merged.rounds for merged in metric._merged())
    error = (1 + math.log2(2 * rounds)) / 8192
    assert figures_of(metric, FEW_ARGUMENTS) == pytest.approx(expected, abs=error)
    assert error < 0.001


MAPS = {
    "random": lambda maps: maps,
    "heavy ties": lambda maps: maps.mean(dim=(1, 2), keepdim=True).expand_as(maps) + (maps > 3),
    "constant": torch.zeros_like,
    "constant but for few": lambda maps: maps.clamp(min=6),
    "each constant": lambda maps: maps[:, :1, :1].expand_as(maps),
}


@pytest.mark.parametrize("name", MAPS)
def test_figures_stay_within_the_error_of_merging(many, monkeypatch, name):
    test_set = many(270)
    test_set.maps = MAPS[name](test_set.maps).contiguous()
    expected = figures_of(seen_by(AUsPRO(), test_set))
    monkeypatch.setattr(spro, "_PAIRS", 2**14)
    metric = seen_by(AUsPRO(), test_set)
    rounds = max(merged.rounds for merged in metric._merged())
    assert rounds >= 4
    assert figures_of(metric) == pytest.approx(expected, abs=(1 + math.log2(2 * rounds)) / 8192)


def test_nothing_is_merged_up_to_the_limit(test_set, monkeypatch):
    metric = seen_by(AUsPRO(), test_set)
    kept = sum(map(len, metric.values)) + 256 * len(metric.values)
    before = metric.compute()
    monkeypatch.setattr(spro, "_PAIRS", kept)
    at_limit = seen_by(AUsPRO(), test_set)
    assert not at_limit.merged_parts
    assert at_limit.compute() == before
    monkeypatch.setattr(spro, "_PAIRS", kept - 1)
    assert seen_by(AUsPRO(), test_set).merged_parts


@pytest.fixture
def few_pairs(monkeypatch):
    """Have three of the nine images merged at a time."""
    monkeypatch.setattr(spro, "_PAIRS", 6000)


def test_batch_size_changes_nothing_where_images_are_merged(test_set, few_pairs):
    assert value_of(test_set, size=1) == value_of(test_set, size=9)


def test_image_that_comes_again_after_it_was_merged_counts_once(test_set, few_pairs):
    before = value_of(test_set)
    order = [*range(9), 4, 0, 8, 5, 6, 7, 4, 4]
    test_set.paths = [test_set.paths[i] for i in order]
    test_set.maps, test_set.scores = test_set.maps[order], test_set.scores[order]
    metric = seen_by(AUsPRO(), test_set, 4)
    assert metric.merged_keys[-1].numel() == 0
    assert metric.compute().item() == pytest.approx(before, abs=1e-6)


def test_merged_images_are_pickled_and_forgotten(test_set, few_pairs):
    metric = seen_by(AUsPRO(), test_set)
    assert pickle.loads(pickle.dumps(metric)).compute() == metric.compute()
    metric.reset()
    assert numbers_in(metric) == 0


def test_metrics_that_share_states_share_what_was_merged(test_set, few_pairs):
    metrics = {f"m{i:02}": AUsPRO(**arguments) for i, arguments in enumerate(ARGUMENTS)}
    for metric in metrics.values():
        metric.check_images(test_set.paths)
    collection = MetricCollection(dict(metrics), compute_groups=[list(metrics)])
    for batch in batches(test_set, 2):
        collection.update(batch)
    expected = [value_of(test_set, **arguments) for arguments in ARGUMENTS]
    assert [value.item() for value in collection.compute().values()] == expected


def test_kinds_of_autovi_are_merged_by_their_folders(autovi_set, few_pairs, monkeypatch):
    merged = [value_of(autovi_set, kind=kind) for kind in ("no clip", "scratch", "mean")]
    monkeypatch.setattr(spro, "_PAIRS", 2**40)
    expected = [value_of(autovi_set, kind=kind) for kind in ("no clip", "scratch", "mean")]
    assert merged == pytest.approx(expected, abs=0.0005)


def test_forward_merges_too_and_states_may_move_to_the_cpu(test_set, few_pairs):
    metric = AUsPRO(kind="logical", compute_on_cpu=True)
    for batch in batches(test_set, 9):
        assert metric(batch).item() == metric.compute().item()
    again = next(batches(test_set, 7))  # of these all were merged
    metric(again)
    assert metric.compute().item() == pytest.approx(value_of(test_set, kind="logical"), abs=1e-6)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs to fork")
def test_several_processes_merge_nothing(test_set, few_pairs, monkeypatch, tmp_path):
    shares = [[0, 2, 4, 6, 8], [1, 3, 5, 7, 0]]
    two = figures_of_processes(shares, test_set, tmp_path)
    monkeypatch.setattr(spro, "_PAIRS", 2**40)
    expected = [value_of(test_set, kind=kind) for kind in KINDS]
    assert two[0][:3] == two[1][:3] == pytest.approx(expected, abs=1e-7)

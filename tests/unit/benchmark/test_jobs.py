# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import json
from dataclasses import replace

import pytest

from anomalib_logic.benchmark.jobs import (
    DONE,
    failure,
    is_done,
    read_results,
    seconds_left,
    shard_of,
    write_result,
)


@pytest.mark.parametrize(
    "change",
    [
        {"suite": "quick"},
        {"category": "vial_rack"},
        {"row": "glcf, no noise"},
        {"seed": 1},
        {"backbone": "resnet18"},
        {"weights": "none"},
        {"image_size": 128},
        {"epochs": 3},
        {"limit": 5},
        {"options": '{"noise": 0}'},
        {"config": "12345678"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_changes_a_result_has_a_file_of_its_own(job, change):
    assert replace(job(), **change).path != job().path
    assert replace(job()).path == job().path


def test_names_with_any_characters_are_names_of_files(job):
    path = job(row="../a b\\c:d").path
    assert path.parent.name == "scenes"
    assert len(path.parts) == 2
    assert set(path.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.")


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_shards_are_all_jobs_and_each_of_them_once(job, count):
    jobs = [job(seed=seed) for seed in range(10)]
    parts = [shard_of(jobs, index, count) for index in range(1, count + 1)]
    assert sorted(one.seed for part in parts for one in part) == list(range(10))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_what_a_killed_process_has_left_is_no_result(job, tmp_path):
    one = job()
    write_result(tmp_path, one, {"status": DONE})
    (written,) = (tmp_path / "scenes").iterdir()
    cut = written.with_name(f".{written.name}.123")
    cut.write_text(written.read_text()[:20])
    written.unlink()
    assert read_results(tmp_path) == []
    assert not is_done(tmp_path, one)


def test_a_file_is_whole_or_as_it_was_whenever_the_writer_is_killed(job, tmp_path, monkeypatch):
    one = job()
    write_result(tmp_path, one, {"status": DONE, "figures": {"image_auroc": 0.5}})

    def killed(*arguments, **options):
        arguments[1].write('{"job": ')
        raise SystemExit

    monkeypatch.setattr(json, "dump", killed)
    with pytest.raises(SystemExit):
        write_result(tmp_path, one, {"status": DONE, "figures": {"image_auroc": 0.9}})
    (found,) = read_results(tmp_path)
    assert found["figures"] == {"image_auroc": 0.5}


def test_what_failed_is_not_done(job, tmp_path):
    write_result(tmp_path, job(), failure("ValueError: no"))
    assert not is_done(tmp_path, job())
    write_result(tmp_path, job(), {"status": DONE})
    assert is_done(tmp_path, job())


def test_results_of_two_machines_are_merged_by_copying(job, tmp_path):
    for part, seed in (("a", 0), ("b", 1)):
        write_result(tmp_path / part, job(seed=seed), {"status": DONE})
    (tmp_path / "b/scenes").rename(tmp_path / "b/moved")
    for path in (tmp_path / "b/moved").iterdir():
        path.rename(tmp_path / "a/scenes" / path.name)
    assert [found["job"]["seed"] for found in read_results(tmp_path / "a")] == [0, 1]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"job": {}, "status": "done"}'])
def test_a_file_that_is_no_result_is_named(job, tmp_path, text):
    path = tmp_path / job().path
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(ValueError, match=f"{path.name} is no result file"):
        read_results(tmp_path)


def test_time_left_is_as_long_as_a_models_jobs_took(job, result):
    results = [result({}, model="glcf"), result({}, model="padim", seed=1)]
    results[1]["costs"]["job_seconds"] = 4.0
    assert seconds_left([job(model="glcf"), job(model="padim")], results) == 24.0
    assert seconds_left([job(model="patchcore")], results) == 12.0  # of a model that did not run yet
    assert seconds_left([job()], []) is None

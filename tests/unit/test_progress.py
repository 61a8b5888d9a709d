# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import itertools
import logging

import pytest

from anomalib_logic import _progress as progress
from anomalib_logic._progress import ProgressLines, with_progress

LOGGER = progress.__name__


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets, in seconds."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_line_every_five_seconds_says_how_much_is_done_and_the_time_left(clock, caplog):
    with caplog.at_level(logging.INFO, LOGGER):
        lines = ProgressLines("filling the bank", 40)
        for done in range(1, 41):
            clock[0] += 1
            lines.update(done)
    assert caplog.messages[:3] == [
        "filling the bank: 40 images",
        "filling the bank: 5 of 40 images, 35 s left",
        "filling the bank: 10 of 40 images, 30 s left",
    ]


def test_lines_of_a_long_step_are_rare_but_never_more_than_a_minute_apart(clock, caplog):
    with caplog.at_level(logging.INFO, LOGGER):
        lines = ProgressLines("training", 36_001, "steps")
        said_at = [0.0]
        for done in range(1, 36_001):
            clock[0] += 1
            lines.update(done)
            if len(caplog.records) > len(said_at):
                said_at.append(clock[0])
    gaps = [after - before for before, after in itertools.pairwise(said_at)]
    assert min(gaps) == 5
    assert max(gaps) == 60
    assert caplog.messages[-1].endswith("s left")
    assert any(message.endswith("h left") for message in caplog.messages)
    assert any(message.endswith("min left") for message in caplog.messages)


def test_short_step_has_one_line_only(clock, caplog):
    with caplog.at_level(logging.INFO, LOGGER):
        assert list(with_progress([1, 2, 3], "comparing")) == [1, 2, 3]
    assert caplog.messages == ["comparing: 3 images"]


def test_number_that_is_not_known_is_left_out(clock, caplog):
    def slow():
        for i in range(2):
            clock[0] += 6
            yield i

    with caplog.at_level(logging.INFO, LOGGER):
        assert list(with_progress(slow(), "comparing")) == [0, 1]
    assert caplog.messages == ["comparing", "comparing: 1 images", "comparing: 2 images"]

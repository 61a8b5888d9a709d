# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Lines in the log that say how far a long step is."""

import logging
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")

SECONDS = 5.0  # between two lines, at least
MOST_SECONDS = 60.0
SHARE = 0.05  # of the time so far, so that long steps have few lines


class ProgressLines:
    """Log what is done, and every few seconds how much of it is done and the time that is left.

    The longer it takes, the rarer are the lines: after five seconds at first, after a minute at most.

    Args:
        what: What is done, such as ``"filling the bank"``.
        total: Number of steps, if known.
        unit: What a step is.
    """

    def __init__(self, what: str, total: int | None = None, unit: str = "images") -> None:
        self.what = what
        self.total = total
        self.unit = unit
        self._start = self._said = time.monotonic()
        logger.info("%s%s", what, "" if total is None else f": {total} {unit}")

    def update(self, done: int) -> None:
        """Log a line if it is time for one.

        Args:
            done: Steps that are done.
        """
        now = time.monotonic()
        elapsed = now - self._start
        if done == self.total or now - self._said < min(MOST_SECONDS, max(SECONDS, SHARE * elapsed)):
            return
        self._said = now
        if self.total is None:
            logger.info("%s: %d %s", self.what, done, self.unit)
            return
        left = elapsed / max(done, 1) * max(self.total - done, 0)
        logger.info("%s: %d of %d %s, %s left", self.what, done, self.total, self.unit, duration(left))


def with_progress(items: Iterable[T], what: str) -> Iterator[T]:
    """Go over images and log how far that is, see :class:`ProgressLines`.

    Args:
        items: What to go over, one an image.
        what: What is done with them.
    """
    lines = ProgressLines(what, len(items) if isinstance(items, Sized) else None)
    for done, item in enumerate(items, start=1):
        yield item
        lines.update(done)


def duration(seconds: float) -> str:
    """Time in plain words, in seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"

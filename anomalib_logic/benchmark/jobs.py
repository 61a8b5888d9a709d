# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""One job is one model on one category with one seed; its result is one JSON file, whole or not there at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

Result = dict[str, Any]

DONE, FAILED = "done", "failed"
RESULT_FILES = "*/*.json"  # below the output folder


@dataclass(frozen=True)
class Job:
    """What is measured. Equal jobs on equal data and code have equal results, wherever the files lie.

    Attributes:
        suite: Name of the suite.
        category: Name of the category.
        row: Name of the model and its options in tables.
        model: Name of the model, or of its configuration file.
        seed: Seed of training, and of rendered data.
        backbone: timm's name of the backbone.
        weights: ``"packaged"``, ``"timm"``, ``"none"``, or the start of the digest of a file.
        image_size: Side of the images in pixels.
        epochs: Epochs instead of the model's own, or ``None``.
        limit: Most images of each split, or ``None``.
        options: More arguments of the model, as JSON.
        config: Start of the digest of the configuration file, or ``""``.
    """

    suite: str
    category: str
    row: str
    model: str
    seed: int
    backbone: str
    weights: str
    image_size: int
    epochs: int | None = None
    limit: int | None = None
    options: str = "{}"
    config: str = ""

    @property
    def path(self) -> Path:
        """File of its result, below the output folder."""
        digest = digest_of_text(json.dumps(asdict(self), sort_keys=True))
        name = "".join(c if c.isalnum() or c in "-_" else "_" for c in f"{self.category}-{self.row}")
        return Path(self.suite) / f"{name}-seed{self.seed}-{digest}.json"


class Place(NamedTuple):
    """Where a job runs; what does not belong to it.

    Attributes:
        root: Root of the data.
        output: Folder of the results.
        weights: As :attr:`Job.weights`, but the file itself.
        model: As :attr:`Job.model`, but the path of the configuration file.
        accelerator: Of the trainer.
        pictures: Whether to draw a gallery of maps.
    """

    root: Path
    output: Path
    weights: str
    model: str
    accelerator: str
    pictures: bool


def is_configuration(model: str) -> bool:
    """Whether a model is given by a configuration file."""
    return model.endswith((".yaml", ".yml"))


def digest_of_text(text: str | bytes) -> str:
    """First eight digits of the SHA-256."""
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()[:8]


def shard_of(jobs: Sequence[Job], index: int, count: int) -> list[Job]:
    """One of ``count`` parts of the jobs; the parts have no job in common and are all jobs together.

    Args:
        jobs: All jobs, in the same order on every machine.
        index: Number of the part, from 1.
        count: Number of parts.
    """
    return list(jobs[index - 1 :: count])


def write_result(output: Path, job: Job, result: Result) -> None:
    """Write a result beside its place and rename it, so that a kill at any moment leaves no broken file."""
    path = output / job.path
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("w", encoding="utf-8") as file:
        json.dump({"job": asdict(job), **result}, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def failure(error: str) -> Result:
    """Result of a job that failed."""
    return {"status": FAILED, "error": error}


def read_result(path: Path) -> Result:
    """Read a result file.

    Raises:
        ValueError: If it is none.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        Job(**result["job"])
        result["status"]
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{path} is no result file ({error}); remove it"
        raise ValueError(msg) from error
    return result


def read_results(output: Path) -> list[Result]:
    """Read all results below a folder, in the order of their names."""
    return [read_result(path) for path in sorted(output.glob(RESULT_FILES))]


def is_done(output: Path, job: Job) -> bool:
    """Whether a job has a result; one that failed has none."""
    path = output / job.path
    return path.exists() and read_result(path)["status"] == DONE


def seconds_left(jobs: Iterable[Job], results: Iterable[Result]) -> float | None:
    """Time that jobs will take: as long as those of their model took on average, or else as all did.

    Args:
        jobs: What is to do.
        results: Results so far.

    Returns:
        Seconds, or ``None`` as long as nothing is known.
    """
    times: dict[str, list[float]] = {}
    for result in results:
        if result["status"] == DONE:
            times.setdefault(result["job"]["row"], []).append(result["costs"]["job_seconds"])
    if not times:
        return None
    means = {row: sum(values) / len(values) for row, values in times.items()}
    typical = sum(means.values()) / len(means)
    return sum(means.get(job.row, typical) for job in jobs)

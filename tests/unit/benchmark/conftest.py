# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable
from typing import Any

import pytest

from anomalib_logic.benchmark.jobs import DONE, Job, Result

ENVIRONMENT = {
    **dict.fromkeys(("anomalib_logic", "source", "anomalib", "torch", "lightning", "timm", "python"), "1"),
    **{"processor": "a processor", "cores": 2, "threads": 1, "device": "cpu"},
}


@pytest.fixture
def job() -> Callable[..., Job]:
    """Makes a job; what is not said is the same for all."""

    def make(**fields: Any) -> Job:
        common = {"suite": "scenes", "category": "wire_plug", "model": "glcf", "seed": 0}
        backbone = {"backbone": "tf_efficientnet_lite0", "weights": "packaged", "image_size": 256}
        return Job(**{**common, **backbone, "row": fields.get("model", "glcf"), **fields})

    return make


@pytest.fixture
def result(job) -> Callable[..., Result]:
    """Makes a result of a job with some figures."""

    def make(figures: dict[str, float], kinds: tuple[str, ...] = ("logical", "structural"), **fields: Any) -> Result:
        return {
            "job": vars(job(**fields)),
            "status": DONE,
            "figures": figures,
            "scores": {kind: {"000": 1.0} for kind in ("good", *kinds)},
            "curves": {},
            "costs": {"fit_seconds": 10.0, "image_milliseconds": 5.0, "memory_megabytes": 700, "job_seconds": 20.0},
            "images": {"train": 8, "val": 2, "test": 6},
            "environment": ENVIRONMENT,
        }

    return make

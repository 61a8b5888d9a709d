# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Raw scores for metrics that want probabilities."""

from typing import Any

import torch

from .loco_metric import on_reliable_device

SCORES = ("pred_score", "anomaly_map")


class InUnitInterval:
    """A batch whose raw scores are mapped to (0, 1), in their order.

    torchmetrics takes the sigmoid of scores outside [0, 1], batch by batch: of a batch with a score of 20 most others
    become 1, and those of the next batch may stay as they are. :func:`to_unit_interval` works in double precision here,
    in which distinct scores of single precision stay distinct unless both are below 1e-15 in size.

    Args:
        batch: Anomalib's batch.
    """

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def __getattr__(self, name: str) -> Any:
        """Field of the batch, scores mapped."""
        value = getattr(self._batch, name)
        if not isinstance(value, torch.Tensor):
            return value
        value = on_reliable_device(value)
        return to_unit_interval(value.double()) if name in SCORES else value


def to_unit_interval(scores: torch.Tensor) -> torch.Tensor:
    """Map real numbers to (0, 1) in their order, ``1/2 + sign(x) / 2 * u / (1 + u)`` with ``u = log(1 + |x|)``."""
    magnitude = torch.log1p(scores.abs())
    return 0.5 + 0.5 * scores.sign() * magnitude / (1 + magnitude)

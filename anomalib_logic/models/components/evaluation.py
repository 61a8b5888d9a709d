# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The evaluator that this package's models share."""

from anomalib.metrics import Evaluator

from anomalib_logic.metrics.evaluator import LocoEvaluator
from anomalib_logic.metrics.loco_metric import LocoMetric


def default_evaluator() -> LocoEvaluator:
    """Make an evaluator with Anomalib's usual metrics and, on data in the LOCO layout, the figures of MVTec LOCO AD."""
    return LocoEvaluator(required=False)


def resolve_evaluator(evaluator: Evaluator | bool) -> Evaluator | bool:
    """Let a user's LOCO metrics see unprocessed maps, and be checked at setup.

    Args:
        evaluator: A model's argument.

    Returns:
        A :class:`LocoEvaluator` with the same metrics if an evaluator's test metrics include LOCO metrics, else the
        argument.
    """
    if not isinstance(evaluator, Evaluator) or isinstance(evaluator, LocoEvaluator):
        return evaluator
    if not any(isinstance(metric, LocoMetric) for metric in evaluator.test_metrics):
        return evaluator
    return LocoEvaluator(list(evaluator.val_metrics), list(evaluator.test_metrics), evaluator.compute_on_cpu)

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Area under the ROC curve without thresholds."""

import torch


def auroc(normal_scores: torch.Tensor, anomalous_scores: torch.Tensor) -> torch.Tensor:
    """Probability that an anomalous score exceeds a normal one, ties counting half: the area under the ROC curve.

    Scores are compared as they are: neither squashed nor rounded, which would make ties.

    Args:
        normal_scores: Scores of normal images, any real dtype, shape ``(N,)``.
        anomalous_scores: Scores of anomalous images, shape ``(M,)``.

    Returns:
        Float64 scalar in [0, 1].

    Raises:
        ValueError: If there is no normal or no anomalous score.
    """
    if not normal_scores.numel() or not anomalous_scores.numel():
        msg = f"AUROC needs both, got {normal_scores.numel()} normal and {anomalous_scores.numel()} anomalous scores"
        raise ValueError(msg)
    normal = normal_scores.flatten().double().sort().values
    anomalous = anomalous_scores.flatten().double()
    lower = torch.searchsorted(normal, anomalous, right=False)
    not_higher = torch.searchsorted(normal, anomalous, right=True)
    return (lower + not_higher).double().mean() / (2 * len(normal))

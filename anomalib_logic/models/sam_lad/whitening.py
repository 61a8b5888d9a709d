# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Distances in which directions that vary much in normal images count less."""

import torch


def inverse_power(moments: torch.Tensor, power: float, shrinkage: float) -> torch.Tensor:
    """Inverse power of a covariance: vectors times it are whitened by 1/2, and half the way to that by 1/4.

    Args:
        moments: Covariance or second moments, shape ``(D, D)``.
        power: Of their inverse; with 1/2, Euclidean distances of the products are Mahalanobis distances.
        shrinkage: Share of the identity, in place of the moments as a multiple of their mean variance.

    Returns:
        Symmetric matrix of shape ``(D, D)``, in double precision and computed on the CPU, the same for all devices.
    """
    moments = moments.cpu().double()
    moments = moments / moments.diagonal().mean().clamp_min(1e-12)
    identity = torch.eye(len(moments), dtype=moments.dtype)
    variances, directions = torch.linalg.eigh((1 - shrinkage) * moments + shrinkage * identity)
    return directions * variances.pow(-power) @ directions.T

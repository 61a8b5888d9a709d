# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Training objective of GLCF (paper equations 1 to 4)."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from anomalib_logic.models.components.arguments import check_choice

from .anomaly_map import Distance


class GlcfLoss(nn.Module):
    """Weighted sum of correspondence, local estimation and global estimation.

    ``mse`` is the paper's squared Frobenius norm divided by the number of entries of a map; ``cosine`` is one minus
    the cosine similarity of the flattened maps, as in the authors' code.

    Args:
        distance: ``"mse"`` or ``"cosine"``.
        weights: Weights of the correspondence, the local and the global term (equation 4).
        detach_target: Treat the correspondence network's maps as constants in the global term.

    Raises:
        ValueError: If ``distance`` is unknown.
    """

    def __init__(
        self,
        distance: Distance = "mse",
        weights: Sequence[float] = (1.0, 1.0, 1.0),
        detach_target: bool = False,
    ) -> None:
        super().__init__()
        self.distance = check_choice("distance", distance, Distance)
        self.weights = tuple(weights)
        self.detach_target = detach_target

    def forward(
        self,
        features: Sequence[torch.Tensor],
        correspondence: Sequence[torch.Tensor],
        local_estimate: Sequence[torch.Tensor],
        global_estimate: Sequence[torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """Compute the loss terms.

        Args:
            features: Maps F_i of the frozen backbone, shapes ``(N, C_i, H_i, W_i)``.
            correspondence: Maps G_i of the same shapes.
            local_estimate: Maps E_l,i of the same shapes.
            global_estimate: Maps E_g,i of the same shapes.

        Returns:
            Scalars ``loss``, ``loss_correspondence``, ``loss_local`` and ``loss_global``.
        """
        target = [g.detach() for g in correspondence] if self.detach_target else correspondence
        terms = {
            "loss_correspondence": self._sum(correspondence, features),
            "loss_local": self._sum(local_estimate, features),
            "loss_global": self._sum(global_estimate, target),
        }
        total = sum(weight * term for weight, term in zip(self.weights, terms.values(), strict=True))
        return {"loss": total, **terms}

    def _sum(self, first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.stack([self._discrepancy(a, b) for a, b in zip(first, second, strict=True)]).sum()

    def _discrepancy(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        first, second = first.float(), second.float()
        if self.distance == "mse":
            return F.mse_loss(first, second)
        return (1 - F.cosine_similarity(first.flatten(1), second.flatten(1))).mean()

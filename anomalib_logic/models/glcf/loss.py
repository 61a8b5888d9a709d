# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Training objective of GLCF (paper equations 1 to 4)."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from anomalib_logic.models.components.arguments import check_choice
from anomalib_logic.models.components.error_maps import Distance


class GlcfLoss(nn.Module):
    """Weighted sum of correspondence, local estimation and global estimation.

    ``mse`` is the paper's squared Frobenius norm divided by the number of entries of a map; ``cosine`` is one minus
    the cosine similarity of the flattened maps, as in the authors' code.

    Args:
        distance: ``"mse"`` or ``"cosine"``.
        weights: Weights of the correspondence, the local and the global term (equation 4).

    Raises:
        ValueError: If ``distance`` is unknown.
    """

    def __init__(self, distance: Distance, weights: Sequence[float]) -> None:
        super().__init__()
        self.distance = check_choice("distance", distance, Distance)
        self.weights = dict(zip(("correspondence", "local", "global"), weights, strict=True))

    def forward(
        self,
        features: Sequence[torch.Tensor],
        correspondence: Sequence[torch.Tensor] | None,
        local_estimate: Sequence[torch.Tensor] | None,
        global_estimate: Sequence[torch.Tensor] | None,
    ) -> dict[str, torch.Tensor]:
        """Compute the loss terms.

        Args:
            features: Maps F_i of the frozen backbone, shapes ``(N, C_i, H_i, W_i)``.
            correspondence: Maps G_i of the same shapes, or ``None`` where that network is not trained.
            local_estimate: Maps E_l,i, likewise.
            global_estimate: Maps E_g,i, likewise.

        Returns:
            Scalars: ``loss``, and of ``loss_correspondence``, ``loss_local`` and ``loss_global`` those that there are.
        """
        pairs = {
            "correspondence": (correspondence, features),
            "local": (local_estimate, features),
            "global": (global_estimate, correspondence),
        }
        terms = {name: self._sum(*pair) for name, pair in pairs.items() if pair[0] is not None}  # type: ignore[arg-type]
        weighted = [self.weights[name] * term for name, term in terms.items()]
        return {"loss": sum(weighted[1:], weighted[0]), **{f"loss_{name}": term for name, term in terms.items()}}

    def _sum(self, first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.stack([self._discrepancy(a, b) for a, b in zip(first, second, strict=True)]).sum()

    def _discrepancy(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        first, second = first.float(), second.float()
        if self.distance == "mse":
            return F.mse_loss(first, second)
        return (1 - F.cosine_similarity(first.flatten(1), second.flatten(1))).mean()

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Object descriptors: one vector an object (paper section 3.5.1)."""

import torch
from torch import nn
from torch.nn import functional as F

from anomalib_logic.models.components.arguments import check_choice

from .options import Descriptor


class ObjectDescriptor(nn.Module):
    """Pool each object's features to a vector, and let objects attend to each other.

    Args:
        channels: Channels of the features, C.
        method: ``"gap"``: average over the object. ``"gmp"``: maximum over the object. ``"dcga_literal"``: dynamic
            channel graph attention of the maxima to the letter of equation 8, which replaces an object by a mixture
            of the others. ``"dcga"``: its residual form, which keeps the object itself.

    Attributes:
        convolution: The 1-D convolution over channels of equation 4. The paper's weights are not published; it
            starts as the identity, and weights can be loaded into it.
    """

    def __init__(self, channels: int, method: Descriptor = "gap") -> None:
        super().__init__()
        self.channels = channels
        self.method = check_choice("descriptor", method, Descriptor)
        self.convolution = nn.Conv1d(1, 1, kernel_size=3, padding=1, bias=False)
        with torch.no_grad():
            self.convolution.weight.copy_(torch.tensor([[[0.0, 1.0, 0.0]]]))
        self.requires_grad_(False)

    def forward(self, features: torch.Tensor, masks: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Describe objects.

        Args:
            features: Features in the objects' frames, shape ``(N, K, C, g, g)``.
            masks: Masks in the same frames, in [0, 1], shape ``(N, K, g, g)``.
            valid: Which slots hold an object, shape ``(N, K)``.

        Returns:
            Vectors of length 1 (0 in empty slots), shape ``(N, K, C)``.
        """
        if self.method == "gap":
            weights = masks / masks.sum(dim=(2, 3), keepdim=True).clamp_min(1e-6)
            pooled = (features * weights.unsqueeze(2)).sum(dim=(3, 4))
        else:
            inside = (masks > 0.5).unsqueeze(2)
            pooled = torch.where(inside, features, features.new_full((), -1e4)).amax(dim=(3, 4))
            pooled = torch.where(inside.flatten(2).any(dim=2)[..., None], pooled, torch.zeros_like(pooled))
        pooled = pooled * valid.unsqueeze(-1)
        if self.method.startswith("dcga"):
            pooled = self._attend(pooled, valid)
        return F.normalize(pooled, dim=-1) * valid.unsqueeze(-1)

    def _attend(self, pooled: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Dynamic channel graph attention (equations 4 to 8)."""
        channels = self.convolution(pooled.flatten(0, 1).unsqueeze(1)).squeeze(1).view_as(pooled)
        # A is diagonal, so G(f, A) weights each channel; times C, so that the average weight is 1.
        graph = pooled * torch.softmax(channels, dim=-1) * self.channels
        attended = torch.sigmoid(pooled * graph)
        unit = F.normalize(pooled, dim=-1)
        others = valid.unsqueeze(1) & valid.unsqueeze(2)
        others = others & ~torch.eye(valid.shape[1], dtype=torch.bool, device=valid.device)
        adjacency = (unit @ unit.transpose(1, 2)).clamp_min(0) * others
        adjacency = adjacency / adjacency.sum(dim=-1, keepdim=True).clamp_min(1e-6)
        mixture = adjacency @ (attended * valid.unsqueeze(-1))
        if self.method == "dcga_literal":
            return mixture
        return F.normalize(attended - 0.5, dim=-1) + 0.5 * F.normalize(mixture - 0.5, dim=-1)

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Networks that are never trained."""

from typing import Any

from torch import nn


class Frozen(nn.Module):
    """A module that stays in evaluation mode, whatever mode its parent is in."""

    def freeze(self) -> None:
        """Switch gradients and training mode off; call it when all parts are there."""
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Any:
        """Stay in evaluation mode: a frozen network has no training mode."""
        del mode
        return super().train(False)

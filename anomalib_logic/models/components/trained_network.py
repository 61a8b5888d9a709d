# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Networks on a frozen pyramid that are trained on normal images and score others by their errors."""

from collections.abc import Sequence
from typing import Any

import torch
from anomalib.data import InferenceBatch
from torch import nn

from .normal_statistics import ChannelStandardization, MapNormalization
from .pyramid import FeaturePyramid


class TrainedNetwork(nn.Module):
    """What :class:`.trained_model.TrainedModel` trains and measures.

    A subclass sets the attributes, and has the methods :meth:`maps`, :meth:`errors` and :meth:`anomaly_map`.

    Attributes:
        pyramid: The frozen backbone.
        standardization: Statistics of its channels over normal images, or ``None``.
        normalization: Statistics of the errors over normal images.
    """

    pyramid: FeaturePyramid
    standardization: ChannelStandardization | None
    normalization: MapNormalization

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The backbone's maps, shapes ``(N, C_i, H_i, W_i)``, standardised as soon as their statistics are measured."""
        pyramid = self.pyramid(images)
        return pyramid if self.standardization is None else self.standardization(pyramid)

    def maps(self, images: torch.Tensor) -> Sequence[Any]:
        """Run the networks on normalised images, shape ``(N, 3, H, W)``.

        Returns:
            What the loss compares, as a named tuple.
        """
        raise NotImplementedError

    def errors(self, maps: Any) -> list[torch.Tensor]:
        """Errors of the result of :meth:`maps` in single precision, shapes ``(N, 1, H_i, W_i)``."""
        raise NotImplementedError

    def anomaly_map(self, errors: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Anomaly map, shape ``(N, 1, H, W)``, and image score, shape ``(N,)``, from the result of :meth:`errors`."""
        raise NotImplementedError

    def forward(self, images: torch.Tensor) -> Sequence[Any] | InferenceBatch:
        """Compute the networks' maps when training, the anomaly map and score, without gradients, otherwise.

        Args:
            images: Normalised images, shape ``(N, 3, H, W)``.

        Returns:
            Training: the result of :meth:`maps`. Otherwise ``anomaly_map`` of shape ``(N, 1, H, W)`` and ``pred_score``
            of shape ``(N,)``.
        """
        if self.training:
            return self.maps(images)
        # Here, because Anomalib's TorchInferencer leaves gradients on.
        with torch.no_grad():
            anomaly_map, score = self.anomaly_map(self.errors(self.maps(images)))
        return InferenceBatch(pred_score=score, anomaly_map=anomaly_map)

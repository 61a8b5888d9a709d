# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Image AUROC of the MVTec LOCO AD protocol."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from anomalib.metrics import AnomalibMetric

from anomalib_logic.data.loco_layout import anomaly_kinds

from .loco_metric import LocoMetric, on_reliable_device, text_key
from .protocol import check_test_images, image_auroc, metric_name, require_kinds


class _LocoAUROC(LocoMetric):
    """Image AUROC from scores and paths."""

    def __init__(self, kind: str = "mean", **kwargs: Any) -> None:
        super().__init__({"images": torch.float64}, kind, **kwargs)

    def check_images(self, image_paths: Sequence[str | Path]) -> None:
        """Raise ``ValueError`` unless the images are a category's test set with the kinds that the metric needs."""
        check_test_images(image_paths)
        require_kinds(anomaly_kinds(image_paths), self.kind)

    def update(self, pred_score: torch.Tensor, image_path: Sequence[str]) -> None:
        """Add a batch.

        Args:
            pred_score: Image scores, shape ``(N,)``.
            image_path: Path of each image.
        """
        scores = on_reliable_device(pred_score).flatten().double()
        if not torch.isfinite(scores).all():
            msg = f"image scores must be finite, got {scores.tolist()} for {list(image_path)}"
            raise ValueError(msg)
        kinds = [self._kind_key(kind) for kind in anomaly_kinds(image_path)]
        keys = [text_key(path) for path in image_path]
        columns = [scores.new_tensor(keys), scores.new_tensor(kinds), scores]
        self.images.append(torch.stack(columns, dim=1).flatten())

    def compute(self) -> torch.Tensor:
        """Compute the metric, float32 scalar in [0, 1]."""
        images = {int(row[0]): row for row in self._gather("images").view(-1, 3).flip(0).tolist()}
        kinds = [self._kind_name(kind) for _, kind, _ in images.values()]
        scores = torch.tensor([score for _, _, score in images.values()], dtype=torch.float64)
        return torch.tensor(image_auroc(kinds, scores, self.kind), device=self.device)


class LocoAUROC(AnomalibMetric, _LocoAUROC):  # type: ignore[misc]
    """Image AUROC of one kind of anomalies against the good images, or the mean over the kinds.

    The mean of the two kinds is the metric of MVTec LOCO AD; in AutoVI's layout it is over all folders of anomalies. It
    is not the AUROC over all images. Its name in a test run is ``AUROC_<kind>`` with the prefix before it.

    Args:
        kind: ``"logical"``, ``"structural"`` or ``"mean"``, or in AutoVI's layout ``"mean"`` or the name of a folder of
            anomalies.
        fields: Fields of the batch with image scores and paths.
        prefix: Goes before the metric's name.
        strict: As in Anomalib: whether a batch without these fields is an error.
        **kwargs: Arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If ``kind`` is no name; on update, if an image does not lie in the layout of LOCO or AutoVI or a
            score is not finite; on compute, if there is no image of a kind that the metric needs.

    Example:
        >>> from anomalib.metrics import Evaluator
        >>> evaluator = Evaluator(test_metrics=[LocoAUROC("logical", prefix="image_")])
    """

    default_fields = ("pred_score", "image_path")

    def __init__(
        self,
        kind: str = "mean",
        fields: Sequence[str] | None = None,
        prefix: str = "",
        strict: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(fields=fields, prefix=prefix, strict=strict, kind=kind, **kwargs)
        self.name = f"{prefix}AUROC_{metric_name(kind)}"

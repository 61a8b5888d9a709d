# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What the callbacks of a test or predict run explain of its images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from anomalib.post_processing import PostProcessor
from anomalib.utils.path import generate_output_filename

from anomalib_logic.data.image_files import read_size
from anomalib_logic.metrics._test_images import datasets_of
from anomalib_logic.metrics.map_geometry import map_geometry

from .findings import ExplainedImage, FoundObject, find_objects, find_regions
from .record import Record, make_record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anomalib.data import ImageBatch
    from lightning.pytorch import Callback, LightningModule, Trainer


class Explained(NamedTuple):
    """What is said of an image.

    Attributes:
        path: The image file.
        size: Its height and width in pixels.
        record: See :mod:`.record`.
        anomaly_map: Map at the size of the image, shape ``(H, W)``; ``None`` for a model without maps.
        objects: Its objects; ``None`` for a model that knows none.
    """

    path: Path
    size: tuple[int, int]
    record: Record
    anomaly_map: torch.Tensor | None
    objects: list[FoundObject] | None


class RunExplainer:
    """Explains the post-processed batches of a run.

    Args:
        trainer: Trainer of the run, with its data.
        module: The model.
        objects: Ask a model that knows objects (SAM-LAD) for them, which compares each image once more.

    Raises:
        ValueError: If the pre-processing or the data set's transform moves pixels in a way that cannot be undone.
    """

    def __init__(self, trainer: Trainer, module: LightningModule, objects: bool = True) -> None:
        self.trainer = trainer
        self.module = module
        self.objects = objects
        loaders = trainer.predict_dataloaders if trainer.predicting else trainer.test_dataloaders
        self.geometry = map_geometry(datasets_of(loaders), module)
        self.threshold, self.pixel_threshold, self.calibrated = _thresholds(module)

    def explain(self, batch: ImageBatch) -> Iterator[Explained]:
        """Explain a batch, image by image, in its order.

        Raises:
            ValueError: If the batch has no paths, or a map has scores that are not finite.
        """
        if not getattr(batch, "image_path", None):
            msg = "the images have no image_path, so there is no file to explain; use a data set that gives it"
            raise ValueError(msg)
        known = explained_objects(self.trainer, self.module, batch) if self.objects else None
        for i, path in enumerate(map(Path, batch.image_path)):
            try:
                yield self._explain(batch, i, path, known[i] if known is not None else None)
            except ValueError as error:
                msg = f"{path}: {error}"
                raise ValueError(msg) from error

    def _explain(self, batch: ImageBatch, i: int, path: Path, known: ExplainedImage | None) -> Explained:
        size = read_size(path)
        anomaly_map, regions, objects, pixel_threshold = None, None, None, None
        if batch.anomaly_map is not None:
            anomaly_map = self._restore(batch.anomaly_map[i], size)
            above, pixel_threshold = self._above(batch, i, anomaly_map)
            regions = None if above is None else find_regions(anomaly_map, above)
            if known is not None:
                above = torch.zeros(size, dtype=torch.bool) if above is None else above
                objects = list(find_objects(known, self.geometry, anomaly_map, above, regions or []))
        record = make_record(
            file=str(path),
            size=size,
            model=type(self.module).__name__,
            score=None if batch.pred_score is None else float(batch.pred_score[i]),
            threshold=self.threshold,
            anomalous=bool(batch.pred_label[i]) if self.calibrated and batch.pred_label is not None else None,
            pixel_threshold=pixel_threshold,
            regions=regions,
            objects=objects,
            reasons=None if known is None else known.reasons,
        )
        return Explained(path, size, record, anomaly_map, objects)

    def _restore(self, values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return self.geometry.restore(values.squeeze(0).float().cpu(), size)

    def _above(self, batch: ImageBatch, i: int, anomaly_map: torch.Tensor) -> tuple[torch.Tensor | None, float | None]:
        """Which pixels of the image are anomalous, and the threshold if they are so by a threshold."""
        if not self.calibrated or batch.pred_mask is None:
            return None, None
        mask, threshold = batch.pred_mask[i].bool(), self.pixel_threshold
        if threshold is not None and torch.equal(mask, batch.anomaly_map[i] > threshold):
            return anomaly_map > threshold, threshold
        return self._restore(mask, (anomaly_map.shape[0], anomaly_map.shape[1])) > 0.5, None


def explained_objects(trainer: Trainer, module: LightningModule, batch: ImageBatch) -> list[ExplainedImage] | None:
    """What a model says of a batch's objects, asked once for all callbacks; ``None`` for one that knows none."""
    explain = getattr(getattr(module, "model", None), "explain", None)
    if explain is None:
        return None
    if not hasattr(batch, "explained_objects"):
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            found = [one for image in batch.image.split(1) for one in explain(image)]
        batch.explained_objects = found
    return batch.explained_objects


def picture_path(trainer: Trainer, image_path: str | Path, folder: str | Path | None) -> Path:
    """Where Anomalib's visualiser writes an image's picture; the folder is made.

    Args:
        trainer: Trainer of the run.
        image_path: The image file.
        folder: Folder of the pictures; ``None``: ``images`` in the run's results.
    """
    data_module = getattr(trainer, "datamodule", None)
    return generate_output_filename(
        input_path=image_path,
        output_path=folder or Path(trainer.default_root_dir) / "images",
        dataset_name=getattr(data_module, "name", None),
        category=getattr(data_module, "category", None),
    )


def run_last(trainer: Trainer, callback: Callback) -> None:
    """Move a callback behind the model's own, which post-process batches.

    Args:
        trainer: Trainer that is being set up. It gets a new list of callbacks, since it walks through the present one.
        callback: One of its callbacks.
    """
    trainer.callbacks = [*(other for other in trainer.callbacks if other is not callback), callback]


def _thresholds(module: LightningModule) -> tuple[float | None, float | None, bool]:
    """Thresholds of images and of pixels on the scale of a batch's scores, and whether its labels mean anything."""
    post_processor = getattr(module, "post_processor", None)
    if not isinstance(post_processor, PostProcessor):
        return None, None, True  # labels, if any, are the model's own
    if not post_processor.enable_thresholding or bool(post_processor.image_threshold.isnan()):
        return None, None, False
    thresholds = (post_processor.normalized_image_threshold, post_processor.normalized_pixel_threshold)
    return float(thresholds[0]), float(thresholds[1]), True

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Evaluator that reports the metrics of the MVTec LOCO AD protocol."""

import logging
from collections.abc import Iterable, Sequence
from itertools import compress, product
from pathlib import Path
from typing import Any

from anomalib.metrics import AnomalibMetric, Evaluator
from anomalib.models.components import AnomalibModule
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.nn import ModuleList
from torchmetrics import MetricCollection, SumMetric

from anomalib_logic.data.loco_layout import GOOD, anomaly_kind, anomaly_kinds, read_defects_config

from ._raw_scores import InUnitInterval
from ._test_images import image_paths_of, run_before_post_processor, test_datasets, test_image_paths
from .auroc import LocoAUROC
from .functional.spro import check_limit
from .loco_metric import LocoMetric
from .map_geometry import map_geometry
from .protocol import KINDS, check_test_images, metric_kinds
from .spro import AUsPRO

logger = logging.getLogger(__name__)


class LocoEvaluator(Evaluator):
    """Evaluator with the metrics of MVTec LOCO AD: image AUROC and AU-sPRO, logical, structural and their mean.

    In AutoVI's layout the metrics are of each folder of anomalies and their mean.

    Works with every Anomalib model. The metrics are computed from maps and scores as the model gives them, before the
    post-processor clamps them to [0, 1], and maps of a model that crops its images are placed on them again; other
    metrics see the processed batch as in Anomalib's evaluator. AU-sPRO metrics share their work and their memory.

    Args:
        val_metrics: Validation metrics.
        test_metrics: Test metrics. ``None``: Anomalib's defaults. Where none is a :class:`AUsPRO` or a
            :class:`LocoAUROC`, the protocol's metrics are added.
        compute_on_cpu: As in Anomalib.
        limits: False positive rates up to which the added AU-sPRO count.
        per_defect: Also add an AU-sPRO for each defect type.
        required: Raise an error at setup if the test data does not allow the metrics. Otherwise those that it allows
            are reported beside the other metrics, on data of another layout none.

    Raises:
        ValueError: If a limit is not in (0, 1]; at setup, if the metrics are required and the data does not allow them,
            or the pre-processing does more to the images' geometry than resizes and centre crops.
        FileNotFoundError: At setup, if the metrics are required and a file of the ground truth is missing.

    Example:
        >>> from anomalib.models import Patchcore
        >>> from anomalib_logic import LocoEvaluator
        >>> model = Patchcore(evaluator=LocoEvaluator(limits=[0.05, 0.3]))  # doctest: +SKIP
    """

    def __init__(
        self,
        val_metrics: AnomalibMetric | Sequence[AnomalibMetric] | None = None,
        test_metrics: AnomalibMetric | Sequence[AnomalibMetric] | None = None,
        compute_on_cpu: bool = True,
        limits: Sequence[float] = (0.05,),
        per_defect: bool = False,
        required: bool = True,
    ) -> None:
        if test_metrics is None:
            test_metrics = list(AnomalibModule.configure_evaluator().test_metrics)
        metrics = self.validate_metrics(test_metrics)
        others = [metric for metric in metrics if not isinstance(metric, LocoMetric)]
        super().__init__(val_metrics, others, compute_on_cpu)
        self.limits = [check_limit(limit) for limit in limits]
        self.per_defect = per_defect
        self.required = required
        self._chosen = [metric for metric in metrics if isinstance(metric, LocoMetric)]
        self._names: dict[str, str] = {}
        self.loco_metrics = _collection([])
        self._update = _BeforePostProcessor(self)
        self._seen = ModuleList([SumMetric(), SumMetric()])  # normal and anomalous images

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the metrics that the test data allows, or raise an error if they are required."""
        datamodule = getattr(trainer, "datamodule", None)
        for metric in self.val_metrics:
            paths = image_paths_of(getattr(datamodule, "val_data", None))
            if isinstance(metric, LocoMetric) and paths is not None:
                metric.check_images(paths)
            if isinstance(metric, AUsPRO):
                metric.restore_map = map_geometry([getattr(datamodule, "val_data", None)], pl_module).restore
        if stage == "test" or (stage == "fit" and (self._chosen or self.required)):
            self._choose(trainer, pl_module)
        if stage == "test":
            run_before_post_processor(trainer, pl_module, self._update)
        super().setup(trainer, pl_module, stage)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the metrics now if the data was not known at setup."""
        if getattr(trainer, "datamodule", None) is None:
            self._choose(trainer, pl_module)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Update validation metrics; scores are raw then, whatever the post-processor does in tests."""
        self._count(batch)
        ordered = InUnitInterval(batch)
        for metric in self.val_metrics:
            metric.update(batch if isinstance(metric, LocoMetric) else ordered)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute and log the validation metrics that the images allow."""
        self._log(trainer, self._possible(self.val_metrics))

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Update test metrics."""
        self._count(batch)
        normalized = getattr(getattr(pl_module, "post_processor", None), "enable_normalization", False)
        ordered = batch if normalized else InUnitInterval(batch)
        for metric in self.test_metrics:
            metric.update(ordered)

    def _count(self, batch: Any) -> None:
        """Count normal and anomalous images."""
        if batch.gt_label is not None:
            anomalous = batch.gt_label.bool()
            for counter, kind in zip(self._seen, (~anomalous, anomalous), strict=True):
                counter.update(kind.sum().float())

    def _possible(self, metrics: ModuleList) -> list[AnomalibMetric]:
        """Metrics that the images allow; those that compare with the ground truth need both kinds of images."""
        normal, anomalous = (bool(counter.compute() > 0) for counter in self._seen)
        for counter in self._seen:
            counter.reset()
        if normal == anomalous:
            return list(metrics)
        compared = [bool({"gt_label", "gt_mask"} & set(metric.fields)) for metric in metrics]
        left_out = list(compress(metrics, compared))
        if left_out:
            kinds = ("normal", "anomalous") if normal else ("anomalous", "normal")
            names = ", ".join(metric.name for metric in left_out)
            logger.warning("all images are %s: %s need %s images, too, and are left out", kinds[0], names, kinds[1])
        for metric in left_out:
            metric.reset()
        return [metric for metric, compares in zip(metrics, compared, strict=True) if not compares]

    def _log(self, trainer: Trainer, metrics: Iterable[AnomalibMetric]) -> None:
        """Log metrics as Anomalib does; in barebones mode, where nothing is logged, results get their values."""
        for metric in metrics:
            self.log(metric.name, metric)
            if trainer.barebones:
                trainer.callback_metrics[metric.name] = trainer.logged_metrics[metric.name] = metric.compute()

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute and log the metrics."""
        self._log(trainer, self._possible(self.test_metrics))
        for key, value in self._compute().items():
            name = self._names[key]
            self.log(name, value, sync_dist=True)
            if trainer.barebones:
                trainer.callback_metrics[name] = trainer.logged_metrics[name] = value
        self.loco_metrics.reset()

    def _compute(self) -> dict[str, Any]:
        """Compute the metrics; without the optional ones if the run saw only a part of the test images."""
        try:
            return self.loco_metrics.compute()
        except ValueError as error:
            if self._chosen or self.required:
                raise
            logger.warning("the metrics of MVTec LOCO AD are not reported: %s", error)
            return {}

    def _choose(self, trainer: Trainer, pl_module: LightningModule | None = None) -> None:
        """Take the chosen metrics, or else those of the protocol that the data allows."""
        paths = test_image_paths(trainer)
        metrics = list(self._chosen)
        if paths is None:
            metrics = metrics or (_protocol_metrics(self.limits) if self.required else [])
        elif metrics or self.required:
            metrics = metrics or _protocol_metrics(self.limits, paths, self.per_defect)
            for metric in metrics:
                metric.check_images(paths)
        else:
            metrics = _allowed(paths, self.limits, self.per_defect)
        metrics = self._place_maps(metrics, trainer, pl_module)
        self.loco_metrics = _collection(metrics)
        self.loco_metrics.reset()  # of what a run that failed has left
        self._names = {key: metric.name for key, metric in self.loco_metrics.items(copy_state=False)}
        if self.compute_on_cpu and trainer.num_devices == 1:
            self.metrics_to_cpu(metrics)

    def _place_maps(
        self, metrics: list[LocoMetric], trainer: Trainer, pl_module: LightningModule | None
    ) -> list[LocoMetric]:
        """Tell the metrics where on an image its map lies; leave those of maps out, or raise, if that is not known."""
        of_maps = [metric for metric in metrics if isinstance(metric, AUsPRO)]
        if not of_maps:
            return metrics
        try:
            geometry = map_geometry(test_datasets(trainer), pl_module)
        except ValueError as error:
            if self._chosen or self.required:
                raise
            logger.warning("the metrics of anomaly maps are not reported: %s", error)
            return [metric for metric in metrics if not isinstance(metric, AUsPRO)]
        for metric in of_maps:
            metric.restore_map = geometry.restore
        return metrics


class _BeforePostProcessor(Callback):
    """Updates an evaluator's LOCO metrics; a callback of its own, for the evaluator comes after the post-processor."""

    def __init__(self, evaluator: LocoEvaluator) -> None:
        self.evaluator = evaluator

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Update the metrics with the batch as the model left it."""
        if len(self.evaluator.loco_metrics):
            self.evaluator.loco_metrics.update(batch)


def _collection(metrics: Sequence[LocoMetric]) -> MetricCollection:
    """Collect metrics; those of the same type and fields have the same states, so that one update does for all."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for i, metric in enumerate(metrics):
        groups.setdefault((type(metric), *metric.fields), []).append(f"metric_{i}")
    named = {f"metric_{i}": metric for i, metric in enumerate(metrics)}
    return MetricCollection(named, compute_groups=list(groups.values()) or False)


def _protocol_metrics(
    limits: Sequence[float], paths: Sequence[str] | None = None, per_defect: bool = False
) -> list[LocoMetric]:
    """Make the protocol's metrics for test images, if these are known, and with one a defect type if wanted."""
    kinds = KINDS if paths is None else metric_kinds(anomaly_kinds(paths))
    metrics: list[LocoMetric] = [LocoAUROC(kind, prefix="image_") for kind in kinds]
    metrics += [AUsPRO(limit, kind, prefix="pixel_") for limit, kind in product(limits, kinds)]
    if per_defect and paths is not None:
        configs = read_defects_config(check_test_images(paths))
        # AutoVI's folders have the names of defects, but the metrics differ: of images here, of regions there
        prefix = "pixel_" if kinds == KINDS else "pixel_defect_"
        names = [config.defect_name for config in configs]
        metrics += [AUsPRO(limit, defect=name, prefix=prefix) for limit, name in product(limits, names)]
    return metrics


def _is_anomaly_of_the_layout(path: str) -> bool:
    try:
        return anomaly_kind(path) != GOOD
    except ValueError:
        return False


def _allowed(paths: Sequence[str], limits: Sequence[float], per_defect: bool) -> list[LocoMetric]:
    """Make those of the protocol's metrics that the test images allow, and say in the log why others are left out.

    Of images in another layout, none of which lies in a folder of anomalies of this one, nothing is said.
    """
    metrics: list[LocoMetric] = []
    of_each_folder = {Path(path).parent: path for path in paths}.values()
    if not any(map(_is_anomaly_of_the_layout, of_each_folder)):
        return metrics
    candidates = []
    for arguments in ((paths, per_defect), (paths, False), (None, False)):
        try:
            candidates = _protocol_metrics(limits, *arguments)
            break
        except (OSError, ValueError):
            continue
    for metric in candidates:
        try:
            metric.check_images(paths)
        except (OSError, ValueError) as error:
            logger.info("%s is not reported: %s", metric.name, error)
        else:
            metrics.append(metric)
    return metrics

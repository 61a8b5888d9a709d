# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Thresholds, and normalised scores that keep the order of the raw ones."""

import logging
import warnings
from typing import Any

import torch
from anomalib.data import Batch
from anomalib.metrics import F1AdaptiveThreshold
from anomalib.post_processing import PostProcessor
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torchmetrics import SumMetric
from torchmetrics.utilities.data import dim_zero_cat

from anomalib_logic.metrics._raw_scores import to_unit_interval

from .normal_scores import MARGIN, SAME, NormalScores, Scores, image_threshold, pixel_threshold, scores_scale
from .training import validation_may_be_last

logger = logging.getLogger(__name__)

STEEPNESS = 4.0  # of normalised scores at the threshold
ENOUGH = 10  # normal images that the model was not fitted on, for thresholds without training images


RATES = ("false_alarm_rate", "pixel_false_alarm_rate")
NO_SCORES = Scores(torch.empty(0), torch.empty(0), torch.empty(0))


class F1Threshold(F1AdaptiveThreshold):
    """Anomalib's threshold of the highest F1 score, in the middle between two scores instead of on one."""

    def compute(self) -> torch.Tensor:  # type: ignore[override]
        """Return the middle between the lowest score that is anomalous and the next lower one."""
        threshold, scores = super().compute(), dim_zero_cat(self.preds)
        scale = scores_scale(scores)
        anomalous = scores >= threshold - SAME * scale
        upper = scores[anomalous].min()
        return upper - MARGIN * scale if anomalous.all() else (scores[~anomalous].max() + upper) / 2


class CalibratedPostProcessor(PostProcessor):
    """Anomalib's post-processor with thresholds for a false alarm rate, and normalisation without clamping.

    Where the validation images are normal and anomalous ones, thresholds are Anomalib's, those of the highest F1 score;
    that of pixels needs masks. Otherwise they come from all normal images that the model was not fitted on: those of
    validation, and those that the model itself can hold out (SAM-LAD compares each image of its bank with the others).
    Where these are fewer than ``ENOUGH``, training images join them, which a warning says.

    Normalised scores are ``1/2 + sign(x) / 2 * u / (1 + u)`` with ``u = log(1 + |x|)`` and
    ``x = 4 (score - threshold) / (threshold - lowest score)``: 0.5 at the threshold, 0.19 at the lowest score, in
    (0, 1), and strictly increasing also far beyond the scores that it was measured on. So metrics of normalised scores
    are those of raw scores.

    Args:
        false_alarm_rate: Share of new normal images that may be called anomalous, in (0, 0.5].
        pixel_false_alarm_rate: Share of the pixels of normal images that may be masked, in (0, 0.5].
        **kwargs: Arguments of Anomalib's post-processor.

    Raises:
        ValueError: If a rate is out of range.
    """

    def __init__(self, false_alarm_rate: float = 0.05, pixel_false_alarm_rate: float = 0.005, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.false_alarm_rate = _check_rate("false_alarm_rate", false_alarm_rate)
        self.pixel_false_alarm_rate = _check_rate("pixel_false_alarm_rate", pixel_false_alarm_rate)
        self._image_threshold_metric = F1Threshold(fields=["pred_score", "gt_label"], strict=False)
        self._pixel_threshold_metric = F1Threshold(fields=["anomaly_map", "gt_mask"], strict=False)
        self._normal, self._fitted = NormalScores(), NormalScores()
        self._anomalous, self._masked = SumMetric(), SumMetric()
        self._stale = False

    @property
    def _checkpoint_config_keys(self) -> tuple[str, ...]:
        return (*super()._checkpoint_config_keys, *RATES)

    def measure_held_out(self, pl_module: LightningModule) -> bool:
        """Set thresholds from the normal images that a model can hold out itself, without any data.

        Args:
            pl_module: The model.

        Returns:
            Whether it has such images (SAM-LAD has those of its bank).
        """
        self._forget()
        self._add_held_out(pl_module)
        held_out = _computed(self._normal)
        self._forget()
        if len(held_out.scores):
            self._set_thresholds(held_out)
        return len(held_out.scores) > 0

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what a validation that did not end has left."""
        del trainer, pl_module
        self._forget()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Batch, *args: Any, **kwargs: Any
    ) -> None:
        """Collect scores and maps of a batch."""
        super().on_validation_batch_end(trainer, pl_module, outputs, *args, **kwargs)
        if outputs.gt_label is None:
            return
        normal = ~outputs.gt_label.bool().flatten()
        self._anomalous.update((~normal).sum().float())
        if outputs.gt_mask is not None:
            self._masked.update(outputs.gt_mask.any().float())
        if bool(normal.any()):
            fields = (outputs.pred_score, outputs.anomaly_map)
            self._normal.update(*(None if field is None else field[normal] for field in fields))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set thresholds and limits."""
        both = _total(self._anomalous) > 0 and len(_computed(self._normal).scores) > 0
        masked = both and _total(self._masked) > 0
        if not both:
            self._image_threshold_metric.reset()
        if not masked:
            self._pixel_threshold_metric.reset()
        super().on_validation_epoch_end(trainer, pl_module)
        if both and _may_be_last(trainer):
            self._warn_of_few()
            self._warn_of_rates(masked)
        if not masked:
            self._measure_normal(trainer, pl_module, pixels_only=both)
        self._forget()

    def _warn_of_few(self) -> None:
        normal, anomalous = len(_computed(self._normal).scores), int(_total(self._anomalous))
        if min(normal, anomalous) < ENOUGH:
            logger.warning(
                "thresholds rest on %d normal and %d anomalous validation images, on which they have the highest F1 "
                "score: others may be called wrongly. Give at least %d of both kinds, or normal ones only "
                "(--data.val_split_mode from_train)",
                normal,
                anomalous,
                ENOUGH,
            )

    def _warn_of_rates(self, masked: bool) -> None:
        """Name rates that were given and decide nothing."""
        defaults = CalibratedPostProcessor()
        rates = [name for name in RATES[: 1 + masked] if getattr(self, name) != getattr(defaults, name)]
        if rates:
            logger.warning(
                "%s without effect: the validation images are normal and anomalous ones, of which thresholds have the "
                "highest F1 score. Validate with normal images only (--data.val_split_mode from_train)",
                " and ".join(f"{name}={getattr(self, name)}" for name in rates),
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that thresholds are those of other weights, once training begins."""
        del trainer, pl_module
        self._stale = True

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget thresholds and limits of other weights."""
        del trainer, pl_module
        if self._stale:
            for buffer in self.buffers(recurse=False):
                buffer.fill_(float("nan"))
        self._stale = False

    def _forget(self) -> None:
        for metric in (self._normal, self._fitted, self._anomalous, self._masked):
            metric.reset()

    @torch.no_grad()
    def _measure_normal(self, trainer: Trainer, pl_module: LightningModule, pixels_only: bool) -> None:
        """Set thresholds and limits from normal images.

        Args:
            trainer: The trainer.
            pl_module: The model.
            pixels_only: Leave threshold and limits of image scores as they are.
        """
        self._add_held_out(pl_module)
        held_out = _computed(self._normal)
        if len(held_out.scores) < ENOUGH and not pixels_only and _may_be_last(trainer):
            self._add_fitted(pl_module, len(held_out.scores))
        self._set_thresholds(held_out, _computed(self._fitted), pixels_only)

    @torch.no_grad()
    def _add_held_out(self, pl_module: LightningModule) -> None:
        for prediction in getattr(pl_module, "held_out_predictions", tuple)():
            self._normal.update(prediction.pred_score, prediction.anomaly_map)

    def _set_thresholds(self, held_out: Scores, fitted: Scores = NO_SCORES, pixels_only: bool = False) -> None:
        """Set thresholds and limits from scores of normal images, see :meth:`_measure_normal`."""
        every = Scores(*(torch.cat(fields) for fields in zip(held_out, fitted, strict=True)))
        if not len(every.scores):
            return
        if not pixels_only:
            self._image_threshold.copy_(image_threshold(held_out.scores, self.false_alarm_rate, fitted.scores))
            self.image_min.copy_(every.scores.min())
            self.image_max.copy_(torch.fmax(self.image_max.cpu(), every.scores.max()))
        if len(every.values):
            self._pixel_threshold.copy_(pixel_threshold(every.values, every.counts, self.pixel_false_alarm_rate))
            self.pixel_min.copy_(every.values.min())
            self.pixel_max.copy_(torch.fmax(self.pixel_max.cpu(), every.values.max()))

    def _add_fitted(self, pl_module: LightningModule, held_out: int) -> None:
        """Let the model predict its training images, and say what follows."""
        for prediction in getattr(pl_module, "fitted_predictions", tuple)():
            self._fitted.update(prediction.pred_score, prediction.anomaly_map)
        fitted = len(_computed(self._fitted).scores)
        if held_out + fitted == 0:
            logger.warning(
                "%s has no thresholds, so its labels and masks mean nothing: there was no normal image to measure them "
                "on. Train or validate it with a data module that has normal validation images",
                type(pl_module).__name__,
            )
            return
        logger.warning(
            "thresholds rest on %d normal images that %s was not fitted on%s: more false alarms than "
            "false_alarm_rate=%g are possible. Give the data module at least %d normal validation images",
            held_out,
            type(pl_module).__name__,
            f", and on {fitted} training images, whose scores may be lower than those of new ones" if fitted else "",
            self.false_alarm_rate,
            ENOUGH,
        )

    @staticmethod
    def _apply_threshold(preds: torch.Tensor | None, threshold: torch.Tensor) -> torch.Tensor | None:
        """Label scores or maps; what is not a number is anomalous."""
        labels = PostProcessor._apply_threshold(preds, threshold)
        return labels if preds is None or labels is None or labels is preds else labels | preds.isnan()

    @staticmethod
    def _normalize(
        preds: torch.Tensor | None, norm_min: torch.Tensor, norm_max: torch.Tensor, threshold: torch.Tensor
    ) -> torch.Tensor | None:
        """Normalise scores or maps; raw ones where nothing was measured.

        Args:
            preds: Raw scores or maps.
            norm_min: Lowest score.
            norm_max: Highest score, which matters only if the threshold is the lowest.
            threshold: Score that becomes 0.5.
        """
        if preds is None:
            return preds
        threshold = torch.where(threshold.isnan(), (norm_max + norm_min) / 2, threshold)
        reach = torch.where(threshold > norm_min, threshold - norm_min, norm_max - norm_min)
        reach = torch.where(reach > 0, reach, threshold.abs().clamp_min(torch.finfo(threshold.dtype).tiny))
        normalized = to_unit_interval(STEEPNESS * (preds - threshold) / reach)
        return torch.where(norm_min.isnan() | norm_max.isnan(), preds, normalized)


def _check_rate(name: str, rate: float) -> float:
    if not 0 < rate <= 0.5:
        msg = f"{name} must be above 0 and at most 0.5, got {rate}"
        raise ValueError(msg)
    return rate


def _may_be_last(trainer: Trainer | None) -> bool:
    """Whether no later validation of the same fit will set the thresholds."""
    return trainer is None or trainer.state.fn != TrainerFn.FITTING or validation_may_be_last(trainer)


def _computed(metric: NormalScores) -> Scores:
    with warnings.catch_warnings():  # torchmetrics warns of metrics that saw nothing
        warnings.simplefilter("ignore")
        return Scores(*(field.reshape(-1) for field in metric.compute()))  # torchmetrics makes one value a scalar


def _total(metric: SumMetric) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(metric.compute())

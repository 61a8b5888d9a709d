# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Run one job: fit, predict the test images, and turn raw scores and maps into figures."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning
import torch
from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.engine import Engine
from anomalib.models import AnomalibModule
from lightning import seed_everything
from lightning.pytorch import Callback
from lightning.pytorch.trainer.states import TrainerFn
from sklearn.metrics import average_precision_score, roc_auc_score

import anomalib_logic
from anomalib_logic.data.loco_layout import ANOMALY_KINDS, GOOD, has_ground_truth, read_defects_config
from anomalib_logic.metrics.functional import SproCurve, au_spro, auroc
from anomalib_logic.metrics.map_geometry import map_geometry
from anomalib_logic.metrics.protocol import kind_curve, measure_image

from .jobs import DONE, Job, Place, Result
from .models import Backbone, Recipe, for_epochs, recipe_of
from .suites import SUITES

FPR_LIMIT = 0.05  # of AU-sPRO
CURVE_LIMIT, CURVE_POINTS = 0.3, 61  # of the curves that are kept
TIMED_IMAGES, WARM_UP = 20, 3
LOGICAL, STRUCTURAL = (name.removesuffix("_anomalies") for name in ANOMALY_KINDS[1:])


@dataclass(eq=False)
class Predictions(Callback):
    """Keeps what a model says of the test images, on the CPU.

    Attributes:
        paths: Path of each image.
        kinds: ``"good"``, or the name of the image's folder without ``_anomalies``.
        scores: Raw image scores.
        maps: Raw anomaly maps, each ``(H, W)``; none if the model makes none.
        masks: Ground truth of the maps' sizes; none if the data has none.
    """

    paths: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    maps: list[torch.Tensor] = field(default_factory=list)
    masks: list[torch.Tensor] = field(default_factory=list)

    def on_predict_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *args: Any, **kwargs: Any) -> None:
        """Add a batch."""
        labels = outputs.gt_label.flatten().bool().tolist()
        self.paths += list(outputs.image_path)
        self.kinds += [kind_of(path, label) for path, label in zip(outputs.image_path, labels, strict=True)]
        self.scores += outputs.pred_score.float().flatten().cpu().tolist()
        if outputs.anomaly_map is not None:
            self.maps += outputs.anomaly_map.float().flatten(0, -3).cpu().unbind()
        if outputs.gt_mask is not None:
            self.masks += outputs.gt_mask.bool().flatten(0, -3).cpu().unbind()

    def of_kind(self, kind: str) -> torch.Tensor:
        """Scores of one kind of images."""
        return torch.tensor([score for score, name in zip(self.scores, self.kinds, strict=True) if name == kind])

    def anomalies(self) -> list[str]:
        """Kinds of anomalies that there are, sorted."""
        return sorted(set(self.kinds) - {GOOD})


def kind_of(path: str, anomalous: bool) -> str:
    """Kind of an image, as tables name it."""
    return Path(path).parent.name.removesuffix("_anomalies") if anomalous else GOOD


def run_job(job: Job, place: Place) -> Result:
    """Measure one model on one category.

    Args:
        job: What is measured.
        place: Where the data is and where files go.

    Returns:
        The result, as it is written.
    """
    started = time.perf_counter()
    seed_everything(job.seed, verbose=False)
    suite, recipe = SUITES[job.suite], recipe_of(place.model)
    data = data_of(job, place, recipe)
    model = recipe.make(Backbone(job.backbone, place.weights), job.image_size, json.loads(job.options))
    trainer = trainer_of(job, recipe)
    fit_seconds, predictions = fit_and_predict(model, data, trainer, place.output / job.path, place.accelerator)
    costs = {
        "fit_seconds": round(fit_seconds, 1),
        **peak_memory(),
        "image_milliseconds": round(time_of_image(model, data.test_data), 1),
    }
    curves = curves_of(predictions, data, model) if suite.mean_over_kinds else {}
    figures = image_figures(predictions, suite.mean_over_kinds) | spro_figures(curves) | pixel_figures(predictions)
    if place.pictures and predictions.maps:
        from .plots import draw_gallery

        draw_gallery(predictions, (place.output / "plots" / job.path).with_suffix(".jpg"))
    return {
        "status": DONE,
        "figures": {name: round(figure, 5) for name, figure in figures.items()},
        "costs": {**costs, "job_seconds": round(time.perf_counter() - started, 1)},
        "images": {name: len(getattr(data, f"{name}_data", ())) for name in ("train", "val", "test")},
        "environment": environment(model),
        "scores": scores_by_kind(predictions),
        "curves": {kind: points_of(curve) for kind, curve in curves.items()},
    }


def data_of(job: Job, place: Place, recipe: Recipe) -> AnomalibDataModule:
    """Data of a job, written and read, so that this is not in the time of the fit."""
    data = SUITES[job.suite].data(
        place.root,
        job.category,
        job.seed,
        train_batch_size=recipe.batch,
        eval_batch_size=16,
        num_workers=0,
        train_augmentations=recipe.train_augmentations(job.image_size),
    )
    data.prepare_data()
    data.setup(TrainerFn.FITTING)
    if job.limit:
        shorten(data, job.limit)
    return data


def trainer_of(job: Job, recipe: Recipe) -> dict[str, Any]:
    """Arguments of the trainer; the job's epochs are for models that are trained for a number of them."""
    return for_epochs(job.epochs) if job.epochs and recipe.trainer else dict(recipe.trainer)


def fit_and_predict(
    model: AnomalibModule, data: AnomalibDataModule, trainer: Mapping[str, Any], path: Path, accelerator: str
) -> tuple[float, Predictions]:
    """Fit a model and predict the test images.

    Args:
        model: What is fitted.
        data: Its data.
        trainer: Arguments of the trainer.
        path: File of the result; what the engine writes goes beside it and is removed.
        accelerator: Of the trainer.

    Returns:
        Seconds of the fit, and the predictions. The model stays on the trainer's device.
    """
    scratch = path.with_suffix(".tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    predictions = Predictions()
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    where = {"accelerator": accelerator, "devices": 1, "default_root_dir": scratch}
    try:
        engine = Engine(**{**trainer, **quiet, **where, "callbacks": [predictions]})
        start = time.perf_counter()
        engine.fit(model, datamodule=data)
        seconds = time.perf_counter() - start
        engine.predict(model, datamodule=data, return_predictions=False)
        model.to(engine.trainer.strategy.root_device)  # Lightning moves it to the CPU at the end
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return seconds, predictions


def shorten(data: AnomalibDataModule, most: int) -> None:
    """Keep that many images of each split, spread evenly over its table, so that each kind has some."""
    for name in ("train_data", "val_data", "test_data"):
        dataset: AnomalibDataset | None = getattr(data, name, None)
        if dataset is not None and len(dataset) > most:
            rows = [round(i * (len(dataset) - 1) / (most - 1)) if most > 1 else 0 for i in range(most)]
            attributes = dict(dataset.samples.attrs)
            dataset.samples = dataset.samples.iloc[rows].reset_index(drop=True)
            dataset.samples.attrs.update(attributes)


def image_figures(predictions: Predictions, mean_over_kinds: bool) -> dict[str, float]:
    """Image AUROC of each kind of anomalies against the good images, and of the data as a whole.

    Args:
        predictions: Scores of the test images.
        mean_over_kinds: Whether the whole is the mean of the kinds, or that of all anomalies together.

    Raises:
        ValueError: If there are no good or no anomalous test images.
    """
    good, kinds = predictions.of_kind(GOOD), predictions.anomalies()
    if not len(good) or not kinds:
        msg = f"image AUROC needs good and anomalous test images, got {sorted(set(predictions.kinds))}"
        raise ValueError(msg)
    figures = {f"image_auroc_{kind}": float(auroc(good, predictions.of_kind(kind))) for kind in kinds}
    whole = statistics.fmean(figures.values())
    if not mean_over_kinds:
        whole = float(auroc(good, torch.cat([predictions.of_kind(kind) for kind in kinds])))
    return {"image_auroc": whole, **figures}


def pixel_figures(predictions: Predictions) -> dict[str, float]:
    """AUROC and average precision of all pixels, at the size of the maps; of LOCO's without logical images, too."""
    if not predictions.maps or not predictions.masks or not any(mask.any() for mask in predictions.masks):
        return {}
    figures = pixel_pair(predictions, list(range(len(predictions.maps))), "")
    if {LOGICAL, STRUCTURAL} <= set(predictions.kinds):
        chosen = [i for i, kind in enumerate(predictions.kinds) if kind != LOGICAL]
        figures |= pixel_pair(predictions, chosen, f"_{STRUCTURAL}")
    return figures


def pixel_pair(predictions: Predictions, chosen: list[int], suffix: str) -> dict[str, float]:
    """AUROC and average precision of the pixels of some images."""
    truth = torch.cat([predictions.masks[i].flatten() for i in chosen]).numpy()
    values = torch.cat([predictions.maps[i].flatten() for i in chosen]).numpy()
    return {
        f"pixel_auroc{suffix}": float(roc_auc_score(truth, values)),
        f"pixel_ap{suffix}": float(average_precision_score(truth, values)),
    }


def curves_of(predictions: Predictions, data: AnomalibDataModule, model: AnomalibModule) -> dict[str, SproCurve]:
    """Curve of each kind, from the maps at their images' original sizes; none where there are no maps or masks."""
    category = Path(predictions.paths[0]).parents[2]
    if not predictions.maps or not has_ground_truth(category):
        return {}
    configs = read_defects_config(category)
    restore = map_geometry([data.test_data], model).restore
    images = [
        measure_image(one, path, configs, restore)
        for one, path in zip(predictions.maps, predictions.paths, strict=True)
    ]
    return {kind: kind_curve(images, folder) for kind, folder in folders_of(predictions).items()}


def folders_of(predictions: Predictions) -> dict[str, str]:
    """Folder of each kind of anomalies."""
    pairs = zip(predictions.kinds, predictions.paths, strict=True)
    return {kind: Path(path).parent.name for kind, path in sorted(pairs) if kind != GOOD}


def spro_figures(curves: Mapping[str, SproCurve]) -> dict[str, float]:
    """AU-sPRO of each kind, and their mean; nothing without curves."""
    if not curves:
        return {}
    figures = {f"au_spro_{kind}": float(au_spro(curve.fpr, curve.spro, FPR_LIMIT)) for kind, curve in curves.items()}
    return {"au_spro": statistics.fmean(figures.values()), **figures}


def points_of(curve: SproCurve) -> dict[str, list[float]]:
    """Points of a curve at equal distances up to ``CURVE_LIMIT``."""
    fpr = torch.linspace(0, CURVE_LIMIT, CURVE_POINTS, dtype=torch.float64)
    right = torch.searchsorted(curve.fpr.cpu(), fpr, right=True).clamp(1, len(curve.fpr) - 1)
    x, y = curve.fpr.cpu(), curve.spro.cpu()
    share = ((fpr - x[right - 1]) / (x[right] - x[right - 1]).clamp_min(1e-12)).clamp(0, 1)
    values = y[right - 1] + share * (y[right] - y[right - 1])
    return {"fpr": [round(v, 4) for v in fpr.tolist()], "spro": [round(v, 4) for v in values.tolist()]}


def scores_by_kind(predictions: Predictions) -> dict[str, dict[str, float]]:
    """Raw score of each image, by kind and by the name of its file."""
    result: dict[str, dict[str, float]] = {}
    for kind, path, score in zip(predictions.kinds, predictions.paths, predictions.scores, strict=True):
        result.setdefault(kind, {})[Path(path).stem] = float(f"{score:.6g}")
    return result


def time_of_image(model: AnomalibModule, images: AnomalibDataset) -> float:
    """Median milliseconds from an image of the model's size to score and map, one image at a time."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    model.eval()
    times = []
    with torch.inference_mode():
        for i in range(min(len(images), WARM_UP + TIMED_IMAGES)):
            image = images[i].image[None].to(device)
            start = time.perf_counter()
            model(image)
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[WARM_UP:] or times)


def peak_memory() -> dict[str, int]:
    """Peak memory of this process, and of the GPU if it was used, in 1e6 bytes; nothing where it is not known."""
    peaks = {}
    if sys.platform != "win32":
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        peaks["memory_megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 1_000_000
    if torch.cuda.is_initialized():
        peaks["gpu_megabytes"] = torch.cuda.max_memory_allocated() // 1_000_000
    return peaks


def environment(model: AnomalibModule) -> dict[str, Any]:
    """Versions, and what computed."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "anomalib_logic": anomalib_logic.__version__,
        "source": source_digest(),
        "anomalib": version("anomalib"),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "timm": version("timm"),
        "python": platform.python_version(),
        "processor": processor(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def source_digest() -> str:
    """First eight digits of the SHA-256 of this package's modules without the benchmark: equal for equal code."""
    package = Path(anomalib_logic.__file__).parent
    files = [p for p in sorted(package.rglob("*.py")) if "benchmark" not in p.relative_to(package).parts]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:8]


def processor() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()

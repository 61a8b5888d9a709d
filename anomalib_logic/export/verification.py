# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Whether an exported file predicts what Anomalib's engine predicts with the model it comes from."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from anomalib.data import AnomalibDataModule

from anomalib_logic.metrics.functional import auroc

from .images import NamedImage, Size, as_batch, batches_of, splits_of, spread
from .runners import Runner

SCORE_FLOOR = 0.1  # of the largest score: smaller scores are measured by this one
EVALUATED_IMAGES = 200  # of the test set, at most


class ExportVerificationError(RuntimeError):
    """An exported file does not predict what its model predicts."""


class Tolerance(NamedTuple):
    """Largest differences that are allowed in single precision.

    Attributes:
        score: Relative to the score.
        anomaly_map: Relative to the range of the maps of all images.
    """

    score: float = 1e-3
    anomaly_map: float = 1e-2


FULL_PRECISION = Tolerance()


class Differences(NamedTuple):
    """How predictions differ from the expected ones, one value an image, shape ``(N,)``.

    Attributes:
        score: Relative to the score, or to a tenth of the largest score where that is more.
        anomaly_map: Largest one, relative to the range of the expected maps.
        labels: Whether the label is another one although the threshold is not between the two scores.
        masks: Positions where the mask is another one although the threshold is not between the two maps.
    """

    score: np.ndarray
    anomaly_map: np.ndarray
    labels: np.ndarray
    masks: np.ndarray


class Row(NamedTuple):
    """Largest differences of one batch size.

    Attributes:
        batch: Number of images in a batch.
        score: See :class:`Differences`.
        anomaly_map: See :class:`Differences`.
        clamped: Whether every expected score is 0 or 1, the limits of normalised scores.
    """

    batch: int
    score: float
    anomaly_map: float
    clamped: bool = False


def measure(expected: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> Differences:
    """Compare predictions, as :class:`.runners.Runner` gives them.

    Args:
        expected: Predictions of the model.
        found: Predictions of the exported file for the same images.

    Raises:
        ValueError: If the file lacks an output, or it has another shape.
    """
    for name, value in expected.items():
        if name not in found:
            msg = f"the exported file has no output '{name}'; it has {sorted(found)}"
            raise ValueError(msg)
        if found[name].shape != value.shape:
            msg = f"output '{name}' of the exported file has shape {found[name].shape}, expected {value.shape}"
            raise ValueError(msg)
    count = len(next(iter(expected.values())))
    score = anomaly_map = np.zeros(count)
    if "pred_score" in expected:
        scores = expected["pred_score"].astype(float)
        reference = np.maximum(np.abs(scores), SCORE_FLOOR * np.abs(scores).max()) + 1e-9
        score = _undefined_is_infinite(np.abs(found["pred_score"] - scores) / reference)
    if "anomaly_map" in expected:
        maps = expected["anomaly_map"].astype(float)
        size = max(np.ptp(maps), 1e-3 * np.abs(maps).max(), 1e-9)
        differences = np.abs(found["anomaly_map"] - maps).reshape(count, -1).max(axis=1)
        anomaly_map = _undefined_is_infinite(differences / size)
    return Differences(
        score,
        anomaly_map,
        np.asarray(_flipped(expected, found, "pred_score", "pred_label").reshape(count, -1).any(axis=1)),
        _flipped(expected, found, "anomaly_map", "pred_mask").reshape(count, -1).sum(axis=1),
    )


def _undefined_is_infinite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.inf)


def _flipped(expected: dict[str, np.ndarray], found: dict[str, np.ndarray], value: str, decision: str) -> np.ndarray:
    """Where decisions differ although one threshold cannot explain it: it would have to lie between the two values."""
    if value not in expected or decision not in expected:
        return np.zeros(len(next(iter(expected.values()))), dtype=bool)
    rises = np.where(found[decision], found[value] > expected[value], found[value] < expected[value])
    return (expected[decision] != found[decision]) & ~rises


def verify(
    reference: Runner,
    exported: Runner,
    images: Sequence[NamedImage],
    tolerance: Tolerance | None = FULL_PRECISION,
    batches: Sequence[int] = (1, 3),
    size: Size | None = None,
) -> list[Row]:
    """Run images through a model and its exported file, alone and in batches of images of equal size.

    Args:
        reference: The model.
        exported: The exported file.
        images: Images at their own sizes.
        tolerance: Largest differences; ``None`` to measure only.
        batches: Numbers of images in a batch; see :func:`.images.batches_of`.
        size: Height and width that the images are resized to before both; their own by default.

    Returns:
        Largest differences for each number of images in a batch.

    Raises:
        ExportVerificationError: If the file cannot be run with a batch, or differs by more than the tolerance; the
            message names the image that differs most.
    """
    if size is not None:
        images = [image._replace(image=torch.from_numpy(as_batch([image], size)[0])) for image in images]
    rows = []
    for batch in sorted(set(batches)):
        parts = batches_of(images, batch)
        expected = _joined([reference(as_batch(part)) for part in parts])
        found = _joined([_run(exported, part) for part in parts])
        names = [image.name for part in parts for image in part]
        try:
            differences = measure(expected, found)
        except ValueError as error:
            raise ExportVerificationError(str(error)) from error
        if tolerance is not None:
            _check(differences, expected, found, names, tolerance, batch)
        clamped = bool(np.isin(expected.get("pred_score", np.array([0.5])), (0, 1)).all())
        rows.append(Row(batch, float(differences.score.max()), float(differences.anomaly_map.max()), clamped))
    return rows


def _run(exported: Runner, part: list[NamedImage]) -> dict[str, np.ndarray]:
    """Run the exported file; any error of its runtime means that it does not predict what the model predicts."""
    array = as_batch(part)
    try:
        return exported(array)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        first = f"the first '{part[0].name}'"
        msg = f"a batch of {len(part)} image(s) of shape {array.shape[1:]}, {first}, cannot be compared: {reason}"
        raise ExportVerificationError(msg) from error


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _check(
    differences: Differences,
    expected: dict[str, np.ndarray],
    found: dict[str, np.ndarray],
    names: list[str],
    tolerance: Tolerance,
    batch: int,
) -> None:
    """Raise if an image differs too much, and say how."""
    excess = np.maximum(differences.score / tolerance.score, differences.anomaly_map / tolerance.anomaly_map)
    excess = np.where(differences.labels | (differences.masks > 0), np.inf, excess)
    worst = int(excess.argmax())
    if not excess[worst] > 1:
        return
    scores = ""
    if "pred_score" in expected:
        scores = f" (score {found['pred_score'][worst]:.6g} instead of {expected['pred_score'][worst]:.6g})"
    flipped = []
    if differences.labels[worst]:
        flipped.append("the label does not follow the score")
    if differences.masks[worst]:
        flipped.append(f"{int(differences.masks[worst])} positions of the mask do not follow the map")
    msg = (
        f"image '{names[worst]}' in a batch of {batch} differs by {differences.score[worst]:.1e} of its score{scores}, "
        f"allowed {tolerance.score:.0e}, and by {differences.anomaly_map[worst]:.1e} of the maps' range, allowed "
        f"{tolerance.anomaly_map:.0e}{''.join(f'; {problem}' for problem in flipped)}"
    )
    raise ExportVerificationError(msg)


def image_auroc(
    runners: Sequence[Runner], datamodule: AnomalibDataModule, size: Size | None = None
) -> tuple[list[float], int] | None:
    """Image AUROC of models on test images of a data module, one image at a time.

    Args:
        runners: Models.
        datamodule: Data module; of its test set at most ``EVALUATED_IMAGES`` images at equal distances are used.
        size: Height and width that the images are resized to; their own by default.

    Returns:
        One AUROC a model, and the number of images; ``None`` where the test set lacks normal or anomalous images.
    """
    labels: list[bool] = []
    scores: list[list[float]] = []
    for image in spread(splits_of(datamodule, "test"), EVALUATED_IMAGES):
        if image.anomalous is not None:
            array = as_batch([image], size)
            labels.append(image.anomalous)
            scores.append([float(runner(array)["pred_score"][0]) for runner in runners])
    if len(set(labels)) < 2:
        return None
    values, anomalous = torch.tensor(scores), torch.tensor(labels)
    return [auroc(column[~anomalous], column[anomalous]).item() for column in values.T], len(labels)


def file_size(path: Path) -> int:
    """Bytes of an exported file with what belongs to it: weights of OpenVINO, external data of ONNX."""
    companions = {".xml": [path.with_suffix(".bin")], ".onnx": [path.with_name(f"{path.name}.data")]}
    return sum(p.stat().st_size for p in [path, *companions.get(path.suffix, [])] if p.is_file())

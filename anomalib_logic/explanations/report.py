# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""A test run as one HTML file that needs no network."""

import json
import logging
import math
from base64 import b64encode
from io import BytesIO
from pathlib import Path
from typing import Any

import anomalib
import torch
from anomalib.data import ImageBatch
from anomalib.visualization.image.functional import visualize_anomaly_map
from jinja2 import Environment, PackageLoader
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch.nn import functional as F

from anomalib_logic._files import write_text
from anomalib_logic._version import __version__

from .run import Explained, RunExplainer, run_last

logger = logging.getLogger(__name__)

QUALITY = 80  # of the pictures
TRUTH = (0, 158, 115, 140)  # colour of the ground truth, and how opaque it is
WRONG = ("missed", "false alarm")

Row = dict[str, Any]  # plain values, as they go into the template and between processes


class HtmlReport(Callback):
    """Write a test run of any Anomalib model as one HTML file: each image with its map, ground truth and sentence.

    Images that are called wrongly come first, then the highest scores; the page sorts and filters. Pictures are
    embedded as WebP files.

    Args:
        path: The file, which is replaced. ``None``: ``report.html`` in the run's results.
        picture_size: Longer side of the pictures in pixels.
        max_pictures: Images that get pictures; of others, the last in the order, only the text is there.
        objects: Ask SAM-LAD for its objects, which compares each image once more; other models know none.

    Raises:
        ValueError: If a size is below 1; at the start, if the pre-processing does more to an image's geometry than
            resizes and centre crops; on a map that is not finite, or images without a path.
        IsADirectoryError: At setup, if ``path`` is a folder.

    Example:
        >>> from anomalib.engine import Engine
        >>> from anomalib_logic import HtmlReport
        >>> engine = Engine(callbacks=[HtmlReport("report.html")])
    """

    def __init__(
        self,
        path: str | Path | None = None,
        picture_size: int = 320,
        max_pictures: int = 500,
        objects: bool = True,
    ) -> None:
        if picture_size < 1 or max_pictures < 1:
            msg = f"picture_size and max_pictures must be at least 1, got {picture_size} and {max_pictures}"
            raise ValueError(msg)
        self.path = None if path is None else Path(path)
        self.picture_size = picture_size
        self.max_pictures = max_pictures
        self.objects = objects
        self._explainer: RunExplainer = None  # type: ignore[assignment]  # only while it runs
        self._rows: list[Row] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Run after the post-processor, and check the path."""
        if stage == "predict":
            logger.warning("HtmlReport reports test runs only (anomalib test); ExplanationWriter explains predictions")
        if stage != "test":
            return
        if self._file(trainer).is_dir():
            msg = f"path must be a file or not exist, got the folder {self._file(trainer)}"
            raise IsADirectoryError(msg)
        run_last(trainer, self)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the pre-processing."""
        self._explainer, self._rows = RunExplainer(trainer, pl_module, self.objects), []

    @torch.no_grad()
    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: ImageBatch, *args: Any, **kwargs: Any
    ) -> None:
        """Keep what the report shows of a batch."""
        for i, explained in enumerate(self._explainer.explain(batch)):
            label = None if batch.gt_label is None else bool(batch.gt_label[i])
            mask = None if batch.gt_mask is None else batch.gt_mask[i]
            self._rows.append(self._row(explained, label, mask))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the report."""
        rows = self._gather(trainer)
        if trainer.is_global_zero:
            metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
            write_text(self._file(trainer), render(rows, metrics, _about(trainer, pl_module), self.max_pictures))
            logger.info("the report is %s", self._file(trainer).resolve())
        self._explainer, self._rows = None, []  # type: ignore[assignment]

    def _file(self, trainer: Trainer) -> Path:
        return self.path or Path(trainer.default_root_dir) / "report.html"

    def _row(self, explained: Explained, label: bool | None, mask: torch.Tensor | None) -> Row:
        record, path = explained.record, explained.path
        with Image.open(path) as image:
            picture = image.convert("RGB")  # as Anomalib reads it
        picture.thumbnail((self.picture_size, self.picture_size))
        size = (picture.height, picture.width)
        truth = None
        if mask is not None and bool(mask.any()):
            truth = _truth(self._explainer.geometry.restore(mask.squeeze(0).float().cpu(), explained.size), size)
        return {
            "record": record,
            "name": path.name,
            "kind": path.parent.name,
            "verdict": verdict(label, record["label"]),
            "anomalous": label,
            "picture": _embedded(picture),
            "map": None if explained.anomaly_map is None else _embedded(_heat(explained.anomaly_map, size)),
            "truth": None if truth is None else _embedded(truth, lossless=True),
        }

    def _gather(self, trainer: Trainer) -> list[Row]:
        """Rows of all processes, each image once; a process writes its own to a file for the first to read."""
        if trainer.world_size > 1:
            parts = [self._file(trainer).with_suffix(f".{rank}.json") for rank in range(trainer.world_size)]
            write_text(parts[trainer.global_rank], json.dumps(self._rows))
            trainer.strategy.barrier()
            if trainer.is_global_zero:
                self._rows = [row for part in parts for row in json.loads(part.read_text(encoding="utf-8"))]
                for part in parts:
                    part.unlink()
        return list({row["record"]["file"]: row for row in self._rows}.values())


def verdict(anomalous: bool | None, label: str | None) -> str:
    """Compare what an image is with what it is called: ``"missed"``, ``"false alarm"``, ``"right"`` or ``"open"``."""
    if anomalous is None or label is None:
        return "open"
    if anomalous == (label == "anomalous"):
        return "right"
    return "missed" if anomalous else "false alarm"


def render(rows: list[Row], metrics: dict[str, float], about: dict[str, Any], max_pictures: int) -> str:
    """Make the page; every text is escaped.

    Args:
        rows: Of each image: ``record``, ``name``, ``kind`` (its folder), ``verdict``, ``anomalous``, and ``picture``,
            ``map`` and ``truth`` as data URLs or ``None``.
        metrics: Figures of the run by name.
        about: ``model``, ``data`` and ``versions``.
        max_pictures: Images that get pictures.
    """
    environment = Environment(
        loader=PackageLoader("anomalib_logic.explanations", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    rows = sorted(rows, key=lambda row: (row["verdict"] not in WRONG, -_sortable(row["record"]["score"])))
    counts = {name: sum(row["verdict"] == name for row in rows) for name in (*WRONG, "right", "open")}
    kinds = sorted({row["kind"] for row in rows})
    return environment.get_template("report.html").render(
        rows=rows, metrics=metrics, about=about, max_pictures=max_pictures, counts=counts, kinds=kinds
    )


def _about(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    data = getattr(trainer, "datamodule", None)
    names = [getattr(data, "name", None), getattr(data, "category", None)]
    return {
        "model": type(module).__name__,
        "data": ", ".join(str(name) for name in names if name),
        "versions": f"anomalib {anomalib.__version__}, anomalib-logic {__version__}",
    }


def _sortable(score: float | None) -> float:
    return -math.inf if score is None else score


def _heat(anomaly_map: torch.Tensor, size: tuple[int, int]) -> Image.Image:
    """A map in the colours of Anomalib's pictures."""
    small = F.interpolate(anomaly_map[None, None].float(), size, mode="area")[0]
    return visualize_anomaly_map((small / small.max().clamp_min(1)).clamp(0, 1))  # maps may be raw


def _truth(mask: torch.Tensor, size: tuple[int, int]) -> Image.Image:
    """A mask as a layer over its picture, in which no defect is too small to be seen."""
    small = F.adaptive_max_pool2d(mask[None], size)[0] > 0.5
    layer = Image.new("RGBA", (size[1], size[0]), (*TRUTH[:3], 0))
    layer.paste(TRUTH, mask=Image.fromarray(small.numpy()))
    return layer


def _embedded(picture: Image.Image, lossless: bool = False) -> str:
    """A picture as a data URL."""
    buffer = BytesIO()
    picture.save(buffer, "WEBP", quality=QUALITY, lossless=lossless, icc_profile=b"", exif=b"", xmp=b"")
    return f"data:image/webp;base64,{b64encode(buffer.getvalue()).decode()}"

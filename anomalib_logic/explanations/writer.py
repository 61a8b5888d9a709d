# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""A JSON file for each image of a test or predict run."""

import hashlib
import logging
from pathlib import Path
from typing import Any

import torch
from anomalib.data import ImageBatch
from lightning.pytorch import Callback, LightningModule, Trainer

from anomalib_logic._files import check_folder, write_text

from .record import to_json
from .run import RunExplainer, picture_path, run_last

logger = logging.getLogger(__name__)


class ExplanationWriter(Callback):
    """Write beside the picture of each image what was found in it, as ``<picture>.json``.

    ``anomalib_logic/explanations/schema.json`` has the keys, ``docs/explanations.md`` what they mean. Each batch that a
    run returns has the sentences as its ``explanation``.

    Args:
        output_dir: Folder that receives the files, in which they lie as the visualiser's pictures do. ``None``: that of
            the model's visualiser, which is ``images`` in the run's results by default.
        objects: Ask SAM-LAD for its objects, which compares each image once more; other models know none.

    Raises:
        NotADirectoryError: At setup, if ``output_dir`` is a file.
        ValueError: At the start, if the pre-processing does more to an image's geometry than resizes and centre crops;
            on a map that is not finite, or images without a path.

    Example:
        >>> from anomalib.engine import Engine
        >>> from anomalib_logic import ExplanationWriter
        >>> engine = Engine(callbacks=[ExplanationWriter()])
    """

    def __init__(self, output_dir: str | Path | None = None, objects: bool = True) -> None:
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.objects = objects
        self._explainer: RunExplainer = None  # type: ignore[assignment]  # only while it runs
        self._sources: dict[Path, str] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Run after the post-processor, and check the folder."""
        if stage not in ("test", "predict"):
            return
        folder = self._folder(pl_module)
        if folder is not None:
            check_folder(folder, "output_dir")
        run_last(trainer, self)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the pre-processing."""
        self._explainer, self._sources = RunExplainer(trainer, pl_module, self.objects), {}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the pre-processing."""
        self.on_test_start(trainer, pl_module)

    @torch.no_grad()
    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: ImageBatch, *args: Any, **kwargs: Any
    ) -> None:
        """Write the files of a batch."""
        sentences = []
        for explained in self._explainer.explain(batch):
            picture = picture_path(trainer, explained.path, self._folder(pl_module))
            write_text(self._file(picture, str(explained.path)), to_json(explained.record))
            sentences.append(explained.record["sentence"])
        batch.explanation = sentences

    def on_predict_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Write the files of a batch."""
        self.on_test_batch_end(*args, **kwargs)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Say where the files are."""
        if self._sources and trainer.is_global_zero:
            folder = self._folder(pl_module) or Path(trainer.default_root_dir) / "images"
            logger.info("%d explanations are in %s", len(self._sources), folder.resolve())
        self._explainer, self._sources = None, {}  # type: ignore[assignment]

    def _folder(self, pl_module: LightningModule) -> Path | None:
        folder = self.output_dir or getattr(getattr(pl_module, "visualizer", None), "output_dir", None)
        return None if folder is None else Path(folder)

    def _file(self, picture: Path, source: str) -> Path:
        """The file of an image; images whose pictures have one name get files of their own."""
        file = picture.with_name(f"{picture.name}.json")
        if self._sources.setdefault(file, source) != source:
            digest = hashlib.sha256(source.encode(errors="surrogateescape")).hexdigest()[:8]
            logger.warning("%s is of another image; that of %s has %s in its name", file, source, digest)
            file = picture.with_name(f"{picture.name}.{digest}.json")
            self._sources[file] = source
        return file

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Anomaly maps of a test run as files that MVTec's evaluation script reads."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from anomalib_logic._files import check_folder
from anomalib_logic.data.image_files import read_size
from anomalib_logic.data.loco_layout import anomaly_kind

from ._test_images import run_before_post_processor, test_datasets, test_image_paths
from .map_files import write_map
from .map_geometry import MapGeometry, map_geometry
from .protocol import check_test_images


class AnomalyMapWriter(Callback):
    """Write the maps of a test run in the layout of submissions to MVTec LOCO AD.

    The files are ``<output_dir>/<object>/test/<kind>/<stem>.tiff``: float32, as large as the image, with the scores
    that the model gives, before the post-processor clamps them. Maps of a model that crops its images (``CenterCrop``)
    are placed on them again, with the lowest score of the map around the crop. MVTec's own script and
    ``python -m anomalib_logic.metrics.loco`` read them.

    Args:
        output_dir: Folder that receives the maps; files of the same name are replaced. ``None``: ``anomaly_maps`` in
            the run's results.

    Raises:
        ValueError: At setup, if the test images do not lie in the layout of LOCO or AutoVI, or the pre-processing does
            more to their geometry than resizes and centre crops; on a map that is not finite.
        NotADirectoryError: At setup, if ``output_dir`` is a file.

    Example:
        >>> from anomalib.engine import Engine
        >>> from anomalib_logic import AnomalyMapWriter
        >>> engine = Engine(callbacks=[AnomalyMapWriter("anomaly_maps")])
    """

    def __init__(self, output_dir: str | Path | None = None) -> None:
        self.output_dir = None if output_dir is None else Path(output_dir)
        self._geometry = MapGeometry()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check folder and layout before the run."""
        if stage != "test":
            return
        check_folder(self._folder(trainer), "output_dir")
        if getattr(trainer, "datamodule", None) is not None:
            self._check_data(trainer, pl_module)
        run_before_post_processor(trainer, pl_module, self)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the data now if it was not known at setup."""
        self._check_data(trainer, pl_module)

    @torch.no_grad()
    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Write the batch's maps."""
        if batch.anomaly_map is None:
            msg = f"{type(pl_module).__name__} gives no anomaly maps, so there is nothing to write"
            raise ValueError(msg)
        for anomaly_map, path in zip(batch.anomaly_map, map(Path, batch.image_path), strict=True):
            try:
                resized = self._geometry.restore(anomaly_map.squeeze(0), read_size(path))
            except ValueError as error:
                msg = f"{path}: {error}"
                raise ValueError(msg) from error
            name = Path(path.parents[2].name, "test", anomaly_kind(path), f"{path.stem}.tiff")
            write_map(self._folder(trainer) / name, resized.cpu().numpy())

    def _folder(self, trainer: Trainer) -> Path:
        return self.output_dir or Path(trainer.default_root_dir) / "anomaly_maps"

    def _check_data(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the layout and the pre-processing."""
        self._geometry = map_geometry(test_datasets(trainer), pl_module)
        paths = test_image_paths(trainer)
        if paths is not None:
            check_test_images(paths)

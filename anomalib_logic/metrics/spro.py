# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Area under the curve of the saturated per-region overlap, as a metric."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from anomalib.metrics import AnomalibMetric

from anomalib_logic.data.loco_layout import DefectConfig, anomaly_kinds, read_defects_config

from .functional import ScoreCounts, resize_anomaly_map
from .functional.spro import check_limit
from .loco_metric import LocoMetric, on_reliable_device, text_key
from .merging import MergedImages, merge_round
from .protocol import (
    ImageScores,
    Region,
    check_ground_truth,
    check_test_images,
    image_au_spro,
    measure_image,
    metric_name,
    require_kinds,
    return_free_memory,
)

_DEFECT_FREE = 0  # stands for the pixel value of what is no defect
_COLUMNS = 5  # of the states of parts: image key or rounds, kind, pixel value, saturation area, number of values
_PAIRS = 2**21  # of values and counts that are kept unmerged: 16 MiB
_PAIRS_OF_A_PART = 256  # take as much memory as a part's tensors do beside their numbers


def _rows(first: float, kind: float, regions: Sequence[Region]) -> torch.Tensor:
    rows = [(first, kind, r.pixel_value, r.saturation, len(r.scores.values)) for r in regions]
    return torch.tensor(rows, dtype=torch.float64).flatten()


class _AUsPRO(LocoMetric):
    """AU-sPRO from maps and paths."""

    full_state_update = True  # a batch that ``forward`` adds may have images that were merged before

    def __init__(self, limit: float = 0.05, kind: str = "mean", defect: str | None = None, **kwargs: Any) -> None:
        states = {"parts": torch.float64, "values": torch.float32, "counts": torch.int32}
        merged = {"merged_parts": torch.float64, "merged_values": torch.float32, "merged_counts": torch.float64}
        super().__init__({**states, **merged, "merged_keys": torch.float64}, kind, **kwargs)
        self.limit = check_limit(limit)
        self.defect = defect
        self._category: Path | None = None
        self._configs: list[DefectConfig] = []
        self.restore_map: Callable[[torch.Tensor, tuple[int, int]], torch.Tensor] = resize_anomaly_map

    def check_images(self, image_paths: Sequence[str | Path]) -> None:
        """Raise ``ValueError`` or ``FileNotFoundError`` if the metric's images or their ground truth are missing."""
        self._configs = check_ground_truth(image_paths)
        self._pixel_value()
        if self.defect is None:
            require_kinds(anomaly_kinds(image_paths), self.kind)

    def update(self, anomaly_map: torch.Tensor, image_path: Sequence[str]) -> None:
        """Add a batch.

        Args:
            anomaly_map: Maps, shape ``(N, H, W)`` or ``(N, 1, H, W)``.
            image_path: Path of each image.
        """
        self._read_configs(image_path)
        maps = on_reliable_device(anomaly_map)
        maps = maps.squeeze(1) if maps.ndim == 4 else maps
        for one_map, path in zip(maps, image_path, strict=True):
            image = measure_image(one_map, path, self._configs, self.restore_map)
            whole = Region(_DEFECT_FREE, 0, image.defect_free)
            regions = (whole, *image.regions)
            self.parts.append(_rows(text_key(path), self._kind_key(image.kind), regions).to(maps.device))
            for region in regions:
                self.values.append(region.scores.values)
                self.counts.append(region.scores.counts)
            self._merge_if_many()
        return_free_memory()

    def compute(self) -> torch.Tensor:
        """Compute the metric, float32 scalar in [0, 1]; NaN for a defect that no image shows."""
        value = image_au_spro(self._images(), self.limit, self.kind, self._pixel_value())
        return torch.tensor(value, device=self.device)

    def _images(self) -> list[ImageScores]:
        """Put the states together again, each image once; merged images are as one."""
        return [merged.images for merged in self._merged()] + list(self._unmerged().values())

    def _unmerged(self) -> dict[float, ImageScores]:
        """Images by their key, without those that were merged before."""
        merged = set(self._gather("merged_keys").tolist())
        images: dict[float, ImageScores] = {}
        for key, image in self._read("parts", "values", "counts"):
            if key not in merged:
                images.setdefault(key, image)
        return images

    def _merged(self) -> list[MergedImages]:
        merged = self._read("merged_parts", "merged_values", "merged_counts", merged=True)
        return [MergedImages(int(rounds), images) for rounds, images in merged]

    def _read(self, parts: str, values: str, counts: str, merged: bool = False) -> list[tuple[float, ImageScores]]:
        """Read images from states, on the CPU, each with what stands first in its row of ``parts``."""
        rows = self._gather(parts).view(-1, _COLUMNS).tolist()
        lengths = [int(row[-1]) for row in rows]
        # On the CPU, for cumulative sums on CUDA devices are not deterministic, which a trainer may forbid.
        scores = zip(*(self._gather(name).cpu().split(lengths) for name in (values, counts)), strict=True)
        images: list[tuple[float, ImageScores]] = []
        for (first, kind, pixel_value, saturation, _), pair in zip(rows, scores, strict=True):
            if pixel_value == _DEFECT_FREE:
                images.append((first, ImageScores(self._kind_name(kind), ScoreCounts(*pair))))
            else:
                number = int(saturation) if merged else 1
                images[-1][1].regions.append(Region(int(pixel_value), saturation, ScoreCounts(*pair), number))
        return images

    def _merge_if_many(self) -> None:
        """Merge all images if they are many; not where there are several processes, which may have the same image."""
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        kept = sum(map(len, self.values)) + _PAIRS_OF_A_PART * len(self.values)
        if kept <= _PAIRS or (distributed and torch.distributed.get_world_size() > 1):
            return
        device = self.values[-1].device
        rows = torch.cat([self._gather("parts").cpu(), self._gather("merged_parts").cpu()]).view(-1, _COLUMNS)
        kinds = {self._kind_name(kind): kind for kind in rows[:, 1].unique().tolist()}
        unmerged = self._unmerged()
        merged = merge_round(unmerged.values(), self._merged())
        self.merged_keys.append(torch.tensor(list(unmerged), dtype=torch.float64, device=device))
        for state in (self.parts, self.values, self.counts, self.merged_parts, self.merged_values, self.merged_counts):
            state.clear()
        for rounds, image in merged:
            regions = (Region(_DEFECT_FREE, 0, image.defect_free), *image.regions)
            self.merged_parts.append(_rows(rounds, kinds[image.kind], regions).to(device))
            for region in regions:
                self.merged_values.append(region.scores.values.to(device, copy=True))
                self.merged_counts.append(region.scores.counts.to(device, copy=True))

    def _read_configs(self, image_path: Sequence[str]) -> None:
        """Read the category's defects with the first batch; later batches must be of the same category."""
        category = check_test_images(image_path)
        if self._category is None:
            self._configs = read_defects_config(category)
            self._category = category
            self._pixel_value()
        elif category != self._category:
            msg = f"metrics are computed for one category at a time, got images of {self._category} and of {category}"
            raise ValueError(msg)

    def _pixel_value(self) -> int | None:
        """Look up the pixel value of the metric's defect, if it has one."""
        if self.defect is None:
            return None
        values = {config.defect_name: config.pixel_value for config in self._configs}
        if self.defect not in values:
            msg = f"defect must be one of {tuple(values)}, got {self.defect!r}"
            raise ValueError(msg)
        return values[self.defect]

    def reset(self) -> None:
        """Forget all images, and their category."""
        super().reset()
        self._category = None


class AUsPRO(AnomalibMetric, _AUsPRO):  # type: ignore[misc]
    """Area under the curve of mean saturated per-region overlap (sPRO) over false positive rate, as for MVTec LOCO AD.

    Bergmann et al., "Beyond Dents and Scratches: Logical Constraints in Unsupervised Anomaly Detection and
    Localization", IJCV 2022. Each image's defect channels and the category's ``defects_config.json`` are
    read from disk by the image's path, and the map is resized to the image's original size. Within 0.0005 of the curve
    over every distinct score, at every limit, whatever the batches, while no more than 2**21 pairs of a score and its
    count are kept (16,000 of an image without defects at most). One process merges what exceeds them: each time about a
    hundred images or more, which changes the figure by at most 0.001 in all up to 128 times.

    Its name in a test run is ``AUsPRO_<limit in %>_<kind or defect>`` with the prefix before it.

    Anomalib's post-processor clamps maps to [0, 1] before an :class:`anomalib.metrics.Evaluator` sees them, which
    makes ties and so changes the metric. :class:`LocoEvaluator` takes the maps before that, and places the maps of a
    model that crops its images (``CenterCrop``) on them again; elsewhere a map is taken to cover the whole image.

    Args:
        limit: False positive rate up to which the curve counts, in (0, 1].
        kind: ``"logical"``, ``"structural"`` or ``"mean"`` of the two; in AutoVI's layout ``"mean"`` or the name of a
            folder of anomalies.
        defect: Name of a defect type, instead of a kind: only its regions count, on the good images and those that
            show it.
        fields: Fields of the batch with maps and paths.
        prefix: Goes before the metric's name.
        strict: As in Anomalib: whether a batch without these fields is an error.
        **kwargs: Arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If ``limit`` is out of range or ``kind`` no name; on update, if an image, a mask, a map or the
            configuration is not as it must be; on compute, if there is no image of a kind that the metric needs.
        FileNotFoundError: On update, if the configuration or an image's masks are missing.

    Example:
        >>> from anomalib_logic import AUsPRO, LocoEvaluator
        >>> evaluator = LocoEvaluator(test_metrics=[AUsPRO(limit=0.3, kind="logical")])
    """

    default_fields = ("anomaly_map", "image_path")

    def __init__(
        self,
        limit: float = 0.05,
        kind: str = "mean",
        defect: str | None = None,
        fields: Sequence[str] | None = None,
        prefix: str = "",
        strict: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(fields=fields, prefix=prefix, strict=strict, limit=limit, kind=kind, defect=defect, **kwargs)
        self.name = f"{prefix}AUsPRO_{100 * limit:g}_{defect or metric_name(kind)}"

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The figures of MVTec LOCO AD from anomaly maps on disk.

    python -m anomalib_logic.metrics.loco --dataset DIR --object NAME --anomaly-maps DIR [--output FILE]

The maps are ``<maps>/<object>/test/{good,logical_anomalies,structural_anomalies}/<stem>.tiff``, one for each test
image, with real numbers of any range; a map of another size than its image is resized bilinearly.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from anomalib_logic.data.loco_layout import (
    SPLIT_FOLDERS,
    DefectConfig,
    find_categories,
    find_images,
    read_defects_config,
)

from .functional import SproCurve, au_spro
from .map_files import find_maps, read_map
from .protocol import (
    KIND_FOLDERS,
    KINDS,
    MEAN,
    ImageScores,
    defect_curve,
    image_auroc,
    kind_curve,
    measure_image,
    require_kinds,
    return_free_memory,
)

LIMITS = (0.01, 0.05, 0.1, 0.3, 1.0)
TRIM_EVERY = 8  # images: often enough for memory, seldom enough for time


def find_pairs(dataset: Path, name: str, anomaly_maps: Path) -> list[tuple[Path, Path]]:
    """Pair each test image of an object with its map.

    Args:
        dataset: Folder of the data set.
        name: Name of the object, a folder of the data set.
        anomaly_maps: Folder of the maps.

    Returns:
        Paths of images and maps.

    Raises:
        FileNotFoundError: If the object, an image, a mask or a map is missing.
        ValueError: If a folder, file or map is not as it must be, or there is no image of one of the kinds.
    """
    if not (dataset / name).is_dir():
        msg = f"object must be a folder of {dataset}: {tuple(find_categories(dataset))}, got {name!r}"
        raise FileNotFoundError(msg)
    images = find_images(dataset / name, "test")
    require_kinds([image.kind for image in images], MEAN)
    folder = anomaly_maps / name / SPLIT_FOLDERS["test"]
    kinds = dict.fromkeys(image.kind for image in images)
    maps = {kind: find_maps(folder / kind) for kind in kinds}
    missing = [image.path for image in images if image.path.stem not in maps[image.kind]]
    if missing:
        msg = f"{len(missing)} of {len(images)} test images have no map in {folder}, the first is {missing[0]}"
        raise FileNotFoundError(msg)
    wanted = {(image.kind, image.path.stem) for image in images}
    surplus = [path for kind in kinds for stem, path in maps[kind].items() if (kind, stem) not in wanted]
    surplus += [path for other in _other_folders(folder, kinds) for path in find_maps(other).values()]
    if surplus:
        msg = f"{len(surplus)} maps belong to no test image of {dataset / name}, the first is {surplus[0]}"
        raise ValueError(msg)
    return [(image.path, maps[image.kind][image.path.stem]) for image in images]


def _other_folders(folder: Path, kinds: Sequence[str]) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name not in kinds)


def evaluate(
    dataset: str | Path,
    names: Sequence[str],
    anomaly_maps: str | Path,
    per_defect: bool = False,
    workers: int = 1,
    progress: bool = False,
) -> dict[str, Any]:
    """Compute the figures of one or several objects.

    Args:
        dataset: Folder of the data set.
        names: Names of the objects.
        anomaly_maps: Folder of the maps.
        per_defect: Also compute the AU-sPRO of each defect type.
        workers: Threads that read and measure maps; the figures do not depend on it.
        progress: Show a progress bar on the standard error.

    Returns:
        ``localization`` and ``classification`` as in MVTec's file; of several objects their mean, and each object's
        under ``objects``.

    Raises:
        FileNotFoundError: If the object, an image, a mask or a map is missing.
        ValueError: If a folder, file, mask or map is not as it must be, or there is no image of one of the kinds.
    """
    dataset, anomaly_maps = Path(dataset), Path(anomaly_maps)
    names = list(dict.fromkeys(names))
    jobs = {name: find_pairs(dataset, name, anomaly_maps) for name in names}
    configs = {name: read_defects_config(dataset / name) for name in names}
    results = {}
    with tqdm(total=sum(map(len, jobs.values())), unit="map", disable=not progress) as bar:
        for name in names:
            bar.set_description(name)
            images = _measure(jobs[name], configs[name], workers, bar)
            results[name] = figures(images, configs[name] if per_defect else ())
    if len(names) == 1:
        return results[names[0]]
    common = [
        {key: {k: v for k, v in part.items() if k != "auc_spro_per_defect"} for key, part in result.items()}
        for result in results.values()
    ]
    return {**_mean(common), "objects": results}


def _measure(
    pairs: Sequence[tuple[Path, Path]], configs: Sequence[DefectConfig], workers: int, bar: tqdm
) -> list[ImageScores]:
    """Measure all maps of an object; at most one map for each worker is in memory."""
    numbers = count(1)

    def measure(pair: tuple[Path, Path]) -> ImageScores:
        image_path, map_path = pair
        image = measure_image(torch.from_numpy(read_map(map_path)), image_path, configs)
        bar.update()
        if next(numbers) % TRIM_EVERY == 0:
            return_free_memory()
        return image

    pool = ThreadPoolExecutor(workers)
    try:
        return list(pool.map(measure, pairs))
    finally:
        pool.shutdown(cancel_futures=True)


def figures(images: Sequence[ImageScores], configs: Sequence[DefectConfig] = ()) -> dict[str, Any]:
    """Compute an object's figures from what is kept of its maps.

    Args:
        images: All test images.
        configs: Defects for a figure each; one that no image shows gets ``None``.

    Returns:
        ``localization`` (``auc_spro`` at each limit, for each kind and their mean) and ``classification``
        (``auc_roc`` of the maps' maxima).
    """
    auc_spro = {folder: _at_limits(kind_curve(images, folder)) for folder in KIND_FOLDERS.values()}
    auc_spro[MEAN] = _mean(list(auc_spro.values()))
    localization: dict[str, Any] = {"auc_spro": auc_spro}
    if configs:
        curves = {config.defect_name: defect_curve(images, config.pixel_value) for config in configs}
        localization["auc_spro_per_defect"] = {name: curve and _at_limits(curve) for name, curve in curves.items()}
    scores = torch.tensor([image.image_score for image in images], dtype=torch.float64)
    kinds = [image.kind for image in images]
    auc_roc = {KIND_FOLDERS.get(kind, kind): image_auroc(kinds, scores, kind) for kind in KINDS}
    return {"localization": localization, "classification": {"auc_roc": auc_roc}}


def _at_limits(curve: SproCurve) -> dict[str, float]:
    return {str(limit): float(au_spro(curve.fpr, curve.spro, limit)) for limit in LIMITS}


def _mean(results: Sequence[Any]) -> Any:
    """Average nested dictionaries of numbers with the same keys."""
    if isinstance(results[0], dict):
        return {key: _mean([result[key] for result in results]) for key in results[0]}
    return sum(results) / len(results)


def write_json(path: Path, results: dict[str, Any]) -> None:
    """Write the figures; the file appears only when it is complete."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(results, indent=4) + "\n", encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m anomalib_logic.metrics.loco", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--dataset", type=Path, required=True, metavar="DIR", help="data set, one folder an object")
    parser.add_argument(
        "--object", nargs="+", required=True, metavar="NAME", help="objects; of several the mean is given, too"
    )
    parser.add_argument(
        "--anomaly-maps", type=Path, required=True, metavar="DIR", help="maps, <object>/test/<kind>/<stem>.tiff"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON file; the standard output by default")
    parser.add_argument("--per-defect", action="store_true", help="also the AU-sPRO of each defect type")
    parser.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1), help="threads (%(default)s)")
    options = parser.parse_args(arguments)
    if options.workers < 1:
        parser.error(f"--workers must be at least 1, got {options.workers}")
    if options.output is not None and (options.output.is_dir() or not options.output.parent.is_dir()):
        parser.error(f"--output must be a file in a folder that exists, got {options.output}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        Exit status: 0, or 1 after an error, which goes to the standard error.
    """
    options = parse_arguments(arguments)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the threads are those of --workers
    try:
        results = evaluate(
            options.dataset, options.object, options.anomaly_maps, options.per_defect, options.workers, progress=True
        )
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        torch.set_num_threads(threads)
    if options.output is None:
        print(json.dumps(results, indent=4))
        return 0
    try:
        write_json(options.output, results)
    except OSError as error:
        print(json.dumps(results, indent=4))
        print(f"error: the figures above could not be written to {options.output}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

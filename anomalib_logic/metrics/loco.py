# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The metrics of MVTec LOCO AD from anomaly maps on disk.

    python -m anomalib_logic.metrics.loco --dataset DIR --object NAME --anomaly-maps DIR [--output FILE]

The maps are ``<maps>/<object>/test/<folder>/<stem>.tiff``, one for each test image, with real numbers of any range; a
map of another size than its image is resized bilinearly. The folders are LOCO's ``good``, ``logical_anomalies`` and
``structural_anomalies``, or in AutoVI's layout ``good`` and the names of defects. Figures that a data set does not
allow are left out, and the standard error says which.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from anomalib_logic._files import write_text
from anomalib_logic.data.image_files import list_images
from anomalib_logic.data.loco_layout import (
    GROUND_TRUTH_FOLDER,
    SPLIT_FOLDERS,
    DefectConfig,
    category_kinds,
    find_categories,
    find_images,
    has_ground_truth,
    read_defects_config,
)

from .functional import SproCurve, au_spro
from .map_files import find_maps, read_map
from .protocol import (
    MEAN,
    ImageScores,
    defect_curve,
    image_auroc,
    kind_curve,
    mean_folders,
    measure_image,
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
        ValueError: If a folder, file or map is not as it must be.
    """
    if not (dataset / name).is_dir():
        msg = f"object must be a folder of {dataset}: {tuple(find_categories(dataset))}, got {name!r}"
        raise FileNotFoundError(msg)
    images = find_images(dataset / name, "test")
    folder = anomaly_maps / name / SPLIT_FOLDERS["test"]
    kinds = dict.fromkeys(image.kind for image in images)
    maps = {kind: find_maps(folder / kind) for kind in kinds}
    missing = [image.path for image in images if image.path.stem not in maps[image.kind]]
    if missing:
        msg = f"{len(missing)} of {len(images)} test images have no map in {folder}, the first is {missing[0]}"
        raise FileNotFoundError(msg)
    wanted = {(image.kind, image.path.stem) for image in images}
    surplus = [path for kind in kinds for stem, path in maps[kind].items() if (kind, stem) not in wanted]
    surplus += [path for other in _other_folders(folder, list(kinds)) for path in find_maps(other).values()]
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
    """Compute the metrics of one or several objects.

    Args:
        dataset: Folder of the data set.
        names: Names of the objects.
        anomaly_maps: Folder of the maps.
        per_defect: Also compute the AU-sPRO of each defect type.
        workers: Threads that read and measure maps; the metrics do not depend on it.
        progress: Show a progress bar on the standard error.

    Returns:
        ``localization`` and ``classification`` as in MVTec's file, with the metrics that the data allows: of a category
        without one of LOCO's kinds neither that kind's nor the mean, of one without ``ground_truth`` no localization.
        Of several objects the mean of each metric over those that have it, their number under ``number_of_objects``,
        and each object's metrics under ``objects``.

    Raises:
        FileNotFoundError: If the object, an image, a mask or a map is missing.
        ValueError: If a folder, file, mask or map is not as it must be.
    """
    dataset, anomaly_maps = Path(dataset), Path(anomaly_maps)
    names = list(dict.fromkeys(names))
    jobs = {name: find_pairs(dataset, name, anomaly_maps) for name in names}
    configs = {
        name: read_defects_config(dataset / name) if has_ground_truth(dataset / name) else None for name in names
    }
    results = {}
    with tqdm(total=sum(map(len, jobs.values())), unit="map", disable=not progress) as bar:
        for name in names:
            bar.set_description(name)
            images = _measure(jobs[name], configs[name], workers, bar)
            results[name] = compute_metrics(images, configs[name], per_defect)
    if len(names) == 1:
        return results[names[0]]
    common = [
        {key: {k: v for k, v in part.items() if k != "auc_spro_per_defect"} for key, part in result.items()}
        for result in results.values()
    ]
    return {**_combine(common, _mean), "number_of_objects": _combine(common, len), "objects": results}


def left_out(dataset: Path, name: str) -> list[str]:
    """Say which metrics of an object are left out, one sentence for each reason.

    Args:
        dataset: Folder of the data set.
        name: Name of the object, a folder of the data set.
    """
    folder = dataset / name / SPLIT_FOLDERS["test"]
    kinds = [kind for kind in category_kinds(dataset / name) if list_images(folder / kind)]
    sentences = [
        f"{name}: no test images in {kind}, so its metrics and the mean are left out"
        for kind in mean_folders(kinds)
        if kind not in kinds
    ]
    if not has_ground_truth(dataset / name):
        sentences.append(f"{name}: no {GROUND_TRUTH_FOLDER} folder and so no masks: localization is left out")
    return sentences


def _measure(
    pairs: Sequence[tuple[Path, Path]], configs: Sequence[DefectConfig] | None, workers: int, bar: tqdm
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


def compute_metrics(
    images: Sequence[ImageScores], configs: Sequence[DefectConfig] | None, per_defect: bool = False
) -> dict[str, Any]:
    """Compute an object's metrics from what is kept of its maps.

    Args:
        images: All test images.
        configs: The object's defects; ``None``: the masks were not read.
        per_defect: Also compute a metric for each defect; one that no image shows gets ``None``.

    Returns:
        ``localization`` (``auc_spro`` at each limit, for each kind and their mean; missing without masks) and
        ``classification`` (``auc_roc`` of the maps' maxima).
    """
    kinds = [image.kind for image in images]
    folders = [folder for folder in mean_folders(kinds) if folder in kinds]
    with_mean = len(folders) == len(mean_folders(kinds))
    scores = torch.tensor([image.image_score for image in images], dtype=torch.float64)
    auc_roc = {kind: image_auroc(kinds, scores, kind) for kind in (*folders, *([MEAN] if with_mean else []))}
    results: dict[str, Any] = {"classification": {"auc_roc": auc_roc}}
    if configs is None:
        return results
    auc_spro = {folder: _at_limits(kind_curve(images, folder)) for folder in folders}
    if with_mean:
        auc_spro[MEAN] = _combine(list(auc_spro.values()), _mean)
    localization: dict[str, Any] = {"auc_spro": auc_spro}
    if per_defect:
        curves = {config.defect_name: defect_curve(images, config.pixel_value) for config in configs}
        localization["auc_spro_per_defect"] = {name: curve and _at_limits(curve) for name, curve in curves.items()}
    return {"localization": localization, **results}


def _at_limits(curve: SproCurve) -> dict[str, float]:
    return {str(limit): float(au_spro(curve.fpr, curve.spro, limit)) for limit in LIMITS}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _combine(results: Sequence[Any], function: Callable[[Sequence[float]], float]) -> Any:
    """Apply a function to the numbers with the same keys in nested dictionaries, of which some may lack some."""
    if not isinstance(results[0], dict):
        return function(results)
    keys = dict.fromkeys(key for result in results for key in result)
    return {key: _combine([result[key] for result in results if key in result], function) for key in keys}


def write_json(path: Path, results: dict[str, Any]) -> None:
    """Write the metrics; the file appears only when it is complete."""
    write_text(path, json.dumps(results, indent=4) + "\n")


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
    for name in dict.fromkeys(options.object):
        for sentence in left_out(options.dataset, name):
            print(sentence, file=sys.stderr)
    if options.output is None:
        print(json.dumps(results, indent=4))
        return 0
    try:
        write_json(options.output, results)
    except OSError as error:
        print(json.dumps(results, indent=4))
        print(f"error: the metrics above could not be written to {options.output}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

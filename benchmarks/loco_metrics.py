# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Time and memory of the MVTec LOCO figures from maps on disk, and the ratio to binarising every map.

    python benchmarks/loco_metrics.py

Draws a category of 300 test images (100 good, 100 logical, 100 structural anomalies) of 1600 x 1280 pixels with maps of
that size and, in a second run, of 256 x 256, runs the command on it in a process of its own, and prints its time and
peak memory (Linux); then where the time goes, on some anomalous images and one thread; then the time that the same
figure takes by binarising maps.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from PIL import Image

from anomalib_logic.data.loco_layout import (
    ANOMALY_KINDS,
    find_images,
    mask_folder,
    read_defect_channels,
    read_defects_config,
)
from anomalib_logic.metrics.functional import au_spro, count_scores, resize_anomaly_map, saturation_area
from anomalib_logic.metrics.map_files import read_map
from anomalib_logic.metrics.protocol import image_au_spro, measure_image

CONFIG = [
    {"defect_name": "missing", "pixel_value": 255, "saturation_threshold": 0.5, "relative_saturation": True},
    {"defect_name": "scratch", "pixel_value": 254, "saturation_threshold": 6000, "relative_saturation": False},
]
# The kernel's own mark of this program: getrusage would count what the parent held when it started the process.
PROGRAM = """
import sys
from anomalib_logic.metrics.loco import main
status = main(sys.argv[1:])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
sys.exit(status)
"""


def draw_category(root: Path, images: int, size: tuple[int, int], map_size: tuple[int, int]) -> None:
    """Write test images, one or two masks for each anomalous one, and a map for each, higher on the masks."""
    generator = np.random.default_rng(0)
    folder, maps = root / "data" / "parts", root / "maps" / "parts" / "test"
    folder.mkdir(parents=True)
    (folder / "defects_config.json").write_text(json.dumps(CONFIG))
    (folder / "train").mkdir()
    for i in range(images):
        kind, stem = ANOMALY_KINDS[i % 3], f"{i // 3:03}"
        scores = np.array(Image.fromarray(generator.normal(0, 1, (20, 25)).astype("f4")).resize(map_size[::-1]))
        scores += generator.normal(0, 0.2, map_size).astype("f4")
        write_png(folder / "test" / kind / f"{stem}.png", np.zeros(size, np.uint8))
        for channel in range(1 + i % 2 if kind != "good" else 0):
            height, width = (int(n * generator.uniform(0.05, 0.3)) for n in size)
            top, left = (int(generator.uniform(0, n * 0.7)) for n in size)
            mask = np.zeros(size, np.uint8)
            mask[top : top + height, left : left + width] = CONFIG[channel]["pixel_value"]
            write_png(mask_folder(folder / "test" / kind / f"{stem}.png") / f"{channel:03}.png", mask)
            inside = np.array(Image.fromarray((mask > 0).astype("f4")).resize(map_size[::-1]))
            scores += inside * np.float32(generator.uniform(0, 3))
        (maps / kind).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(maps / kind / f"{stem}.tiff", scores)


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write a PNG file and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def run_command(root: Path, workers: int) -> tuple[float, float, float]:
    """Seconds on the clock and of CPUs, imports included, and peak of resident memory in MiB, in an own process."""
    paths = ["--dataset", str(root / "data"), "--anomaly-maps", str(root / "maps"), "--output", str(root / "out.json")]
    command = [sys.executable, "-c", PROGRAM, *paths, "--object=parts", f"--workers={workers}"]
    start, before = time.perf_counter(), os.times()
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    elapsed, after = time.perf_counter() - start, os.times()
    busy = after.children_user + after.children_system - before.children_user - before.children_system
    return elapsed, busy, int(output.split()[-1]) / 1024


def seconds(function: Callable[[Any], Any], arguments: Sequence[Any]) -> float:
    """Mean CPU time of a call, which other jobs on the machine change little."""
    start = time.process_time()
    for argument in arguments:
        function(argument)
    return (time.process_time() - start) / len(arguments)


def print_shares(root: Path, size: tuple[int, int], count: int) -> None:
    """Print where the time of an anomalous image goes."""
    folder = root / "data" / "parts"
    configs = read_defects_config(folder)
    images = [image.path for image in find_images(folder, "test") if image.kind != "good"][:count]
    files = [root / "maps" / "parts" / "test" / path.parent.name / f"{path.stem}.tiff" for path in images]
    maps = [torch.from_numpy(read_map(file)) for file in files]
    resized = [resize_anomaly_map(m, size) for m in maps]
    parts = {
        "reading the map": seconds(read_map, files),
        "resizing the map": seconds(lambda m: resize_anomaly_map(m, size), maps),
        "decoding the masks": seconds(lambda path: read_defect_channels(mask_folder(path), configs), images),
        "sorting and counting scores": seconds(count_scores, resized),
    }
    whole = parts["reading the map"] + seconds(
        lambda pair: measure_image(*pair, configs), list(zip(maps, images, strict=True))
    )
    for name, share in parts.items():
        print(
            f"  {name}: {1000 * share:.1f} ms, {share / whole:.0%} of {1000 * whole:.1f} ms of CPU an anomalous image"
        )


def binarising(root: Path, names: Sequence[tuple[str, str]], size: tuple[int, int], steps: int) -> float:
    """AU-sPRO at 5% by binarising every map at equal steps of the score, logical anomalies."""
    folder = root / "data" / "parts"
    configs = read_defects_config(folder)
    items = []
    for kind, stem in names:
        path = folder / "test" / kind / f"{stem}.png"
        scores = resize_anomaly_map(torch.from_numpy(read_map(root / "maps/parts/test" / kind / f"{stem}.tiff")), size)
        items.append((scores, read_defect_channels(mask_folder(path), configs) if kind != "good" else []))
    thresholds = torch.linspace(max(s.max() for s, _ in items), min(s.min() for s, _ in items) - 1e-3, steps)
    fpr, spro = [], []
    for threshold in thresholds:
        false_positives = defect_free = 0
        overlaps = []
        for scores, channels in items:
            positive = scores > threshold
            free = torch.ones_like(positive)
            for channel in channels:
                config, area = channel.config, int(channel.mask.sum())
                saturation = saturation_area(area, config.saturation_threshold, config.relative_saturation)
                overlaps.append(min(int((positive & channel.mask).sum()) / saturation, 1.0))
                free &= ~channel.mask
            false_positives += int((positive & free).sum())
            defect_free += int(free.sum())
        fpr.append(false_positives / defect_free)
        spro.append(sum(overlaps) / len(overlaps))
    return float(au_spro(torch.tensor(fpr, dtype=torch.float64), torch.tensor(spro, dtype=torch.float64), 0.05))


def print_ratio(root: Path, size: tuple[int, int], count: int, steps: int) -> None:
    """Print both ways' figure and CPU time on a few good and logical images."""
    names = [(kind, f"{i:03}") for kind in ANOMALY_KINDS[:2] for i in range(count // 2)]
    start = time.process_time()
    straightforward = binarising(root, names, size, steps)
    middle = time.process_time()
    folder = root / "data" / "parts"
    configs = read_defects_config(folder)
    images = [
        measure_image(
            torch.from_numpy(read_map(root / "maps/parts/test" / kind / f"{stem}.tiff")),
            folder / "test" / kind / f"{stem}.png",
            configs,
        )
        for kind, stem in names
    ]
    ours = image_au_spro(images, 0.05, "logical")
    end = time.process_time()
    print(
        f"{count} images, one thread: binarising at {steps} equal steps of the score {middle - start:.1f} s, "
        f"AU-sPRO at 5% {straightforward:.5f}; ours {end - middle:.2f} s, {ours:.5f}; "
        f"ratio {(middle - start) / (end - middle):.0f}"
    )


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=300, help="a multiple of 3")
    parser.add_argument("--size", type=int, nargs=2, default=(1280, 1600), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--map-size", type=int, nargs=2, default=(256, 256), help="of the second run")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--subset", type=int, default=10, help="images that are timed in detail and binarised")
    parser.add_argument("--steps", type=int, default=500, help="thresholds of binarising")
    parser.add_argument("--folder", type=Path, help="where the data is drawn; a temporary folder by default")
    args = parser.parse_args()
    torch.set_num_threads(1)
    size = tuple(args.size)
    for map_size in (size, tuple(args.map_size)):
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            root = Path(folder)
            draw_category(root, args.images, size, map_size)
            elapsed, busy, memory = run_command(root, args.workers)
            print(
                f"{args.images} images of {size[1]} x {size[0]}, maps of {map_size[1]} x {map_size[0]}, "
                f"{args.workers} workers: {elapsed:.1f} s ({busy:.1f} s of CPUs), peak {memory:.0f} MiB"
            )
            print_shares(root, size, args.subset)
            if map_size == size:
                print_ratio(root, size, args.subset, args.steps)


if __name__ == "__main__":
    main()

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What SAM-LAD costs: its bank with 50, 500 and 5,000 normal images, and the memory of the JBU up-sampler.

    python benchmarks/sam_lad_costs.py
    python benchmarks/sam_lad_costs.py --tables banks --backbone vit_small_patch14_dinov2

The bank is filled with random features of a backbone at its default size of images, with 8 objects an image. Prints
its megabytes, the peak of resident memory (Linux) that is added while it is filled and while the scores learn from it,
and milliseconds to encode one image, to search for similar ones, to compare and measure it, and to draw its map. Each
row has a process of its own, and so has the up-sampler, which runs on DINOv2-S's channels.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from memory import alone

from anomalib_logic import SamLad
from anomalib_logic.models.components.upsampling import DIAMETER, JbuUpsampler
from anomalib_logic.models.sam_lad.bank import Template
from anomalib_logic.models.sam_lad.clustering import CELLS
from anomalib_logic.models.sam_lad.comparison import ALIKE
from anomalib_logic.models.sam_lad.scores.amounts import exchange_windows
from anomalib_logic.models.sam_lad.torch_model import SamLadModel

OBJECTS = 8  # of an image
CHANGED = 16  # images that differ; the bank's other images have their features


def templates(model: SamLadModel, number: int) -> Iterator[Template]:
    """Random templates of so many images, one by one."""
    like = model.represent(torch.rand(1, 3, *model.image_size))
    like["valid"] = (torch.arange(like["valid"].shape[1]) < OBJECTS).unsqueeze(0)
    like["boxes"] = torch.tensor([0.2, 0.2, 0.5, 0.5]).expand(like["boxes"].shape)
    some = []
    for _ in range(min(CHANGED, number)):
        noise = {n: torch.rand_like(f) for n, f in like.items() if f.is_floating_point() and n != "boxes"}
        some.append({**like, **noise})
    for i in range(number):
        yield some[i % len(some)]


def bank_costs(backbone: str, number: int, repeats: int, results) -> None:
    """One row of the table, in a process of its own."""
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    model = SamLad(backbone, pre_trained=False, objects="cluster").eval().model
    query = next(templates(model, 1))
    unchanged, exchanged = exchange_windows(torch.rand(CHANGED, CELLS**2, *query["shares"].shape[2:]), 0)
    prepared = {"unchanged": unchanged, "exchanged": exchanged}
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what is resident now
    before, start = peak_of_memory(), time.perf_counter()
    model.bank.fill(templates(model, number), number)
    filled, peak = time.perf_counter() - start, peak_of_memory() - before
    for score in model.scores.values():
        score.learn(model.bank, None, prepared, 0)
    learned = peak_of_memory() - before
    image, measured = torch.rand(1, 3, *model.image_size), model.measure(model.compare(query))
    steps = {
        "encode": lambda: model.represent(image),
        "search": lambda: model.bank.search(query["key"], min(ALIKE, number)),
        "query": lambda: model.measure(model.compare(query)),
        "map": lambda: model.predict(measured),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(1000 * (time.perf_counter() - start))
    size = model.bank.bytes_per_image / 1e6
    encode, search, query_time, drawn = (statistics.median(values[1:]) for values in times.values())
    results.put(
        f"| {number} | {size:.2f} | {number * size:.0f} | {peak / 1e6:.0f} | {learned / 1e6:.0f} | {filled:.1f} | "
        f"{encode:.0f} | {search:.1f} | {query_time - search:.0f} | {drawn:.0f} | "
        f"{encode + query_time + drawn:.0f} |"
    )


def upsampler_peak(factor: int, channels: int, side: int, results) -> None:
    """Megabytes that up-sampling adds to the peak of this process."""
    upsampler = JbuUpsampler(channels, factor)
    features, images = torch.rand(1, channels, side, side), torch.rand(1, 3, 14 * side, 14 * side)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what is resident now
    before = peak_of_memory()
    with torch.no_grad():
        upsampler(features, images)
    results.put((peak_of_memory() - before) / 1e6)


def peak_of_memory() -> int:
    """Bytes that were resident at most since the peak was reset (Linux)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def banks(args: argparse.Namespace) -> None:
    """Print the table of banks."""
    print(
        "| normal images | MB an image | MB | MB at the peak, filling | learning | s to fill | ms: encode | search | "
        "compare | map | all |"
    )
    print(f"|{' --- |' * 11}")
    for number in args.numbers:
        print(alone(bank_costs, args.backbone, number, args.repeats), flush=True)


def upsamplers() -> None:
    """Print the table of up-sampling."""
    print("\n| up-sampling of 16 x 16 x 384 | MB of the result | MB at the peak | MB of (C x 49 x H x W) |")
    print("| --- | --- | --- | --- |")
    for factor in (2, 4, 8):
        peak = alone(upsampler_peak, factor, 384, 16)
        result = 384 * (16 * factor) ** 2 * 4 / 1e6
        print(f"| {factor} x | {result:.1f} | {peak:.1f} | {DIAMETER**2 * result:.1f} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", nargs="+", default=["banks", "upsamplers"], choices=["banks", "upsamplers"])
    parser.add_argument("--numbers", type=int, nargs="*", default=[50, 500, 5000], help="normal images in the bank")
    parser.add_argument("--backbone", default="mobilenetv2_100", help="timm's name; random weights")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    if "banks" in args.tables:
        banks(args)
    if "upsamplers" in args.tables:
        upsamplers()


if __name__ == "__main__":
    main()

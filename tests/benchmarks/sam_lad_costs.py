# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What SAM-LAD costs: its bank with 50, 500 and 5,000 normal images, and the memory of the JBU up-sampler.

    python tests/benchmarks/sam_lad_costs.py

The bank is filled with random features of the size that ``tests/benchmarks/scenes.py --image-size 384`` has. Prints
megabytes, seconds to fill, and milliseconds to compare one image, with and without a coreset of a tenth. The up-sampler
runs on DINOv2-S's channels in a process of its own; the peak of its resident memory is that of Linux.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from memory import alone

from anomalib_logic.models.components.upsampling import DIAMETER, JbuUpsampler
from anomalib_logic.models.sam_lad.bank import Template
from anomalib_logic.models.sam_lad.torch_model import SamLadModel

MODEL = {
    "image_size": (384, 384),
    "backbone": "mobilenetv2_100",
    "pre_trained": False,
    "objects": "cluster",
    "upsample": 4,
    "k": 10,
}


def templates(model: SamLadModel, number: int) -> Template:
    """Random templates of so many images, features in half precision."""
    like = model.represent(torch.rand(1, 3, *model.image_size))
    random = {}
    for name, field in like._asdict().items():
        shape = (number, *field.shape[1:])
        if field.dtype == torch.float:
            random[name] = torch.empty(shape, dtype=torch.half).uniform_()
        else:
            random[name] = torch.ones(shape, dtype=field.dtype)
    random["boxes"] = torch.tensor([0.2, 0.2, 0.5, 0.5], dtype=torch.half).expand(*random["boxes"].shape).clone()
    return Template(**random)


@torch.no_grad()
def bank_costs(number: int, coreset: float, repeats: int) -> str:
    """One row of the table."""
    torch.manual_seed(0)
    model = SamLadModel(**MODEL).eval()
    everything = templates(model, number)
    start = time.perf_counter()
    model.bank.fill([everything], coreset)
    filled = time.perf_counter() - start
    del everything
    query = model.bank.template(slice(0, 1))
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        model.compare(query)
        seconds.append(time.perf_counter() - start)
    searched = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        model.bank.search(query.key, min(model.k, len(model.bank)))
        searched.append(time.perf_counter() - start)
    size = model.bank.bytes_per_image * len(model.bank) / 1e6
    milliseconds = [1000 * statistics.median(times[1:]) for times in (searched, seconds)]
    return (
        f"| {number} | {len(model.bank)} | {size:.0f} | {filled:.1f} | {milliseconds[0]:.1f} | {milliseconds[1]:.1f} |"
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
    print("| normals | kept | MB | s to fill | ms to search | ms to compare |")
    print("| --- | --- | --- | --- | --- | --- |")
    for number in args.numbers:
        for coreset in (1.0, 0.1):
            print(bank_costs(number, coreset, args.repeats), flush=True)


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
    parser.add_argument("--numbers", type=int, nargs="*", default=[50, 500, 5000], help="normals in the bank")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    if "banks" in args.tables:
        banks(args)
    if "upsamplers" in args.tables:
        upsamplers()


if __name__ == "__main__":
    main()

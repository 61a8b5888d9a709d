# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Does bf16 pay on this CPU: seconds of a training step of GLCF in float32 and in bf16, in turns.

    python benchmarks/precision.py
    python benchmarks/precision.py --backbones swin_tiny_patch4_window7_224

Forward and backward pass are in the trainer's precision (``bf16-mixed`` is autocast), Muon's matrix iterations in
float32 as GLCF computes them on CPUs, or in bf16 as timm does. Prints a Markdown table with ratios, and whether the CPU
has instructions for bf16. Weights and images are random, which does not change the time. Medians over --repeats steps
after one that is not counted.
"""

import argparse
import statistics
import time
from contextlib import nullcontext
from pathlib import Path

import timm
import torch

from anomalib_logic import Glcf
from anomalib_logic.benchmark.models import NARROW
from anomalib_logic.models.components.muon import muon_in_float32

UNITS = ("avx512_bf16", "amx_bf16")
PAPER = "swin_tiny_patch4_window7_224"
BACKBONES = ("mobilenetv2_100", "tf_efficientnet_lite0", PAPER)


def bf16_units() -> str:
    """Instructions for bf16 that Linux lists of this CPU."""
    if not Path("/proc/cpuinfo").exists():
        return "unknown"
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    return ", ".join(unit for unit in UNITS if unit in flags) or "none"


def seconds_of_step(model: Glcf, images: torch.Tensor, bf16: bool) -> float:
    """Time of a forward and a backward pass."""
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = model.loss(*model.model(images))["loss"]
    loss.backward()
    return time.perf_counter() - start


def seconds_of_update(optimizer: torch.optim.Optimizer, bf16: bool) -> float:
    """Time of Muon's update."""
    start = time.perf_counter()
    with nullcontext() if bf16 else muon_in_float32(torch.device("cpu")):
        optimizer.step()
    return time.perf_counter() - start


def row(name: str, times: dict[bool, list[float]]) -> str:
    """Medians and their ratio."""
    full, half = (statistics.median(measured[1:]) for measured in times.values())
    return f"| {name} | {full:.2f} s | {half:.2f} s | {half / full:.2f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbones", nargs="+", default=BACKBONES)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    print(f"bf16 units: {bf16_units()}; {torch.get_num_threads()} threads")
    print("| GLCF | float32 | bf16 | bf16 / float32 |\n| --- | --- | --- | --- |")
    for backbone in args.backbones:
        widths = {} if backbone == PAPER else NARROW
        model = Glcf(backbone, pre_trained=False, image_size=args.image_size, **widths).train()
        optimizer = timm.optim.create_optimizer_v2(model.model, opt="muon", lr=1e-4)
        images = torch.rand(args.batch, 3, args.image_size, args.image_size)
        passes: dict[bool, list[float]] = {False: [], True: []}
        updates: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(args.repeats + 1):
            for bf16 in (False, True):
                passes[bf16].append(seconds_of_step(model, images, bf16))
                updates[bf16].append(seconds_of_update(optimizer, bf16))
                optimizer.zero_grad()
        print(row(f"{backbone}, forward and backward", passes))
        print(row(f"{backbone}, Muon's update", updates), flush=True)


if __name__ == "__main__":
    main()

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Does bf16 pay on this CPU: seconds of a training step of GLCF in float32 and in bf16-mixed, in turns.

    python tests/benchmarks/precision.py
    python tests/benchmarks/precision.py --backbones swin_tiny_patch4_window7_224

Prints a Markdown table with the ratio, and whether the CPU has instructions for bf16. Weights and images are random,
which does not change the time. Medians over --repeats steps after one that is not counted.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from settings import NARROW

from anomalib_logic import Glcf

UNITS = ("avx512_bf16", "amx_bf16")
PAPER = "swin_tiny_patch4_window7_224"
BACKBONES = ("mobilenetv2_100", "tf_efficientnet_lite0", PAPER)


def bf16_units() -> str:
    """Instructions for bf16 that Linux lists of this CPU."""
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    return ", ".join(unit for unit in UNITS if unit in flags) or "none"


def seconds_of_step(model: Glcf, optimizer: torch.optim.Optimizer, images: torch.Tensor, bf16: bool) -> float:
    """Time of one forward pass, backward pass and update."""
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = model.loss(*model.model(images))["loss"]
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbones", nargs="+", default=BACKBONES)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    print(f"bf16 units: {bf16_units()}; {torch.get_num_threads()} threads")
    print("| GLCF, a training step | float32 | bf16-mixed | float32 / bf16 |\n| --- | --- | --- | --- |")
    for backbone in args.backbones:
        widths = {} if backbone == PAPER else NARROW
        model = Glcf(backbone, pre_trained=False, image_size=args.image_size, **widths).train()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
        images = torch.rand(args.batch, 3, args.image_size, args.image_size)
        times: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(args.repeats + 1):
            for bf16, measured in times.items():
                measured.append(seconds_of_step(model, optimizer, images, bf16))
        full, half = (statistics.median(measured[1:]) for measured in times.values())
        print(f"| {backbone} | {full:.2f} s | {half:.2f} s | {full / half:.2f} |", flush=True)


if __name__ == "__main__":
    main()

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What SAM-LAD costs: its bank with 50, 500 and 5,000 normals, the memory of a session and of the JBU up-sampler.

    python tests/benchmarks/sam_lad_costs.py
    python tests/benchmarks/sam_lad_costs.py --tables sessions --images 40 --image-size 384

The bank is filled with random features of the size that ``tests/benchmarks/scenes.py --image-size 384`` has. Prints
megabytes, seconds to fill, and milliseconds to compare one image, with and without a coreset of a tenth. The up-sampler
runs on DINOv2-S's channels in a process of its own; the peak of its resident memory is that of Linux. Fit, validate,
test and predict run on random images, each at each batch size in a process of its own, whose whole peak is printed.
"""

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from PIL import Image

from anomalib_logic import SamLad
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


def write_images(root: Path, number: int, side: int) -> None:
    """Random images: so many for training, as many good and bad ones for testing."""
    generator = np.random.default_rng(0)
    for kind, count in (("good", 2 * number), ("bad", number)):
        (root / kind).mkdir()
        for i in range(count):
            noise = generator.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((side, side)).save(root / kind / f"{i:03}.png")


def session(step: str, batch: int, root: Path, side: int, checkpoint: Path, results) -> None:
    """Megabytes that this process takes at most, in one step of an engine."""
    torch.set_num_threads(1)
    data = Folder(
        "noise",
        "good",
        root,
        "bad",
        test_split_ratio=0.5,
        val_split_mode="same_as_test",
        train_batch_size=batch,
        eval_batch_size=batch,
        num_workers=0,
    )
    engine = Engine(default_root_dir=root, accelerator="cpu", enable_progress_bar=False, logger=False)
    if step == "fit":
        model = SamLad(**{**MODEL, "image_size": side}, evaluator=False, visualizer=False)
        engine.fit(model, datamodule=data)
        engine.trainer.save_checkpoint(checkpoint)
    else:
        model = SamLad.load_from_checkpoint(checkpoint, evaluator=False, visualizer=False)
        getattr(engine, step)(model, datamodule=data)
    results.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


def alone(target, *arguments) -> float:
    """What a function puts into a queue in a process of its own."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=target, args=(*arguments, results))
    process.start()
    result = results.get()
    process.join()
    return result


def sessions(args: argparse.Namespace) -> None:
    """Print the table of the steps of an engine."""
    print(f"\n| MB at the peak, {args.images} normals, batch size | {' | '.join(map(str, args.batches))} |")
    print(f"| --- |{' --- |' * len(args.batches)}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root, args.images, args.image_size)
        for step in ("fit", "validate", "test", "predict"):
            peaks = [alone(session, step, b, root, args.image_size, root / "model.ckpt") for b in args.batches]
            print(f"| {step} | {' | '.join(f'{peak:.0f}' for peak in peaks)} |", flush=True)


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
    parser.add_argument("--tables", nargs="+", default=["banks", "sessions", "upsamplers"])
    parser.add_argument("--numbers", type=int, nargs="*", default=[50, 500, 5000], help="normals in the bank")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32], help="of sessions")
    parser.add_argument("--images", type=int, default=40, help="training images of sessions")
    parser.add_argument("--image-size", type=int, default=384, help="of sessions")
    args = parser.parse_args()
    if "banks" in args.tables:
        banks(args)
    if "sessions" in args.tables:
        sessions(args)
    if "upsamplers" in args.tables:
        upsamplers()


if __name__ == "__main__":
    main()

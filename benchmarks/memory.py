# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Peak memory of fit, validate, test and predict at several batch sizes.

    python benchmarks/memory.py
    python benchmarks/memory.py --models SamLad --images 40 --image-size 384

Images are random; as many normal and as many anomalous ones as train are tested. Each step at each batch size has a
process of its own with one thread, whose whole peak of resident memory (Linux) is printed in megabytes. GLCF trains two
batches; its fit grows with the batch, as every training does.
"""

import argparse
import multiprocessing
import resource
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from PIL import Image

from anomalib_logic import Glcf, SamLad

BACKBONE = {"backbone": "mobilenetv2_100", "pre_trained": False}
MODELS: dict[str, tuple[type, dict[str, Any], dict[str, Any]]] = {
    "SamLad": (SamLad, {**BACKBONE, "objects": "cluster"}, {}),
    "Glcf": (Glcf, BACKBONE, {"max_epochs": 1, "limit_train_batches": 2}),
}
STEPS = ("fit", "validate", "test", "predict")


def write_images(root: Path, number: int, side: int) -> None:
    """Random images: so many for training, as many good and bad ones for testing."""
    generator = np.random.default_rng(0)
    for kind, count in (("good", 2 * number), ("bad", number)):
        (root / kind).mkdir()
        for i in range(count):
            noise = generator.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((side, side)).save(root / kind / f"{i:03}.png")


def session(name: str, step: str, batch: int, root: Path, side: int, results: Any) -> None:
    """Megabytes that this process takes at most, in one step of an engine."""
    torch.set_num_threads(1)
    create, arguments, trainer = MODELS[name]
    checkpoint = root / f"{name}.ckpt"
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
    engine = Engine(default_root_dir=root, accelerator="cpu", enable_progress_bar=False, logger=False, **trainer)
    if step == "fit":
        model = create(**arguments, image_size=side, evaluator=False, visualizer=False)
        engine.fit(model, datamodule=data)
        engine.trainer.save_checkpoint(checkpoint)
    else:
        model = create.load_from_checkpoint(checkpoint, evaluator=False, visualizer=False)
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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--images", type=int, default=64, help="training images")
    parser.add_argument("--image-size", type=int, default=384)
    args = parser.parse_args()
    print(f"| MB at the peak, {args.images} training images, batch size | {' | '.join(map(str, args.batches))} |")
    print(f"| --- |{' --- |' * len(args.batches)}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root, args.images, args.image_size)
        for name in args.models:
            for step in STEPS:
                peaks = [alone(session, name, step, batch, root, args.image_size) for batch in args.batches]
                print(f"| {name}, {step} | {' | '.join(f'{peak:.0f}' for peak in peaks)} |", flush=True)


if __name__ == "__main__":
    main()

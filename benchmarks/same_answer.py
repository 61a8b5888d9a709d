# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Whether an image file has one answer: image size x way of asking x model, largest difference of score and of map.

    python benchmarks/same_answer.py
    python benchmarks/same_answer.py --weights mobilenetv2_100.safetensors --image-size 224

writes textured images of several sizes (4-pixel squares and 1-pixel noise) to files, trains the models on some, exports
them, asks for the answers to the files in every way there is, and prints a table in Markdown: differences from
``engine.predict``, of the score relative to it, and of the map relative to the range of the engine's maps. Another
label or mask, unless the threshold lies between the two values, stops it. Weights are random unless a file is given.
"""

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from anomalib.cli.cli import AnomalibCLI
from anomalib.data import Folder
from anomalib.deploy import OpenVINOInferencer, TorchInferencer
from anomalib.engine import Engine
from anomalib.models import AnomalibModule
from lightning import seed_everything
from PIL import Image

from anomalib_logic import Glcf, Lgfdr, SamLad
from anomalib_logic.export import Runner, open_exported
from anomalib_logic.export.images import generate
from anomalib_logic.export.verification import measure

EXAMPLE = Path(__file__).parents[1] / "examples/infer.py"
NARROW = {"width": 48, "depth": 1, "heads": 4, "decoder_depths": [1, 1, 1, 1], "decoder_widths": [16, 32, 48, 96]}
MODELS = {
    "Glcf": (Glcf, NARROW, {"max_epochs": 3}),
    "Lgfdr": (Lgfdr, {"width": 48, "global_depth": 1}, {"max_epochs": 3}),
    "SamLad": (SamLad, {"objects": "cluster", "scene_size": 16, "object_size": 8, "max_objects": 8}, {}),
}
QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}

Answers = dict[str, dict[str, np.ndarray]]  # of each file by its name, as a Runner's for a batch of one image


class Subject(NamedTuple):
    """A trained model and what was exported of it.

    Attributes:
        name: Its class.
        arguments: Of its constructor.
        checkpoint: Its checkpoint.
        torch, onnx, openvino: Exported files for images of any size.
        fixed: ONNX file for images of the model's own size.
        folder: For what commands write.
    """

    name: str
    arguments: dict[str, object]
    checkpoint: Path
    torch: Path
    onnx: Path
    openvino: Path
    fixed: Path
    folder: Path


def write_images(folder: Path, sizes: list[tuple[int, int]]) -> list[Path]:
    """Write a textured image of each size into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, image in enumerate(generate(sizes)):
        paths.append(folder / f"{i:02}_{image.size[0]}x{image.size[1]}.png")
        Image.fromarray((image.image * 255).round().byte().permute(1, 2, 0).numpy()).save(paths[-1])
    return paths


def train(name: str, arguments: dict[str, object], root: Path, image_size: tuple[int, int]) -> Subject:
    """Train a model on textured images of twice its size and export it in all formats."""
    seed_everything(0, verbose=False)
    create, defaults, trainer = MODELS[name]
    arguments = {**defaults, "image_size": list(image_size), "pre_trained": False, **arguments}
    sizes = [(2 * image_size[0] + 7 * i, 2 * image_size[1] + 5 * i) for i in range(8)]
    for path in write_images(root / "data/good", sizes)[-2:]:
        (root / "data/bad").mkdir(exist_ok=True)
        pixels = np.asarray(Image.open(path)).copy()
        pixels[: pixels.shape[0] // 2] = 255
        Image.fromarray(pixels).save(root / "data/bad" / path.name)
    data = Folder("textures", "good", root / "data", "bad", num_workers=0, val_split_mode="same_as_test", seed=0)
    engine = Engine(default_root_dir=root / "training", **QUIET, **trainer)
    model = create(**arguments)
    engine.fit(model, datamodule=data)
    checkpoint = root / "model.ckpt"
    engine.trainer.save_checkpoint(checkpoint)
    return Subject(
        name,
        arguments,
        checkpoint,
        model.to_torch(root),
        model.to_onnx(root),
        model.to_openvino(root),
        model.to_onnx(root / "fixed", input_size=image_size),
        root / "written",
    )


def _arrays(prediction: object) -> dict[str, np.ndarray]:
    """Answers of Anomalib's batches of one image."""
    score, label = (np.asarray(getattr(prediction, name)).reshape(1) for name in ("pred_score", "pred_label"))
    maps, mask = (np.asarray(getattr(prediction, name)) for name in ("anomaly_map", "pred_mask"))
    size = (1, 1, *maps.shape[-2:])
    return {
        "pred_score": score,
        "pred_label": label,
        "anomaly_map": maps.reshape(size),
        "pred_mask": mask.reshape(size),
    }


def _of_batches(batches: list[object]) -> Answers:
    return {Path(batch.image_path[0]).name: _arrays(batch) for batch in batches}


def engine(subject: Subject, files: list[Path]) -> Answers:
    """``engine.predict(data_path=...)``."""
    model: AnomalibModule = MODELS[subject.name][0].load_from_checkpoint(subject.checkpoint)
    run = Engine(default_root_dir=subject.folder, **QUIET)
    return _of_batches(run.predict(model, data_path=files[0].parent))


def command_line(subject: Subject, files: list[Path]) -> Answers:
    """``anomalib predict``, in this process, for the sake of what it returns."""
    arguments = [f"--model.{name}={value}" for name, value in subject.arguments.items()]
    settings = [
        f"--data={files[0].parent}",
        f"--ckpt_path={subject.checkpoint}",
        f"--default_root_dir={subject.folder}",
    ]
    trainer = [f"--trainer.{name}={value}" for name, value in QUIET.items()]
    command = ["predict", f"--model=anomalib_logic.{subject.name}", *arguments, *settings, *trainer]
    with contextlib.redirect_stdout(io.StringIO()):
        cli = AnomalibCLI(command, run=False)
        return _of_batches(cli.engine.predict(**cli._prepare_subcommand_kwargs("predict")))


def torch_inferencer(subject: Subject, files: list[Path]) -> Answers:
    """Anomalib's ``TorchInferencer``."""
    os.environ["TRUST_REMOTE_CODE"] = "1"
    inferencer = TorchInferencer(subject.torch, device="cpu")
    with torch.no_grad():
        return {file.name: _arrays(inferencer.predict(file)) for file in files}


def openvino_inferencer(subject: Subject, files: list[Path]) -> Answers:
    """Anomalib's ``OpenVINOInferencer`` in single precision; it makes a folder in the working directory."""
    with contextlib.chdir(subject.folder) if sys.version_info >= (3, 11) else contextlib.nullcontext():
        inferencer = OpenVINOInferencer(subject.openvino, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return {file.name: _arrays(inferencer.predict(file)) for file in files}


def _by(runner: Runner, files: list[Path]) -> Answers:
    return {file.name: runner.predict(file) for file in files}


def torch_runner(subject: Subject, files: list[Path]) -> Answers:
    """Our runner of ``.pt`` files."""
    return _by(open_exported(subject.torch), files)


def onnx_runner(subject: Subject, files: list[Path]) -> Answers:
    """Our runner of ONNX Runtime."""
    return _by(open_exported(subject.onnx), files)


def openvino_runner(subject: Subject, files: list[Path]) -> Answers:
    """Our runner of OpenVINO."""
    return _by(open_exported(subject.openvino), files)


def fixed_runner(subject: Subject, files: list[Path]) -> Answers:
    """Our runner of ONNX Runtime with a file that takes images of the model's own size."""
    return _by(open_exported(subject.fixed), files)


def infer(subject: Subject, files: list[Path], exported: str = "openvino") -> Answers:
    """``examples/infer.py``; maps are those of its PNG files, in steps of 1 / 255."""
    maps = subject.folder / exported
    command = [sys.executable, "-I", EXAMPLE, getattr(subject, exported), *files, "--maps", maps]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answers = {}
    for line in map(json.loads, done.stdout.splitlines()):
        anomaly_map = np.asarray(Image.open(line["map"]), np.float32)[None, None] / 255
        score, label = np.array([line["score"]]), np.array([line["anomalous"]])
        answers[Path(line["image"]).name] = {"pred_score": score, "pred_label": label, "anomaly_map": anomaly_map}
    return answers


def infer_fixed(subject: Subject, files: list[Path]) -> Answers:
    """``examples/infer.py`` with a file that takes images of the model's own size."""
    return infer(subject, files, "fixed")


WAYS: dict[str, Callable[[Subject, list[Path]], Answers]] = {
    "anomalib predict": command_line,
    "TorchInferencer": torch_inferencer,
    "OpenVINOInferencer": openvino_inferencer,
    "TorchRunner": torch_runner,
    "OnnxRunner": onnx_runner,
    "OpenVINORunner": openvino_runner,
    "OnnxRunner, fixed size": fixed_runner,
    "infer.py": infer,
    "infer.py, fixed size": infer_fixed,
}


class Difference(NamedTuple):
    """Of an answer from the engine's, see :class:`anomalib_logic.export.verification.Differences`."""

    score: float
    anomaly_map: float
    decisions: int


def differences(expected: Answers, found: Answers) -> dict[str, Difference]:
    """Compare the answers to each file; the range of maps and the floor of scores are those of all files."""
    names = list(expected)
    outputs = list(next(iter(found.values())))
    joined = [{key: np.concatenate([a[n][key] for n in names]) for key in outputs} for a in (expected, found)]
    result = measure(*joined)
    decisions = result.labels.astype(int) + result.masks.astype(int)
    return {
        name: Difference(*values)
        for name, *values in zip(names, result.score, result.anomaly_map, decisions, strict=True)
    }


def image_sizes(own: tuple[int, int]) -> list[tuple[int, int]]:
    """Sizes smaller than, equal to and larger than a model's, of one shape and of others."""
    height, width = own
    side = (height + width) // 2
    return [own, (height // 2, width // 2), (side // 2 * 3,) * 2, (height * 2, width // 2), (1200, 1600), (1599, 1201)]


def rows_of(name: str, arguments: dict[str, object], own: tuple[int, int]) -> list[str]:
    """Rows of the table for one model."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        subject = train(name, arguments, Path(folder), own)
        subject.folder.mkdir()
        files = write_images(Path(folder) / "images", image_sizes(own))
        expected = engine(subject, files)
        columns = [differences(expected, ask(subject, files)) for ask in WAYS.values()]
    rows = []
    for file in files:
        cells = [f"{column[file.name].score:.1e} / {column[file.name].anomaly_map:.1e}" for column in columns]
        if any(column[file.name].decisions for column in columns):
            sys.exit(f"{name}, {file.name}: another label or mask")
        rows.append(f"| {name} | {file.stem[3:].replace('x', ' x ')} | {' | '.join(cells)} |")
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--weights", help="local file with the backbone's weights; random by default")
    parser.add_argument("--image-size", type=int, nargs=2, default=(224, 224), help="of the models, in pixels")
    args = parser.parse_args()
    arguments = {"backbone": args.backbone}
    if args.weights is not None:
        arguments |= {"backbone_weights": args.weights, "backbone_args": {"pad_type": "same"}}
    rows = [row for name in args.models for row in rows_of(name, arguments, tuple(args.image_size))]
    print(f"| model | image | {' | '.join(WAYS)} |")
    print(f"|{' --- |' * (len(WAYS) + 2)}")
    print("\n".join(rows))


if __name__ == "__main__":
    main()

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Find anomalies in images with an exported model; needs numpy, Pillow and openvino or onnxruntime, nothing else.

    python infer.py model.xml part.png
    python infer.py model.onnx parts/*.png --device CUDAExecutionProvider --maps heat

prints a line of JSON for each image: its file, score, label and, with --maps, the file of its anomaly map; or an error,
and then the exit status is 1. The answers are those of Anomalib's engine for the same files.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

Size = tuple[int, int] | None

IMAGE_SIZE = "anomalib_logic.image_size"  # in the model's metadata: height and width to which the engine resizes
ORIENTATION = 0x0112  # of EXIF
WIDE = re.compile(r"[A-Za-z]+;16[BLN]")  # Pillow's names of 16-bit values that it reads as 8 bits


class Model(NamedTuple):
    """An opened model: how to run it, the height and width that it is fixed to, and those of the engine's resize."""

    run: Callable[[np.ndarray], dict[str, np.ndarray]]
    input_size: Size
    image_size: Size


def open_openvino(path: Path, device: str, precision: str | None) -> Model:
    """Open a model in OpenVINO."""
    import openvino

    core = openvino.Core()
    family = device.partition(":")[0].partition(".")[0]
    if family != "AUTO" and not any(name.partition(".")[0] == family for name in core.available_devices):
        sys.exit(f"OpenVINO has no device {device} here; it has {', '.join(core.available_devices)}")
    model = core.read_model(path)
    place = ["framework", IMAGE_SIZE]
    image_size = model.get_rt_info(place).astype(str) if model.has_rt_info(place) else "null"
    compiled = core.compile_model(model, device, {"INFERENCE_PRECISION_HINT": precision} if precision else {})
    height, width = list(compiled.input(0).partial_shape)[2:]
    size = (height.get_length(), width.get_length()) if height.is_static and width.is_static else None
    names = [output.any_name for output in compiled.outputs]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        results = compiled(images)
        return {name: results[name] for name in names}

    return Model(run, size, _size(image_size))


def open_onnxruntime(path: Path, provider: str) -> Model:
    """Open a model in ONNX Runtime."""
    import onnxruntime

    if provider not in onnxruntime.get_available_providers():
        sys.exit(f"ONNX Runtime has no {provider} here; it has {', '.join(onnxruntime.get_available_providers())}")
    session = onnxruntime.InferenceSession(str(path), providers=[provider])
    height, width = session.get_inputs()[0].shape[2:]
    size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    names = [output.name for output in session.get_outputs()]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(None, {session.get_inputs()[0].name: images}), strict=True))

    return Model(run, size, _size(session.get_modelmeta().custom_metadata_map.get(IMAGE_SIZE, "null")))


def _size(text: str) -> Size:
    value = json.loads(text)
    return None if value is None else tuple(value)


def read(path: Path, model: Model) -> np.ndarray:
    """Read an image as the model takes it: values in [0, 1], shape ``(1, 3, H, W)``; the model does all the rest.

    Raises:
        ValueError: If the model would get another image than the file's, or another answer than the engine's.
    """
    with Image.open(path) as image:
        check_readable(image)
        pixels = np.asarray(image.convert("RGB"), dtype=np.float32).transpose(2, 0, 1) / 255
    size = pixels.shape[1:]
    if model.input_size not in (None, size):
        if model.input_size != model.image_size:
            msg = (
                f"the image has {size[0]} x {size[1]} pixels, and the model takes {model.input_size} only, which is "
                f"not its own size ({model.image_size or 'unknown'}): export it without an input size, or with its own"
            )
            raise ValueError(msg)
        pixels = resize(pixels, model.input_size)
    return np.ascontiguousarray(pixels[None])


def check_readable(image: Image.Image) -> None:
    """Refuse files of which the conversion to RGB, which Anomalib uses, makes another image."""
    transparent = "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La")
    codecs = [tile[3] if isinstance(tile[3], tuple) else (tile[3],) for tile in image.tile]
    wide = any(isinstance(name, str) and WIDE.fullmatch(name) for names in codecs for name in names)
    reason = None
    if wide or image.mode.startswith(("I", "F")):
        reason = "more than 8 bits a value, which would be cut to 8: scale and save it with 8 bits"
    elif transparent and image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
        reason = "transparent pixels, and their hidden colours would be seen: save it as RGB without transparency"
    elif image.format != "TIFF" and image.getexif().get(ORIENTATION) not in (None, 0, 1):  # Pillow turns TIFF files
        reason = "an EXIF orientation, which would be ignored: save it upright"
    if reason is not None:
        msg = f"the image (mode {image.mode}) has {reason}"
        raise ValueError(msg)


def resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize by antialiased bilinear interpolation in floating point (Pillow's rounds to 8 bits)."""
    rows, columns = (_weights(length, out) for length, out in zip(pixels.shape[1:], size, strict=True))
    return rows @ (pixels @ columns.T)


def _weights(length: int, out: int) -> np.ndarray:
    """Weights of a triangle filter, shape ``(out, length)``: how much of each old pixel is in each new one."""
    scale = length / out
    centers = (np.arange(out)[:, None] + 0.5) * scale
    weights = np.maximum(0, 1 - np.abs(np.arange(length) + 0.5 - centers) / max(scale, 1))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def map_files(images: list[Path], folder: Path) -> list[Path]:
    """Files of anomaly maps, another one for each image: named after images, with folders and suffixes if need be."""
    files = [path.absolute() for path in images]
    common = os.path.commonpath([path.parent for path in files])
    inside = [path.relative_to(common) for path in files]
    choices = [[Path(path.stem) for path in inside], [path.with_suffix("") for path in inside], inside]
    different = (names for names in choices if len({str(name).lower() for name in names}) == len(set(files)))
    return [folder / f"{name}.png" for name in next(different, inside)]


def describe(path: Path, predictions: dict[str, np.ndarray], target: Path | None) -> dict[str, object]:
    """What is printed of an image; its anomaly map goes to a grey PNG, black for 0 and white for 1."""
    result: dict[str, object] = {"image": str(path), "score": round(float(predictions["pred_score"].ravel()[0]), 6)}
    if "pred_label" in predictions:
        result["anomalous"] = bool(predictions["pred_label"].ravel()[0])
    if target is not None and "anomaly_map" in predictions:
        anomaly_map = predictions["anomaly_map"].reshape(predictions["anomaly_map"].shape[-2:])
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((anomaly_map.clip(0, 1) * 255).round().astype(np.uint8)).save(target)
        result["map"] = str(target)
    return result


def main() -> int:
    """Print a line of JSON for each image; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="exported .xml (OpenVINO) or .onnx (ONNX Runtime) file")
    parser.add_argument("images", type=Path, nargs="+", help="image files")
    parser.add_argument("--device", help="OpenVINO: CPU (default), GPU, NPU, AUTO. ONNX Runtime: an execution provider")
    parser.add_argument("--precision", default="f32", help="of OpenVINO: f32, bf16, f16; '' lets the device choose")
    parser.add_argument("--maps", type=Path, help="folder for anomaly maps as PNG")
    args = parser.parse_args()
    for path in (args.model, *args.images):
        if not path.is_file():
            parser.error(f"there is no file {path}")
    if args.model.suffix == ".xml":
        model = open_openvino(args.model, args.device or "CPU", args.precision or None)
    elif args.model.suffix == ".onnx":
        model = open_onnxruntime(args.model, args.device or "CPUExecutionProvider")
    else:
        parser.error(f"the model must be an .xml or .onnx file, got {args.model}")
    status = 0
    for path, target in zip(args.images, map_files(args.images, args.maps or Path()), strict=True):
        try:
            result = describe(path, model.run(read(path, model)), target if args.maps else None)
        except Exception as error:  # the others shall not suffer from one image
            result, status = {"image": str(path), "error": str(error) or type(error).__name__}, 1
        print(json.dumps(result), flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())

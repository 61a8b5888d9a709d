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
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

Size = tuple[int, int] | None

IMAGE_SIZE = "anomalib_logic.image_size"  # in the model's metadata: height and width to which the engine resizes
ORIENTATION = 0x0112  # of EXIF
WIDE = re.compile(r"[A-Za-z]+;16[BLN]")  # Pillow's names of 16-bit values that it reads as 8 bits
EIGHT_BITS = np.float32(1 / 255)  # as torchvision scales
EXCESS = 1e-3  # of values beyond [0, 1] that is rounding
LARGE, EMPTY = 10**8, 8 * 1032  # pixels, and pixels a byte, of a file that claims what it cannot have
PILLOW = threading.Lock()  # its limit of pixels is of the whole process


class Model(NamedTuple):
    """An opened model: how to run it, the height and width that it is fixed to, and those of the engine's resize.

    Several threads may call ``run``. It takes images of shape ``(N, 3, H, W)``, floating point in [0, 1] or ``uint8``,
    and raises ``ValueError`` for others, and if the model's answer has NaN.
    """

    run: Callable[[np.ndarray], dict[str, np.ndarray]]
    input_size: Size
    image_size: Size


def require(condition: object, message: str) -> None:
    """Raise ``ValueError`` unless the condition holds."""
    if not condition:
        raise ValueError(message)


def open_model(path: Path, device: str | None = None, precision: str | None = "f32") -> Model:
    """Open an ``.xml`` file in OpenVINO or an ``.onnx`` file in ONNX Runtime.

    Raises:
        ValueError: If the file or that of its weights is missing, broken or of something else, or the device missing.
    """
    require(path.is_file(), f"there is no file {path}")
    require(path.suffix in (".xml", ".onnx"), f"the model must be an .xml or .onnx file, got {path}")
    if path.suffix == ".xml":
        return open_openvino(path, device or "CPU", precision)
    return open_onnxruntime(path, device or "CPUExecutionProvider")


def open_openvino(path: Path, device: str, precision: str | None) -> Model:
    """Open a model in OpenVINO."""
    import openvino

    core = openvino.Core()
    family = device.partition(":")[0].partition(".")[0]
    there = core.available_devices
    known = family in {"AUTO", *(name.partition(".")[0] for name in there)}
    require(known, f"OpenVINO has no device {device} here; it has {', '.join(there)}")
    with path.open("rb") as file:  # of other files OpenVINO prints errors
        require(b"<net" in file.read(1000), f"{path} cannot be opened: it is not OpenVINO's XML")
    try:
        model = core.read_model(path)
        compiled = core.compile_model(model, device, {"INFERENCE_PRECISION_HINT": precision} if precision else {})
    except RuntimeError as error:
        raise broken(path, error) from error
    place = ["framework", IMAGE_SIZE]
    image_size = model.get_rt_info(place).astype(str) if model.has_rt_info(place) else "null"
    names = [output.any_name if output.names else "" for output in model.outputs]
    shapes = [() if node.partial_shape.rank.is_dynamic else node.partial_shape for node in model.inputs]
    sides = [[side.get_length() if side.is_static else None for side in shape] for shape in shapes]
    kinds = [node.element_type.get_type_name() for node in model.inputs]
    requests = threading.local()  # a call of ``compiled`` itself has one request for all threads

    def infer(images: np.ndarray) -> list[np.ndarray]:
        if not hasattr(requests, "own"):
            requests.own = compiled.create_infer_request()
        results = requests.own.infer(images, share_inputs=True)  # copies
        return [results[i] for i in range(len(names))]

    return guarded(path, infer, list(zip(kinds, sides, strict=True)), names, image_size)


def open_onnxruntime(path: Path, provider: str) -> Model:
    """Open a model in ONNX Runtime."""
    import onnxruntime

    there = onnxruntime.get_available_providers()
    require(provider in there, f"ONNX Runtime has no {provider} here; it has {', '.join(there)}")
    try:
        session = onnxruntime.InferenceSession(str(path), providers=[provider])
    except Exception as error:  # its classes have nothing else in common
        raise broken(path, error) from error
    nodes, names = session.get_inputs(), [output.name for output in session.get_outputs()]
    inputs = [(node.type, [side if isinstance(side, int) else None for side in node.shape]) for node in nodes]
    image_size = session.get_modelmeta().custom_metadata_map.get(IMAGE_SIZE, "null")
    return guarded(path, lambda images: session.run(None, {nodes[0].name: images}), inputs, names, image_size)


def broken(path: Path, error: Exception) -> ValueError:
    """Make one sentence of a runtime's error."""
    lines = [line for line in str(error).splitlines() if not line.startswith(("Exception from", "Check '"))]
    return ValueError(
        f"{path} cannot be opened: the file, or that of its weights beside it (.bin, .data), is missing, cut short or "
        f"something else ({' '.join(' '.join(lines).split())[:300]})"
    )


def guarded(path: Path, infer: Callable, inputs: list, names: list[str], image_size: str) -> Model:
    """Give a model only what it takes, and its caller only an answer."""
    kind, sides = inputs[0] if len(inputs) == 1 else ("", [])
    fits = kind in ("f32", "tensor(float)") and len(sides) == 4 and sides[1] in (3, None) and "pred_score" in names
    require(fits, f"{path} is no exported anomaly model: it takes {inputs} and gives {names}")
    size = None if None in sides[2:] else tuple(sides[2:])

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        results = dict(zip(names, infer(as_images(images, size)), strict=True))
        for name in ("pred_score", "anomaly_map"):
            finite = np.isfinite(results.get(name, 0)).all()
            require(finite, f"the model's own answer has NaN or infinite values in {name}; --precision f32 may help")
        return results

    value = json.loads(image_size)
    return Model(run, size, None if value is None else tuple(value))


def as_images(images: np.ndarray, size: Size) -> np.ndarray:
    """Make single precision of images, or refuse them."""
    images = np.asarray(images)
    shape, kind = images.shape, images.dtype
    fits = (kind == np.uint8 or kind.kind == "f") and len(shape) == 4 and shape[1] == 3 and 0 not in shape
    require(fits, f"images must be uint8 or floating point of shape (N, 3, H, W), got {kind} of shape {shape}")
    require(size in (None, shape[2:]), f"images must have height and width {size}, as the model, got {shape[2:]}")
    if kind == np.uint8:
        return np.ascontiguousarray(images, np.float32) * EIGHT_BITS
    low, high = images.min(), images.max()
    fits = low >= -EXCESS and high <= 1 + EXCESS  # which NaN does not
    require(fits, f"images must have values in [0, 1], or of 8 bits as uint8, got {low:.6g} to {high:.6g}")
    images = np.ascontiguousarray(images, np.float32)
    return images if low >= 0 and high <= 1 else images.clip(0, 1)


def read(path: Path, model: Model) -> np.ndarray:
    """Read an image as the model takes it: values in [0, 1], shape ``(1, 3, H, W)``; the model does all the rest.

    Raises:
        ValueError: If the model would get another image than the file's, or another answer than the engine's.
    """
    with open_image(path) as image:
        possible = image.width * image.height <= max(LARGE, EMPTY * path.stat().st_size)
        require(possible, f"the file is too short for the {image.width} x {image.height} pixels that its header claims")
        check_readable(image)
        pixels = np.asarray(image.convert("RGB"), dtype=np.float32).transpose(2, 0, 1) * EIGHT_BITS
    size = pixels.shape[1:]
    if model.input_size not in (None, size):
        require(
            model.input_size == model.image_size,
            f"the image has {size[0]} x {size[1]} pixels, and the model takes {model.input_size} only, which is not "
            f"its own size ({model.image_size or 'unknown'}): export it without an input size, or with its own",
        )
        pixels = resize(pixels, model.input_size)
    return np.ascontiguousarray(pixels[None])


def open_image(path: Path) -> Image.Image:
    """Open an image file of any number of pixels."""
    require(not path.is_dir(), f"{path} is a folder: give the images in it")
    require(path.is_file(), f"there is no file {path}")
    with PILLOW:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def check_readable(image: Image.Image) -> None:
    """Refuse files of which the conversion to RGB, which Anomalib uses, makes another image."""
    transparent = "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La")
    codecs = [tile[3] if isinstance(tile[3], tuple) else (tile[3],) for tile in image.tile]
    wide = any(isinstance(name, str) and WIDE.fullmatch(name) for names in codecs for name in names)
    reason = None
    if getattr(image, "n_frames", 1) > 1:
        reason = f"{image.n_frames} pictures, of which one would be seen: save each as a file of its own"
    elif wide or image.mode.startswith(("I", "F")):
        reason = "more than 8 bits a value, which would be cut to 8: scale and save it with 8 bits"
    elif transparent and image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
        reason = "transparent pixels, and their hidden colours would be seen: save it as RGB without transparency"
    elif image.format != "TIFF" and image.getexif().get(ORIENTATION) not in (None, 0, 1):  # Pillow turns TIFF files
        reason = "an EXIF orientation, which would be ignored: save it upright"
    require(reason is None, f"the image (mode {image.mode}) has {reason}")


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
    try:
        model = open_model(args.model, args.device, args.precision or None)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(str(error))
    status = 0
    for path, target in zip(args.images, map_files(args.images, args.maps or Path()), strict=True):
        try:
            result = describe(path, model.run(read(path, model)), target if args.maps else None)
        except Exception as error:  # the others shall not suffer from one image
            reason = " ".join(str(error).split()) or type(error).__name__
            result, status = {"image": str(path), "error": reason}, 1
        print(json.dumps(result), flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())

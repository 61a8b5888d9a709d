# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Find anomalies in images with an exported model; needs numpy, Pillow and openvino or onnxruntime, nothing else.

    python infer.py model.xml part.png
    python infer.py model.onnx parts/*.png --device CUDAExecutionProvider --maps heat

prints a line of JSON for each image: its file, score, label and, with --maps, the file of its anomaly map.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Model = Callable[[np.ndarray], dict[str, np.ndarray]]
Size = tuple[int, int] | None


def open_openvino(path: Path, device: str, precision: str | None) -> tuple[Model, Size]:
    """Open a model in OpenVINO; also return the height and width that it is fixed to, if it is."""
    import openvino

    core = openvino.Core()
    family = device.partition(":")[0].partition(".")[0]
    if family != "AUTO" and not any(name.partition(".")[0] == family for name in core.available_devices):
        sys.exit(f"OpenVINO has no device {device} here; it has {', '.join(core.available_devices)}")
    compiled = core.compile_model(path, device, {"INFERENCE_PRECISION_HINT": precision} if precision else {})
    height, width = list(compiled.input(0).partial_shape)[2:]
    size = (height.get_length(), width.get_length()) if height.is_static and width.is_static else None
    names = [output.any_name for output in compiled.outputs]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        results = compiled(images)
        return {name: results[name] for name in names}

    return run, size


def open_onnxruntime(path: Path, provider: str) -> tuple[Model, Size]:
    """Open a model in ONNX Runtime; also return the height and width that it is fixed to, if it is."""
    import onnxruntime

    if provider not in onnxruntime.get_available_providers():
        sys.exit(f"ONNX Runtime has no {provider} here; it has {', '.join(onnxruntime.get_available_providers())}")
    session = onnxruntime.InferenceSession(str(path), providers=[provider])
    height, width = session.get_inputs()[0].shape[2:]
    size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    names = [output.name for output in session.get_outputs()]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(None, {session.get_inputs()[0].name: images}), strict=True))

    return run, size


def read(path: Path, size: Size) -> np.ndarray:
    """Read an image as the model takes it: values in [0, 1], shape ``(1, 3, H, W)``; the model does all the rest."""
    image = Image.open(path).convert("RGB")
    if size is not None:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.float32).transpose(2, 0, 1)[None] / 255


def describe(path: Path, predictions: dict[str, np.ndarray], maps: Path | None) -> dict[str, object]:
    """What is printed of an image; its anomaly map goes to a grey PNG, black for 0 and white for 1."""
    result: dict[str, object] = {"image": str(path), "score": round(float(predictions["pred_score"].ravel()[0]), 6)}
    if "pred_label" in predictions:
        result["anomalous"] = bool(predictions["pred_label"].ravel()[0])
    if maps is not None and "anomaly_map" in predictions:
        anomaly_map = predictions["anomaly_map"].reshape(predictions["anomaly_map"].shape[-2:])
        target = maps / f"{path.stem}.png"
        maps.mkdir(parents=True, exist_ok=True)
        Image.fromarray((anomaly_map.clip(0, 1) * 255).round().astype(np.uint8)).save(target)
        result["map"] = str(target)
    return result


def main() -> None:
    """Print a line of JSON for each image."""
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
        model, size = open_openvino(args.model, args.device or "CPU", args.precision or None)
    elif args.model.suffix == ".onnx":
        model, size = open_onnxruntime(args.model, args.device or "CPUExecutionProvider")
    else:
        parser.error(f"the model must be an .xml or .onnx file, got {args.model}")
    for path in args.images:
        print(json.dumps(describe(path, model(read(path, size)), args.maps)), flush=True)


if __name__ == "__main__":
    main()

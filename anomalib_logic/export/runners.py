# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""One way to run a model, whatever format it was exported to and whatever device it runs on."""

import functools
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.data import ImageBatch, InferenceBatch
from lightning.pytorch import Callback
from torch import nn

from .arrays import OUTPUTS, as_images, as_predictions
from .files import fit, read
from .images import Size
from .metadata import check_onnx, check_openvino, onnx_image_size, openvino_image_size, openvino_outputs

_CORE = threading.Lock()


class Runner(ABC):
    """A model that takes images and gives predictions, both as arrays; several threads may ask it at once.

    Attributes:
        device: Where it really runs, in the words of its runtime.
        input_size: Height and width in pixels that it is fixed to; ``None`` if it takes images of any size.
        image_size: Height and width to which the engine resizes images, where an exported file says it.
    """

    device: str
    input_size: Size | None = None
    image_size: Size | None = None

    def __call__(self, images: Any) -> dict[str, np.ndarray]:
        """Predict.

        Args:
            images: Array or tensor of shape ``(N, 3, H, W)``: floating point in [0, 1], or ``uint8``, which is divided
                by 255; see :func:`.arrays.as_images`.

        Returns:
            What the model has of ``pred_score`` and ``pred_label`` of shape ``(N,)``, ``anomaly_map`` and ``pred_mask``
            of shape ``(N, 1, H, W)``.

        Raises:
            ValueError: If the images have another type, range, shape or size, or the model's own answer has NaN.
        """
        return as_predictions(self._run(as_images(images, self.input_size)))

    @abstractmethod
    def _run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Give the model's outputs for images as :func:`.arrays.as_images` makes them."""

    def predict(self, path: str | Path) -> dict[str, np.ndarray]:
        """Predict an image file, as Anomalib's engine does.

        Args:
            path: The image file.

        Returns:
            As for a batch of one image.

        Raises:
            ValueError: If Anomalib would read another image than the file's, or the exported file is fixed to another
                size than the image's and the model's.
        """
        return self(fit(read(path), self.input_size, self.image_size))


class EngineRunner(Runner):
    """A model as Anomalib's engine runs it in ``predict``: with the hooks of its pre-processor and post-processor.

    Args:
        model: Anomalib model.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model.eval()
        self._device = _device_of(model)
        self.device = str(self._device)

    @torch.inference_mode()
    def _run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        batch = ImageBatch(image=torch.from_numpy(images).to(self._device))
        if isinstance(self.model.pre_processor, Callback):  # the engine runs no others
            self.model.pre_processor.on_predict_batch_start(None, self.model, batch, 0)
        batch = self.model.predict_step(batch, 0)
        if isinstance(self.model.post_processor, Callback):
            self.model.post_processor.on_predict_batch_end(None, self.model, batch, batch, 0)
        found = {name: getattr(batch, name) for name in OUTPUTS}
        return {name: value.cpu().numpy() for name, value in found.items() if value is not None}


class TorchRunner(Runner):
    """A torch model, or the file that ``to_torch`` wrote of one.

    Args:
        model: Anomalib model or path of a ``.pt`` file. Loading runs code from the file: only open what you trust.
        device: Device of torch; the model's own by default.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If torch cannot use the device, or the file is broken or holds no model.
    """

    def __init__(self, model: nn.Module | str | Path, device: str | None = None) -> None:
        if not isinstance(model, nn.Module):
            model = _load_torch(model)
        if device is not None:
            model = model.to(_torch_device(device))
        self.model = model.eval()
        self._device = _device_of(model)
        self.device = str(self._device)

    @torch.inference_mode()
    def _run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        predictions = self.model(torch.from_numpy(images).to(self._device))
        if not isinstance(predictions, InferenceBatch):
            msg = f"the model must give Anomalib's InferenceBatch, got {type(predictions).__name__}"
            raise ValueError(msg)
        return {name: value.cpu().numpy() for name, value in predictions._asdict().items() if value is not None}


class OnnxRunner(Runner):
    """An ONNX file in ONNX Runtime.

    Args:
        path: The ``.onnx`` file; its external data lies beside it.
        provider: Execution provider, such as ``"CPUExecutionProvider"`` or ``"CUDAExecutionProvider"``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If this installation of ONNX Runtime does not have the provider, it cannot start here, or the file
            is broken, lacks its weights or holds another model.
    """

    def __init__(self, path: str | Path, provider: str = "CPUExecutionProvider") -> None:
        import onnxruntime

        available = onnxruntime.get_available_providers()
        if provider not in available:
            msg = (
                f"provider must be one that this ONNX Runtime has, {available}, got '{provider}'; "
                "CUDAExecutionProvider needs the package onnxruntime-gpu instead of onnxruntime"
            )
            raise ValueError(msg)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # warnings are about the optimiser's own doings
        with _opening(path, "ONNX Runtime"):
            self.session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
        self.device = self.session.get_providers()[0]
        if self.device != provider:
            msg = f"'{provider}' could not start on this machine (ONNX Runtime took '{self.device}'): check its driver"
            raise ValueError(msg)
        self.image_size = onnx_image_size(self.session)
        self.input_size = check_onnx(path, self.session)
        self._input = self.session.get_inputs()[0].name
        self._names = [output.name for output in self.session.get_outputs()]

    def _run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self._names, self.session.run(None, {self._input: images}), strict=True))


def openvino_core() -> Any:
    """Return the one ``openvino.Core`` of this process, which stays.

    The CPU plug-in of a ``Core`` gives signal handlers another stack and, at its end, the previous one. Where several
    end in the order in which they began, the stack that is left exists no more (OpenVINO 2026.4): the next signal ends
    the process, for instance that of a data loader's worker that has finished.
    """
    with _CORE:
        return _make_core()


@functools.cache
def _make_core() -> Any:
    import openvino

    return openvino.Core()


class OpenVINORunner(Runner):
    """An OpenVINO or ONNX file in OpenVINO.

    Args:
        path: The ``.xml`` or ``.onnx`` file.
        device: ``"CPU"``, ``"GPU"``, ``"NPU"``, ``"AUTO"`` or a list of choice such as ``"AUTO:GPU,CPU"``.
        precision: What it computes in, ``"f32"``, ``"bf16"`` or ``"f16"``; ``None`` lets the device choose, and modern
            CPUs choose bf16.
        config: More of OpenVINO's properties.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the machine does not have the device, or the file is broken, lacks its weights or holds another
            model.
    """

    def __init__(
        self,
        path: str | Path,
        device: str = "CPU",
        precision: str | None = "f32",
        config: dict[str, Any] | None = None,
    ) -> None:
        core = openvino_core()
        check_openvino_device(device, core.available_devices)
        hints = {} if precision is None else {"INFERENCE_PRECISION_HINT": precision}
        with _opening(path, "OpenVINO"):
            model = core.read_model(str(path))
        self.image_size = openvino_image_size(model)
        self.input_size = check_openvino(path, model)
        self.compiled = core.compile_model(model, device, {**hints, **(config or {})})
        self._requests = threading.local()  # a call of ``compiled`` itself has one request for all threads
        used = self.compiled.get_property("EXECUTION_DEVICES")
        self.device = ",".join(used) if isinstance(used, list) else str(used)
        self._names = openvino_outputs(self.compiled)

    def _run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        if not hasattr(self._requests, "own"):
            self._requests.own = self.compiled.create_infer_request()
        results = self._requests.own.infer(images, share_inputs=True)  # the results are copies
        return {name: results[i] for i, name in enumerate(self._names)}


def open_exported(path: str | Path, device: str | None = None, precision: str | None = "f32") -> Runner:
    """Open an exported file in the runtime of its format.

    Args:
        path: A ``.pt``, ``.onnx`` or ``.xml`` file.
        device: Torch's or OpenVINO's device, or ONNX Runtime's execution provider; the CPU by default.
        precision: See :class:`OpenVINORunner`; ignored by the others.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is of another kind or broken, or the device is not there.
    """
    path = _existing(path)
    if path.suffix == ".pt":
        return TorchRunner(path, device or "cpu")
    if path.suffix == ".onnx":
        return OnnxRunner(path, device or "CPUExecutionProvider")
    if path.suffix == ".xml":
        return OpenVINORunner(path, device or "CPU", precision)
    msg = f"an exported file ends in .pt, .onnx or .xml, got {path.name}"
    raise ValueError(msg)


def check_openvino_device(device: str, available: list[str]) -> None:
    """Refuse a device of OpenVINO that the machine lacks.

    Args:
        device: See :class:`OpenVINORunner`.
        available: What OpenVINO found, such as ``["CPU", "GPU.0"]``.

    Raises:
        ValueError: If it is not among them; the message lists them.
    """
    scheduler, _, listed = device.partition(":")
    if scheduler in ("AUTO", "MULTI", "HETERO", "BATCH"):
        wanted = [name.partition("(")[0].strip(" -") for name in listed.split(",") if name.strip()]
    else:
        wanted = [device]
    missing = [w for w in wanted if not any(a == w or a.startswith(f"{w}.") for a in available)]
    if missing or not available:
        msg = (
            f"OpenVINO has no device {', '.join(missing) or 'at all'} on this machine (requested: '{device}'); it has "
            f"{', '.join(available) or 'none'}. GPU and NPU need Intel hardware with its driver"
        )
        raise ValueError(msg)


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        what = " (it is a folder: give the file in it)" if path.is_dir() else ""
        msg = f"there is no exported file {path}{what}"
        raise FileNotFoundError(msg)
    return path


@contextmanager
def _opening(path: str | Path, runtime: str) -> Iterator[None]:
    """Make one sentence of whatever a runtime raises for a file; each has its own classes."""
    path = _existing(path)
    try:
        with path.open("rb") as file:
            if path.suffix == ".xml" and b"<net" not in file.read(1000):
                msg = "it is not OpenVINO's XML"  # OpenVINO would try its other formats, and print their errors
                raise ValueError(msg)
        yield
    except Exception as error:
        lines = [line for line in str(error).splitlines() if not line.startswith(("Exception from", "Check '"))]
        reason = " ".join(" ".join(lines).split())[:300] or type(error).__name__
        msg = (
            f"{path} cannot be opened in {runtime}: the file, or that of its weights beside it (.bin, .data), is "
            f"missing, cut short or something else; copy or export both again ({reason})"
        )
        raise ValueError(msg) from error


def _load_torch(path: str | Path) -> nn.Module:
    """Load the model of a ``.pt`` file."""
    with _opening(path, "torch"):
        content = torch.load(path, map_location="cpu", weights_only=False)
        model = content.get("model") if isinstance(content, dict) else None
        if not isinstance(model, nn.Module):
            msg = "it holds no model as to_torch writes it"
            raise TypeError(msg)
        return model


def _device_of(model: nn.Module) -> torch.device:
    return next((t.device for t in [*model.parameters(), *model.buffers()]), torch.device("cpu"))


def _torch_device(device: str) -> torch.device:
    wanted = torch.device(device)
    if wanted.type == "cuda" and not torch.cuda.is_available():
        msg = f"torch has no device '{device}' on this machine; it has cpu"
        raise ValueError(msg)
    return wanted

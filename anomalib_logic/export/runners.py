# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""One way to run a model, whatever format it was exported to and whatever device it runs on."""

import functools
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.data import ImageBatch
from lightning.pytorch import Callback
from torch import nn

from .files import fit, read
from .images import Size
from .metadata import onnx_image_size, onnx_input_size, openvino_image_size, openvino_input_size

OUTPUTS = ("pred_score", "pred_label", "anomaly_map", "pred_mask")


class Runner(ABC):
    """A model that takes images and gives predictions, both as arrays.

    Attributes:
        device: Where it really runs, in the words of its runtime.
        input_size: Height and width in pixels that it is fixed to; ``None`` if it takes images of any size.
        image_size: Height and width to which the engine resizes images, where an exported file says it.
    """

    device: str
    input_size: Size | None = None
    image_size: Size | None = None

    @abstractmethod
    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Predict.

        Args:
            images: Values in [0, 1], single precision, shape ``(N, 3, H, W)``.

        Returns:
            What the model has of ``pred_score`` and ``pred_label`` of shape ``(N,)``, ``anomaly_map`` and ``pred_mask``
            of shape ``(N, 1, H, W)``.
        """

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
    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """See :meth:`Runner.__call__`."""
        batch = ImageBatch(image=torch.from_numpy(images).to(self._device))
        if isinstance(self.model.pre_processor, Callback):  # the engine runs no others
            self.model.pre_processor.on_predict_batch_start(None, self.model, batch, 0)
        batch = self.model.predict_step(batch, 0)
        if isinstance(self.model.post_processor, Callback):
            self.model.post_processor.on_predict_batch_end(None, self.model, batch, batch, 0)
        found = {name: getattr(batch, name) for name in OUTPUTS}
        return _in_shape({name: value.cpu().numpy() for name, value in found.items() if value is not None})


class TorchRunner(Runner):
    """A torch model, or the file that ``to_torch`` wrote of one.

    Args:
        model: Anomalib model or path of a ``.pt`` file. Loading runs code from the file: only open what you trust.
        device: Device of torch; the model's own by default.

    Raises:
        ValueError: If torch cannot use the device.
    """

    def __init__(self, model: nn.Module | str | Path, device: str | None = None) -> None:
        if not isinstance(model, nn.Module):
            model = torch.load(model, map_location="cpu", weights_only=False)["model"]
        if device is not None:
            model = model.to(_torch_device(device))
        self.model = model.eval()
        self._device = _device_of(model)
        self.device = str(self._device)

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """See :meth:`Runner.__call__`."""
        predictions = self.model(torch.from_numpy(images).to(self._device))._asdict()
        return _in_shape({name: value.cpu().numpy() for name, value in predictions.items() if value is not None})


class OnnxRunner(Runner):
    """An ONNX file in ONNX Runtime.

    Args:
        path: The ``.onnx`` file; its external data lies beside it.
        provider: Execution provider, such as ``"CPUExecutionProvider"`` or ``"CUDAExecutionProvider"``.

    Raises:
        ValueError: If this installation of ONNX Runtime does not have the provider, or it cannot start here.
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
        self.session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
        self.device = self.session.get_providers()[0]
        if self.device != provider:
            msg = f"'{provider}' could not start on this machine (ONNX Runtime took '{self.device}'): check its driver"
            raise ValueError(msg)
        self.image_size = onnx_image_size(self.session)
        self.input_size = onnx_input_size(self.session)
        self._input = self.session.get_inputs()[0].name
        self._names = [output.name for output in self.session.get_outputs()]

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """See :meth:`Runner.__call__`."""
        return _in_shape(dict(zip(self._names, self.session.run(None, {self._input: images}), strict=True)))


@functools.cache
def openvino_core() -> Any:
    """Return the one ``openvino.Core`` of this process, which stays.

    The CPU plug-in of a ``Core`` gives signal handlers another stack and, at its end, the previous one. Where several
    end in the order in which they began, the stack that is left exists no more (OpenVINO 2026.4): the next signal ends
    the process, for instance that of a data loader's worker that has finished.
    """
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
        ValueError: If the machine does not have the device.
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
        model = core.read_model(str(path))
        self.image_size = openvino_image_size(model)
        self.input_size = openvino_input_size(model)
        self.compiled = core.compile_model(model, device, {**hints, **(config or {})})
        used = self.compiled.get_property("EXECUTION_DEVICES")
        self.device = ",".join(used) if isinstance(used, list) else str(used)
        self._names = [output.any_name for output in self.compiled.outputs]

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """See :meth:`Runner.__call__`."""
        results = self.compiled(images)
        return _in_shape({name: results[name] for name in self._names})


def open_exported(path: str | Path, device: str | None = None, precision: str | None = "f32") -> Runner:
    """Open an exported file in the runtime of its format.

    Args:
        path: A ``.pt``, ``.onnx`` or ``.xml`` file.
        device: Torch's or OpenVINO's device, or ONNX Runtime's execution provider; the CPU by default.
        precision: See :class:`OpenVINORunner`; ignored by the others.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is of another kind, or the device is not there.
    """
    path = Path(path)
    if not path.is_file():
        msg = f"there is no exported file {path}"
        raise FileNotFoundError(msg)
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


def _device_of(model: nn.Module) -> torch.device:
    return next((t.device for t in [*model.parameters(), *model.buffers()]), torch.device("cpu"))


def _torch_device(device: str) -> torch.device:
    wanted = torch.device(device)
    if wanted.type == "cuda" and not torch.cuda.is_available():
        msg = f"torch has no device '{device}' on this machine; it has cpu"
        raise ValueError(msg)
    return wanted


def _in_shape(predictions: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Known outputs only; scores and labels as vectors, maps and masks with one channel."""
    known = {name: np.asarray(predictions[name]) for name in OUTPUTS if name in predictions}
    return {
        name: value.reshape(-1) if name in ("pred_score", "pred_label") else value.reshape(-1, 1, *value.shape[-2:])
        for name, value in known.items()
    }

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Anomalib's export, with verification of what it wrote and int8 quantisation that works with its data modules."""

import logging
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from anomalib.data import AnomalibDataModule
from anomalib.deploy import CompressionType
from torchmetrics import Metric

from anomalib_logic._host import BeforeAnomalibModule

from .files import replacing
from .graph import simplify
from .images import NamedImage, Size, from_bytes, from_datamodule, generate, sizes_around, to_bytes
from .logs import quiet
from .metadata import write_image_size
from .quantization import check_datamodule, compress_weights, quantize
from .runners import EngineRunner, Runner, open_exported
from .verification import FULL_PRECISION, ExportVerificationError, file_size, image_auroc, verify

logger = logging.getLogger(__name__)

SWITCH = "ANOMALIB_LOGIC_VERIFY_EXPORT"
KEEP_IMAGES = "ANOMALIB_LOGIC_KEEP_IMAGES"
STORED = "verification_images"  # in checkpoints
OPSET = 18  # the lowest that torch's exporter writes without converting
QUANTIZED = (CompressionType.INT8_PTQ, CompressionType.INT8_ACQ)
RUNTIMES = {".onnx": "onnxruntime", ".xml": "openvino"}


class VerifiedExport(BeforeAnomalibModule):
    """Verify each export on a few images; to inherit from before ``AnomalibModule``.

    Each image goes through Anomalib's engine (the pre-processor's transform, the model, the post-processor), and at its
    own size through the exported file alone. Images are the files of the data module that is given, or of the one that
    the model was trained with in this process; else those that the checkpoint keeps; else generated ones of several
    sizes. ``verify=False`` or the environment variable ``ANOMALIB_LOGIC_VERIFY_EXPORT=0`` switches verification off.

    A checkpoint keeps images only if the environment variable ``ANOMALIB_LOGIC_KEEP_IMAGES`` says how many, made small.
    """

    _verification_images: dict[str, torch.Tensor] = {}

    @property
    def engine_size(self) -> Size | None:
        """Height and width to which the engine resizes an image before anything else, if it does."""
        return None

    def check_exportable(self) -> None:
        """Refuse what a graph cannot compute as the engine does; for subclasses."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep a few images to verify exports with, if the environment variable says so."""
        super().on_save_checkpoint(checkpoint)
        number, datamodule = _images_to_keep(), self._own_datamodule()
        if number == 0:
            return
        try:
            if datamodule is not None:
                self._verification_images = to_bytes(from_datamodule(datamodule, number))
        except Exception:  # whatever is wrong with an image: the training is worth more than its verification
            logger.warning("the checkpoint keeps no images: they could not be read", exc_info=True)
        checkpoint[STORED] = self._verification_images

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the images to verify exports with."""
        super().on_load_checkpoint(checkpoint)
        self._verification_images = checkpoint.get(STORED, {})

    def __getstate__(self) -> dict[str, Any]:
        """What pickles and exported ``.pt`` files have of the model: everything but images."""
        return {key: value for key, value in super().__getstate__().items() if key != "_verification_images"}

    def to_torch(
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        verify: bool = True,
        datamodule: AnomalibDataModule | None = None,
    ) -> Path:
        """Export as Anomalib does and verify the file.

        Args:
            export_root: Output folder.
            model_file_name: Name of the file without suffix.
            verify: Compare the file's predictions with the model's.
            datamodule: Data module whose images are used.

        Raises:
            ExportVerificationError: If the file's predictions are others.
        """
        with replacing(export_root) as folder:
            written = super().to_torch(folder, model_file_name)
        path = Path(export_root) / written.relative_to(folder)
        self._report(path, verify, datamodule)
        return path

    def to_onnx(
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        verify: bool | None = True,
        datamodule: AnomalibDataModule | None = None,
        **kwargs: Any,
    ) -> Path:
        """Export as Anomalib does, simplify the graph, see :func:`.graph.simplify`, and verify the file.

        Args:
            export_root: Output folder.
            model_file_name: Name of the file without suffix.
            input_size: Height and width of the images in pixels; any by default.
            verify: Compare the file's predictions with the model's (in place of ``torch.onnx.export``'s argument).
                ``None`` says nothing of the file at all.
            datamodule: Data module whose images are used.
            **kwargs: See Anomalib's method.

        Raises:
            ExportVerificationError: If the file's predictions are others.
            ValueError: If a graph cannot compute the pre-processing.
        """
        self.check_exportable()
        kwargs = {"opset_version": OPSET, "optimize": False, **kwargs}
        with replacing(export_root) as folder:
            with torch.no_grad(), quiet("onnx_ir", "onnxscript"):
                written = super().to_onnx(folder, model_file_name, input_size, **kwargs)
                simplify(written)
            write_image_size(written, self.engine_size)
        path = Path(export_root) / written.relative_to(folder)
        self._report(path, verify, datamodule, input_size)
        return path

    def to_openvino(
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        compression_type: CompressionType | None = None,
        datamodule: AnomalibDataModule | None = None,
        metric: Metric | None = None,
        task: Any = None,
        max_drop: float = 0.01,
        ov_kwargs: dict[str, Any] | None = None,
        onnx_kwargs: dict[str, Any] | None = None,
        verify: bool = True,
    ) -> Path:
        """Export as Anomalib does and verify the file.

        Args:
            export_root: Output folder.
            model_file_name: Name of the file without suffix.
            input_size: Height and width of the images in pixels; any by default.
            compression_type: ``"fp16"``, ``"int8"``, ``"int8_ptq"`` or ``"int8_acq"``. Compressed files are measured,
                not held to a tolerance; with a data module their image AUROC is compared with the model's.
            datamodule: Data module to calibrate, evaluate and verify with.
            metric: Quality that ``"int8_acq"`` must keep.
            task: See Anomalib's method.
            max_drop: How much of ``metric`` may be lost.
            ov_kwargs: Arguments of OpenVINO's converter.
            onnx_kwargs: Arguments of :meth:`to_onnx`; its ``verify`` is this method's, too.
            verify: Compare the file's predictions with the model's.

        Raises:
            ExportVerificationError: If the file's predictions are others.
            ValueError: If quantisation lacks images, or a graph cannot compute the pre-processing.
        """
        onnx_kwargs = dict(onnx_kwargs or {})
        if compression_type in QUANTIZED:
            check_datamodule(datamodule)
        verify = onnx_kwargs.pop("verify", True) and verify
        datamodule = onnx_kwargs.pop("datamodule", None) or datamodule
        with replacing(export_root) as folder:
            written = super().to_openvino(
                folder,
                model_file_name,
                input_size,
                compression_type,
                datamodule,
                metric,
                task,
                max_drop,
                ov_kwargs,
                {**onnx_kwargs, "verify": None},
            )
        path = Path(export_root) / written.relative_to(folder)
        self._report(path, verify, datamodule, input_size, compression_type)
        return path

    def _compress_ov_model(
        self,
        model: Any,
        compression_type: CompressionType | None = None,
        datamodule: AnomalibDataModule | None = None,
        metric: Metric | None = None,
        task: Any = None,
        max_drop: float = 0.01,
    ) -> Any:
        """Compress the layers with weights only, see :mod:`.quantization`."""
        if compression_type == CompressionType.INT8:
            return compress_weights(model, self)
        if compression_type in QUANTIZED:
            control = compression_type == CompressionType.INT8_ACQ
            return quantize(model, self, datamodule, metric if control else None, max_drop)
        return super()._compress_ov_model(model, compression_type, datamodule, metric, task, max_drop)

    def _own_datamodule(self) -> AnomalibDataModule | None:
        datamodule = getattr(getattr(self, "_trainer", None), "datamodule", None)
        return datamodule if isinstance(datamodule, AnomalibDataModule) else None

    def _warn_without_limits(self, path: Path) -> None:
        """Warn if no validation has set the limits and threshold of the scores."""
        post_processor: Any = self.post_processor
        if getattr(post_processor, "enable_normalization", False) and post_processor.image_min.isnan():
            logger.warning(
                "%s: this model was never trained or never validated: scores are not normalised to [0, 1], and labels "
                "and masks mean nothing. Train or validate it with a data module that has validation images, then "
                "export",
                path,
            )

    def _images_to_verify_with(self, datamodule: AnomalibDataModule | None, size: Size | None) -> list[NamedImage]:
        datamodule = datamodule or self._own_datamodule()
        if datamodule is not None:
            return from_datamodule(datamodule)
        if self._verification_images:
            return from_bytes(self._verification_images)
        logger.info("verifying with generated images: neither a data module nor the checkpoint has real ones")
        return generate(sizes_around(self.engine_size) if size is None else [size] * 3)

    def _verified_size(self, input_size: Size | None) -> Size | None:
        """The only size of images that a file takes, or that a model takes which does not resize them."""
        own = self.hparams.get("image_size")
        return input_size or (tuple(own) if own is not None and self.input_size is None else None)

    def _report(
        self,
        path: Path,
        verify_file: bool | None,
        datamodule: AnomalibDataModule | None,
        input_size: Size | None = None,
        compression_type: CompressionType | None = None,
    ) -> None:
        """Log the file's size and how it differs from the model; raise if that is too much.

        ``verify_file``: ``None`` is for a file on the way to another one, of which nothing is said.
        """
        if verify_file is None:
            return
        self._warn_without_limits(path)
        logger.info("%s: %.1f MB", path, file_size(path) / 1e6)
        if not verify_file or os.environ.get(SWITCH, "1").lower() in ("0", "false", "no"):
            return
        runtime = RUNTIMES.get(path.suffix)
        if runtime is not None and find_spec(runtime) is None:
            logger.warning("%s was not verified: pip install %s, or set %s=0", path, runtime, SWITCH)
            return
        size = self._verified_size(input_size)
        images = self._images_to_verify_with(datamodule, size)
        reference, exported = EngineRunner(self), _open(path)
        self._verify(path, reference, exported, images, size, compression_type)
        if compression_type is not None and datamodule is not None:
            result = image_auroc([reference, exported], datamodule, size)
            if result is not None:
                (before, after), number = result
                logger.info(
                    "image AUROC on %d test images: %.4f in the engine, %.4f in the file", number, before, after
                )

    @staticmethod
    def _verify(
        path: Path,
        reference: Runner,
        exported: Runner,
        images: list[NamedImage],
        size: Size | None,
        compression_type: CompressionType | None,
    ) -> None:
        """Compare a file with the engine and log the differences, see :func:`.verification.verify`."""
        if size is not None and any(image.size != size for image in images):
            logger.info("the images are resized to %d x %d, which is all that the file takes, before both", *size)
        try:
            rows = verify(reference, exported, images, FULL_PRECISION if compression_type is None else None, size=size)
        except ExportVerificationError as error:
            msg = (
                f"{path} in {exported.device} does not predict what the engine predicts: {error}. The file stays where "
                f"it is; do not use it before you know why. {SWITCH}=0 switches this check off"
            )
            raise ExportVerificationError(msg) from error
        for row in rows:
            logger.info(
                "%s, batch %d: largest difference from the engine %.1e of the score, %.1e of the map's range",
                exported.device,
                *row[:3],
            )
        if all(row.clamped for row in rows):
            logger.info("the score of every image is 0 or 1, its limits: small differences of scores would not show")


def _images_to_keep() -> int:
    """How many images a checkpoint keeps, by the user's environment."""
    text = os.environ.get(KEEP_IMAGES, "0")
    if not text.isdecimal():
        logger.warning("%s must be a number of images, such as 3, got '%s': checkpoints keep none", KEEP_IMAGES, text)
        return 0
    return int(text)


def _open(path: Path) -> Runner:
    """Open a file that was just written."""
    try:
        return open_exported(path)
    except Exception as error:  # each runtime has its own
        reason = " ".join(str(error).split())
        msg = f"{path} was written, but its runtime cannot open it: {reason}. {SWITCH}=0 switches this check off"
        raise ExportVerificationError(msg) from error

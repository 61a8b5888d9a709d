# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Quantisation to int8 by NNCF, calibrated with a data module."""

import logging
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from anomalib.data import AnomalibDataModule, ImageBatch
from torch import nn
from torchmetrics import Metric

from .graph import module_of
from .images import as_batch, splits_of, spread
from .logs import quiet
from .metadata import openvino_input_size
from .verification import EVALUATED_IMAGES

logger = logging.getLogger(__name__)

CALIBRATION_IMAGES = 300  # NNCF's default
NO_OPERATION = ("Constant", "Parameter", "Result", "ShapeOf", "Convert")


def quantize(
    model: Any,
    module: nn.Module,
    datamodule: AnomalibDataModule | None,
    metric: Metric | None = None,
    max_drop: float = 0.01,
) -> Any:
    """Quantise the layers with weights; everything else stays in floating point.

    Distances, matching, normalisation and thresholds are differences of like numbers, for which 256 steps are too
    coarse. So only convolutions and linear layers compute in int8.

    Args:
        model: Model of OpenVINO whose operations are named by :func:`.graph.simplify`.
        module: The torch model that it comes from.
        datamodule: Calibration uses its validation and training images, evaluation its test images.
        metric: Metric of Anomalib that must not drop; higher is better. Without, accuracy is not controlled.
        max_drop: How much it may drop at most.

    Returns:
        The quantised model.

    Raises:
        ValueError: If there is no data module, it lacks the images, or no layer is found in the graph.
    """
    import nncf

    datamodule = check_datamodule(datamodule)
    size = openvino_input_size(model)
    images = spread(splits_of(datamodule, "val") + splits_of(datamodule, "train"), CALIBRATION_IMAGES)
    calibration = [as_batch([image], size) for image in images]
    if not calibration:
        msg = f"the data module {type(datamodule).__name__} has no validation or training images to calibrate with"
        raise ValueError(msg)
    quantized, kept = layers_to_quantize(model, module)
    logger.info(
        "int8: %d convolutions and linear layers; in floating point: %d other operations", len(quantized), len(kept)
    )
    arguments = {
        "calibration_dataset": nncf.Dataset(calibration),
        "ignored_scope": nncf.IgnoredScope(names=kept, validate=False),
        "subset_size": len(calibration),
    }
    if metric is None:
        with quiet("nncf"):
            return nncf.quantize(model, **arguments)
    return nncf.quantize_with_accuracy_control(
        model,
        validation_dataset=nncf.Dataset(_labelled_batches(datamodule, size)),
        validation_fn=lambda compiled, batches: _evaluate(compiled, batches, metric),
        max_drop=max_drop,
        **arguments,
    )


def compress_weights(model: Any, module: nn.Module) -> Any:
    """Keep the weights of convolutions and linear layers in int8; a bank, clusters and statistics stay as they are.

    Args:
        model: Model of OpenVINO whose operations are named by :func:`.graph.simplify`.
        module: The torch model that it comes from.

    Returns:
        The model with compressed weights, which are decompressed to compute with.

    Raises:
        ValueError: If no layer is found in the graph.
    """
    import nncf

    _, kept = layers_to_quantize(model, module)
    with quiet("nncf"):
        return nncf.compress_weights(model, ignored_scope=nncf.IgnoredScope(names=kept, validate=False))


def check_datamodule(datamodule: AnomalibDataModule | None) -> AnomalibDataModule:
    """Refuse to quantise without a data module.

    Raises:
        ValueError: If there is none.
    """
    if datamodule is None:
        msg = "int8_ptq and int8_acq need images to calibrate with: give a data module (--data on the command line)"
        raise ValueError(msg)
    return datamodule


def layers_to_quantize(model: Any, module: nn.Module) -> tuple[list[str], list[str]]:
    """Names of the operations that compute in int8, and of all others.

    Args:
        model: Model of OpenVINO.
        module: The torch model that it comes from.

    Raises:
        ValueError: If no operation computes in int8.
    """
    modules: dict[str | None, nn.Module] = {name: part for name, part in module.named_modules() if name}
    quantized: list[str] = []
    kept: list[str] = []
    for operation in model.get_ops():
        kind, name = operation.get_type_name(), operation.get_friendly_name()
        if kind in NO_OPERATION:
            continue
        source = modules.get(module_of(name))
        convolution = "Convolution" in kind and source is not None and any(True for _ in source.parameters())
        linear = kind == "MatMul" and isinstance(source, nn.Linear)
        (quantized if convolution or linear else kept).append(name)
    if not quantized:
        msg = (
            f"there is nothing to quantise: none of the graph's {len(kept)} operations is a convolution or a linear "
            f"layer of {type(module).__name__}. They are found by names that begin with the torch module's, which this "
            "package's export writes"
        )
        raise ValueError(msg)
    return quantized, kept


def _labelled_batches(datamodule: AnomalibDataModule, size: tuple[int, int] | None) -> list[ImageBatch]:
    images = [i for i in spread(splits_of(datamodule, "test"), EVALUATED_IMAGES) if i.anomalous is not None]
    if len({image.anomalous for image in images}) < 2:
        msg = "int8_acq needs normal and anomalous test images to see what quantisation costs; int8_ptq does not"
        raise ValueError(msg)
    return [
        ImageBatch(image=torch.from_numpy(as_batch([image], size)), gt_label=torch.tensor([image.anomalous]))
        for image in images
    ]


def _evaluate(compiled: Any, batches: Iterable[ImageBatch], metric: Metric) -> float:
    """Value of an image metric of Anomalib for a compiled model."""
    metric.reset()
    for batch in batches:
        predictions = compiled(batch.image.numpy())
        metric.update(
            ImageBatch(
                image=batch.image,
                gt_label=batch.gt_label,
                **{
                    name: torch.from_numpy(np.array(predictions[name])).reshape(1)
                    for name in ("pred_score", "pred_label")
                },
            )
        )
    return float(metric.compute())

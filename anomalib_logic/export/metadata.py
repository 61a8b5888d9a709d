# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What an exported file says of the sizes of images."""

import json
from pathlib import Path
from typing import Any

from .images import Size

IMAGE_SIZE = "anomalib_logic.image_size"
SINGLE = ("tensor(float)", "f32")  # single precision in the words of ONNX Runtime and of OpenVINO
ONNX_METADATA = "framework"  # where OpenVINO's conversion puts what it finds in an ONNX file


def write_image_size(path: Path, size: Size | None) -> None:
    """Write the size into an ONNX file; OpenVINO's conversion keeps it.

    Args:
        path: The ``.onnx`` file.
        size: Height and width in pixels; ``None`` writes nothing.
    """
    if size is None:
        return
    import onnx

    model = onnx.load(path, load_external_data=False)
    onnx.helper.set_model_props(model, {**{p.key: p.value for p in model.metadata_props}, IMAGE_SIZE: json.dumps(size)})
    onnx.save(model, path)


def onnx_image_size(session: Any) -> Size | None:
    """Read the size from a session of ONNX Runtime; ``None`` if the file has none."""
    return _parse(session.get_modelmeta().custom_metadata_map.get(IMAGE_SIZE))


def openvino_image_size(model: Any) -> Size | None:
    """Read the size from a model of OpenVINO; ``None`` if the file has none."""
    place = [ONNX_METADATA, IMAGE_SIZE]
    return _parse(model.get_rt_info(place).astype(str) if model.has_rt_info(place) else None)


def _parse(text: str | None) -> Size | None:
    return None if text is None else tuple(json.loads(text))


def openvino_input_size(model: Any) -> Size | None:
    """Height and width that a model of OpenVINO is fixed to; ``None`` if it takes any."""
    height, width = list(model.input(0).partial_shape)[2:]
    return (height.get_length(), width.get_length()) if height.is_static and width.is_static else None


def openvino_outputs(model: Any) -> list[str]:
    """Names of a model's outputs in OpenVINO, in their order; those without a name are ``""``."""
    return [output.any_name if output.names else "" for output in model.outputs]


def check_onnx(path: str | Path, session: Any) -> Size | None:
    """Refuse a model of something else in ONNX Runtime, see :func:`_check`."""
    inputs = [
        (node.type, [side if isinstance(side, int) else None for side in node.shape or []])
        for node in session.get_inputs()
    ]
    return _check(path, inputs, [node.name for node in session.get_outputs()])


def check_openvino(path: str | Path, model: Any) -> Size | None:
    """Refuse a model of something else in OpenVINO, see :func:`_check`."""
    inputs = []
    for node in model.inputs:
        shape = node.partial_shape
        sides = [] if shape.rank.is_dynamic else [side.get_length() if side.is_static else None for side in shape]
        inputs.append((node.element_type.get_type_name(), sides))
    return _check(path, inputs, openvino_outputs(model))


def _check(path: str | Path, inputs: list[tuple[str, list[int | None]]], outputs: list[str]) -> Size | None:
    """Refuse a model that does not take images or has no score.

    Args:
        path: File, for the message.
        inputs: Type and sides of each input, ``None`` for sides that may have any length.
        outputs: Names.

    Returns:
        Height and width that the model is fixed to; ``None`` if it takes any.

    Raises:
        ValueError: If the model has other inputs, or no output ``pred_score``.
    """
    kind, sides = inputs[0] if len(inputs) == 1 else ("", [])
    if kind not in SINGLE or len(sides) != 4 or sides[1] not in (3, None) or "pred_score" not in outputs:
        msg = (
            f"{path} is no exported anomaly model: it takes {inputs} and gives {outputs}, instead of one input of "
            "single precision and shape (N, 3, H, W) and an output 'pred_score'; anomalib export writes such files"
        )
        raise ValueError(msg)
    _, _, height, width = sides
    return None if height is None or width is None else (height, width)

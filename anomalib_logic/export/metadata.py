# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What an exported file says of the sizes of images."""

import json
from pathlib import Path
from typing import Any

from .images import Size

IMAGE_SIZE = "anomalib_logic.image_size"
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


def onnx_input_size(session: Any) -> Size | None:
    """Height and width that a session of ONNX Runtime is fixed to; ``None`` if it takes any."""
    height, width = session.get_inputs()[0].shape[2:]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def openvino_input_size(model: Any) -> Size | None:
    """Height and width that a model of OpenVINO is fixed to; ``None`` if it takes any."""
    height, width = list(model.input(0).partial_shape)[2:]
    return (height.get_length(), width.get_length()) if height.is_static and width.is_static else None

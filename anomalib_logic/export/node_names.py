# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Names of an ONNX file's nodes: the torch modules that they come from, for viewers, profilers and quantisation."""

import ast
from pathlib import Path

SCOPES = "pkg.torch.onnx.name_scopes"


def name_nodes_by_module(path: Path) -> None:
    """Put the module in front of each node's name, ``model.backbone.layer1.0.conv1/node_conv2d_2``.

    The file's weights are not touched.

    Args:
        path: File that ``torch.onnx.export`` wrote.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        scopes = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), None)
        if scopes is not None:
            node.name = f"{'.'.join(ast.literal_eval(scopes)[-2:-1])}/{node.name}"
    onnx.save(model, path)


def module_of(name: str) -> str | None:
    """Path of the module in a node's name, or ``None`` if there is none."""
    module, slash, _ = name.partition("/")
    return module if slash else None

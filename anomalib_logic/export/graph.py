# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What is done to an ONNX graph that torch exported: folding of constants, and names of nodes."""

import ast
from pathlib import Path

SCOPES = "pkg.torch.onnx.name_scopes"


def simplify(path: Path) -> None:
    """Fold constants, merge equal nodes, and name each node after its module and not after lines of source files.

    The names are those of torch modules, ``model.backbone.layer1.0.conv1/node_conv2d_2``, for viewers, profilers and
    quantisation. The exporter's own ``optimize`` also rewrites patterns of nodes, as runtimes do when they load a file;
    on the graph of SAM-LAD this takes longer than the rest of the export.

    Args:
        path: File that ``torch.onnx.export`` wrote; its weights may lie beside it in a file with ``.data`` in addition.
    """
    import onnx_ir
    from onnx_ir.passes import Sequential, common
    from onnxscript.optimizer import fold_constants_ir

    model = onnx_ir.load(path)
    for node in model.graph:
        if SCOPES in node.metadata_props:
            node.name = f"{'.'.join(ast.literal_eval(node.metadata_props[SCOPES])[-2:-1])}/{node.name}"
    fold_constants_ir(model)
    Sequential(
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.NameFixPass(),
        common.ClearMetadataAndDocStringPass(),
    )(model)
    weights = path.with_name(f"{path.name}.data")
    onnx_ir.save(model, path, external_data=weights.name if weights.exists() else None)


def module_of(name: str) -> str | None:
    """Path of the module in a node's name, or ``None`` if there is none."""
    module, slash, _ = name.partition("/")
    return module if slash else None

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch
from torch import nn

from anomalib_logic.export.graph import module_of, simplify

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


class Network(nn.Module):
    """Two named modules, and constants that need not be computed each time."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.second = nn.Conv2d(8, 2, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        ramp = torch.linspace(0, 1, 5).reshape(-1, 1).square().sum()
        twice = self.second(self.first(image)) + self.second(self.first(image))
        return twice * ramp.expand(image.shape[0], 1, 1, 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The graph as torch writes it, and what was made of it; the weights lie in a file beside them."""
    folder = tmp_path_factory.mktemp("graph")
    network = Network().eval()
    sides = {2: torch.export.Dim("height", min=8), 3: torch.export.Dim("width", min=8)}
    shapes = ({0: torch.export.Dim("batch"), **sides},)
    example = (torch.rand(2, 3, 16, 12),)
    program = torch.onnx.export(network, example, dynamo=True, dynamic_shapes=shapes, optimize=False, verbose=False)
    for name in ("written.onnx", "simple.onnx"):
        program.save(folder / name, external_data=True)
    simplify(folder / "simple.onnx")
    return network, folder / "written.onnx", folder / "simple.onnx"


def operations(path) -> list:
    return list(onnx.load(path, load_external_data=False).graph.node)


def test_result_is_that_of_the_network_for_images_of_other_sizes(files):
    network, _, simple = files
    session = onnxruntime.InferenceSession(simple, providers=["CPUExecutionProvider"])
    for shape in ((1, 3, 16, 12), (3, 3, 9, 31)):
        image = torch.rand(shape)
        (result,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
        np.testing.assert_allclose(result, network(image).detach().numpy(), atol=1e-6)


def test_what_is_constant_or_the_same_is_computed_once(files):
    _, written, simple = files
    kinds = [[node.op_type for node in operations(path)] for path in (written, simple)]
    assert [one.count("Conv") for one in kinds] == [4, 2]
    assert "Constant" in kinds[0]
    assert not {"Constant", "Range", "ReduceSum"} & set(kinds[1])


def test_nodes_are_named_after_modules(files):
    names = [node.name for node in operations(files[2])]
    assert [module_of(node.name) for node in operations(files[2]) if node.op_type == "Conv"] == ["first", "second"]
    assert len(set(names)) == len(names)


def test_file_says_nothing_of_source_files(files):
    _, written, simple = files
    assert __file__.encode() in written.read_bytes()
    assert b".py" not in simple.read_bytes()

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""An image file has one answer, whichever way it is predicted."""

import numpy as np
import pytest

from anomalib_logic import Glcf
from anomalib_logic.export import open_exported
from anomalib_logic.export.verification import FULL_PRECISION
from benchmarks import same_answer

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

OWN = (64, 96)
SIZES = [OWN, (40, 60), (100, 100), (200, 50), (300, 400), (1200, 1600)]
OF_COMMANDS = ("TorchInferencer", "OpenVINOInferencer", "TorchRunner", "OpenVINORunner", "infer.py")


def assert_same(expected, found, way):
    step = 1 / 255 if way.startswith("infer.py") else 0  # its maps are PNG files
    values = np.concatenate([answer["anomaly_map"].ravel() for answer in expected.values()])
    for name, difference in same_answer.differences(expected, found).items():
        assert difference.score <= FULL_PRECISION.score, name
        assert difference.anomaly_map <= FULL_PRECISION.anomaly_map + step / 2 / np.ptp(values), name
        assert difference.decisions == 0, name


@pytest.fixture(scope="module")
def by_commands(trained, exports, tmp_path_factory):
    """What the commands trained and exported for images of any size, files, and the engine's answers."""
    root = tmp_path_factory.mktemp("commands")
    checkpoint, openvino = trained / "model.ckpt", exports / "weights/openvino/model.xml"
    torch_file = Glcf.load_from_checkpoint(checkpoint).to_torch(root, verify=False)
    subject = same_answer.Subject("Glcf", {}, checkpoint, torch_file, None, openvino, None, root / "written")
    subject.folder.mkdir()
    files = same_answer.write_images(root / "images", SIZES)
    return subject, files, same_answer.engine(subject, files)


@pytest.mark.parametrize("way", OF_COMMANDS)
def test_file_has_the_engines_answer_from_what_the_commands_exported(by_commands, way):
    subject, files, expected = by_commands
    assert_same(expected, same_answer.WAYS[way](subject, files), way)


@pytest.fixture(scope="module", params=same_answer.MODELS)
def asked(request, tmp_path_factory):
    """A trained model with its exports, files of all sizes, and the engine's answers."""
    root = tmp_path_factory.mktemp("same")
    subject = same_answer.train(request.param, {"backbone": "mobilenetv2_035"}, root, OWN)
    subject.folder.mkdir()
    files = same_answer.write_images(root / "images", SIZES)
    return subject, files, same_answer.engine(subject, files)


@pytest.mark.slow
@pytest.mark.parametrize("way", list(same_answer.WAYS))
def test_file_has_the_engines_answer_whatever_its_size(asked, way):
    subject, files, expected = asked
    assert_same(expected, same_answer.WAYS[way](subject, files), way)


@pytest.mark.slow
def test_scores_of_the_files_differ(asked):
    _, _, expected = asked
    scores = [answer["pred_score"].item() for answer in expected.values()]
    assert np.ptp(scores) > 100 * FULL_PRECISION.score * max(map(abs, scores)) / len(scores)


@pytest.mark.slow
def test_file_of_a_size_that_is_not_the_models_gives_the_engines_answer_or_none(asked, tmp_path):
    subject, files, expected = asked
    model = same_answer.MODELS[subject.name][0].load_from_checkpoint(subject.checkpoint)
    runner = open_exported(model.to_onnx(tmp_path, input_size=(100, 100), verify=False))
    square = next(file for file in files if "100x100" in file.name)
    (difference,) = same_answer.differences(
        {square.name: expected[square.name]}, {square.name: runner.predict(square)}
    ).values()
    assert difference.score <= FULL_PRECISION.score
    for file in set(files) - {square}:
        with pytest.raises(ValueError, match=r"the exported file takes 100 x 100 only, which is not .* \(64 x 96\)"):
            runner.predict(file)

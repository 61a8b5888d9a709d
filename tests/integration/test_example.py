# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The standalone example, where torch and Anomalib cannot be imported."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data.utils import read_image
from PIL import Image
from torchvision.transforms.v2.functional import resize

from anomalib_logic import Glcf
from tests.unit.data.test_image_files import HEADER_TELLS, PIXELS_TELL, READ

EXAMPLE = Path(__file__).parents[2] / "examples/infer.py"
RUN_WITHOUT_TORCH = """
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "anomalib", "anomalib_logic", "lightning", "timm"):
            raise ImportError(f"{name} is not to be imported")
sys.meta_path.insert(0, Refuse())
try:
    import torch
except ImportError:
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def infer(*arguments) -> subprocess.CompletedProcess:
    """Run the example; it prints nothing at all if torch could be imported."""
    command = [sys.executable, "-I", "-c", RUN_WITHOUT_TORCH, str(EXAMPLE), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def model(trained):
    return Glcf.load_from_checkpoint(trained / "model.ckpt")


@pytest.fixture
def files(exports):
    """The model for images of any size in OpenVINO, and for images of 48 x 80 in ONNX."""
    return exports / "weights/openvino/model.xml", exports / "weights/onnx/model.onnx"


def test_example_prints_score_and_label_of_each_image_and_writes_its_map(files, model, loco, tmp_path):
    images = [loco / "squares/test" / name for name in ("good/000.png", "logical_anomalies/001.png")]
    done = infer(files[0], *images, "--maps", tmp_path / "maps")
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["image"] for result in results] == [str(image) for image in images]
    for result, image in zip(results, images, strict=True):
        with torch.no_grad():
            expected = model.eval()(read_image(image, as_tensor=True)[None])
        assert result["score"] == pytest.approx(expected.pred_score.item(), abs=1e-3)
        assert result["anomalous"] == expected.pred_label.item()
        written = np.asarray(Image.open(result["map"])) / 255
        np.testing.assert_allclose(written, expected.anomaly_map[0, 0].numpy(), atol=0.01)


def test_example_refuses_an_image_for_which_a_model_of_one_size_has_no_answer(files, loco, tmp_path):
    broken, fitting = tmp_path / "broken.png", tmp_path / "fitting.png"
    broken.write_text("no image")
    Image.new("RGB", (80, 48), (90, 80, 70)).save(fitting)
    done = infer(files[1], broken, loco / "squares/test/good/000.png", fitting)
    assert done.returncode == 1, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert "cannot identify image file" in results[0]["error"]
    assert (
        "64 x 96 pixels, and the model takes (48, 80) only, which is not its own size ((64, 96))" in results[1]["error"]
    )
    assert set(results[2]) == {"image", "score", "anomalous"}


def test_example_writes_maps_of_equal_names_in_two_folders_to_two_files(files, loco, tmp_path):
    images = [loco / "squares/test" / name / "000.png" for name in ("good", "logical_anomalies")]
    done = infer(files[0], *images, "--maps", tmp_path)
    assert done.returncode == 0, done.stderr
    written = [json.loads(line)["map"] for line in done.stdout.splitlines()]
    assert written == [str(tmp_path / name / "000.png") for name in ("good", "logical_anomalies")]
    assert all(Path(file).is_file() for file in written)


@pytest.fixture(scope="module")
def example() -> dict:
    return runpy.run_path(str(EXAMPLE))


def test_maps_have_the_names_of_images_where_those_differ(example, tmp_path):
    images = [tmp_path / name for name in ("a/0.png", "b/1.png")]
    assert example["map_files"](images, Path("maps")) == [Path("maps/0.png"), Path("maps/1.png")]


def test_maps_have_suffixes_where_images_differ_in_nothing_else(example, tmp_path):
    images = [tmp_path / name for name in ("0.png", "0.jpg", "0.jpg")]
    assert example["map_files"](images, Path("maps")) == [Path(f"maps/0.{s}.png") for s in ("png", "jpg", "jpg")]


@pytest.mark.parametrize("size", [(64, 96), (65, 95), (20, 33), (500, 700), (33, 801), (1, 7)], ids=str)
def test_example_resizes_as_torchvision_does(example, size):
    image = torch.rand(3, *size)
    expected = resize(image.double(), [64, 96], antialias=True).float().numpy()
    np.testing.assert_allclose(example["resize"](image.numpy(), (64, 96)), expected, atol=1e-6)


@pytest.mark.parametrize("name", READ)
def test_example_reads_what_the_data_modules_read(example, name, tmp_path):
    READ[name](tmp_path / name)
    found = example["read"](tmp_path / name, example["Model"](None, None, None))
    np.testing.assert_allclose(found[0], read_image(tmp_path / name, as_tensor=True).numpy(), rtol=2e-7)


@pytest.mark.parametrize("name", [*HEADER_TELLS, *PIXELS_TELL])
def test_example_refuses_what_the_data_modules_refuse(example, name, tmp_path):
    write, _ = {**HEADER_TELLS, **PIXELS_TELL}[name]
    write(tmp_path / name)
    with Image.open(tmp_path / name) as image, pytest.raises(ValueError, match=f"mode {image.mode}"):
        example["check_readable"](image)


@pytest.mark.parametrize(("file", "device"), [(0, "TPU"), (1, "TpuExecutionProvider")])
def test_example_lists_the_devices_if_one_is_not_there(files, loco, file, device):
    done = infer(files[file], loco / "squares/test/good/000.png", "--device", device)
    assert done.returncode == 1
    assert f"has no {'' if file else 'device '}{device} here; it has" in done.stderr
    assert "CPU" in done.stderr.rpartition("it has")[2]


def test_example_names_a_file_that_is_not_there(files):
    done = infer(files[0], "nowhere.png")
    assert done.returncode == 2
    assert "there is no file nowhere.png" in done.stderr

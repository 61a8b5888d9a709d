# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The standalone example, where torch and Anomalib cannot be imported."""

import json
import runpy
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data.utils import read_image
from PIL import Image
from torchvision.transforms.v2.functional import resize

from anomalib_logic import Glcf
from anomalib_logic.export import open_exported
from tests.unit.data.test_image_files import HEADER_TELLS, PIXELS, PIXELS_TELL, READ, RGB
from tests.unit.export.test_runners import assert_threads_are_answered, graph

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
    np.testing.assert_array_equal(found[0], read_image(tmp_path / name, as_tensor=True).numpy())


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


def program(example, monkeypatch, capsys, *arguments) -> tuple[object, list[dict], str]:
    """Run the example in this process: exit status, lines of JSON and what is said of errors."""
    monkeypatch.setattr("sys.argv", ["infer.py", *map(str, arguments)])
    try:
        status = example["main"]()
    except SystemExit as stop:
        status = stop.code
    shown = capsys.readouterr()
    return status, [json.loads(line) for line in shown.out.splitlines()], shown.err


def test_example_answers_the_others_where_an_image_is_missing_or_broken(
    files, loco, example, tmp_path, monkeypatch, capsys
):
    good = loco / "squares/test/good/000.png"
    (tmp_path / "empty.png").touch()
    RGB.save(tmp_path / "pages.tif", save_all=True, append_images=[RGB])
    wrong = {
        "nowhere.png": "there is no file",
        ".": "is a folder: give the images in it",
        "empty.png": "cannot identify image file",
        "pages.tif": "2 pictures, of which one would be seen: save each as a file of its own",
    }
    status, results, _ = program(
        example, monkeypatch, capsys, files[0], *(tmp_path / name for name in wrong), good, "--maps", tmp_path / "maps"
    )
    assert status == 1
    assert all(message in result["error"] for message, result in zip(wrong.values(), results, strict=False))
    assert set(results[-1]) == {"image", "score", "anomalous", "map"}


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "other suffix", "no weights"])
@pytest.mark.parametrize("suffix", [".xml", ".onnx"])
def test_example_says_in_one_sentence_that_a_model_cannot_be_opened(
    kind, suffix, files, example, tmp_path, monkeypatch, capfd
):
    path = tmp_path / ("model.bin" if kind == "other suffix" else f"model{suffix}")
    if kind == "folder":
        path.mkdir()
    elif kind == "no weights":
        path.write_bytes(files[suffix == ".onnx"].read_bytes())
    elif kind != "missing":
        path.write_text("no model\n")
    status, results, noise = program(example, monkeypatch, capfd, path, "part.png")
    assert str(path) in status
    assert "\n" not in status
    assert (results, noise) == ([], "")


@pytest.mark.parametrize("file", [0, 1])
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.999])
def test_example_refuses_a_model_whose_weights_are_cut_short(file, share, files, example, tmp_path):
    path, weights = files[file], [files[0].with_suffix(".bin"), files[1].with_name("model.onnx.data")][file]
    content = weights.read_bytes()
    (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / weights.name).write_bytes(content[: int(share * len(content))])
    for opener in (example["open_model"], open_exported):
        with pytest.raises(ValueError, match=r"^.* cannot be opened.*\(.+\)$"):
            opener(tmp_path / path.name)


@pytest.fixture(scope="module")
def opened(example, exports):
    """The two models as the example opens them."""
    return [example["open_model"](exports / "weights" / name) for name in ("openvino/model.xml", "onnx/model.onnx")]


@pytest.mark.parametrize("file", [0, 1])
def test_models_of_the_example_answer_many_threads_as_they_answer_one(opened, file):
    sizes = [(48, 80)] * 12 if file else [(48 + 8 * (i % 3), 80 + i) for i in range(12)]
    assert_threads_are_answered(opened[file].run, sizes)


@pytest.mark.parametrize("file", [0, 1])
def test_models_of_the_example_take_bytes_and_refuse_what_is_no_image(opened, file):
    run = opened[file].run
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 48, 80), np.uint8)
    expected = run((images / 255).astype(">f8"))
    for name, value in run(np.asfortranarray(images)).items():
        np.testing.assert_allclose(value, expected[name], atol=1e-4)
    single = images / np.float32(255)
    missing = np.where(single > 0.5, np.nan, single)
    others = [images.astype(np.float32), images.astype(int), single > 0, single[0], single[:, :1], missing, -single]
    for wrong in [*others, single.transpose(0, 2, 3, 1), None, single[:0], *([single[..., 1:]] if file else [])]:
        with pytest.raises(ValueError, match=r"^images must "):
            run(wrong)


def test_answer_that_is_no_number_is_an_error_of_the_example(example, tmp_path, monkeypatch, capsys):
    onnx = graph(tmp_path / "model.onnx", exponent=-1)
    images = [tmp_path / name for name in ("black.png", "grey.png")]
    for level, path in zip((0, 51), images, strict=True):
        Image.new("RGB", (5, 4), (level,) * 3).save(path)
    status, results, _ = program(example, monkeypatch, capsys, onnx, *images)
    assert status == 1
    assert "the model's own answer has NaN or infinite values in pred_score" in results[0]["error"]
    assert results[1]["score"] == pytest.approx(5)


@pytest.mark.parametrize("options", [{"score": "logits"}, {"channels": 1}, {"kind": "DOUBLE"}], ids=str)
def test_example_refuses_a_model_of_something_else(options, example, tmp_path):
    with pytest.raises(ValueError, match=r"model\.onnx is no exported anomaly model: it takes"):
        example["open_model"](graph(tmp_path / "model.onnx", **options))


@pytest.mark.parametrize("name", ["a.tif", "a.webp", "a.png", "a.gif", "a.mpo"])
def test_example_refuses_files_of_several_pictures(example, name, tmp_path):
    RGB.save(tmp_path / name, save_all=True, append_images=[RGB.rotate(90), RGB])
    with pytest.raises(ValueError, match=r"3 pictures, of which one would be seen: save each as a file of its own"):
        example["read"](tmp_path / name, example["Model"](None, None, None))


def test_example_reads_images_beyond_pillows_limit_of_pixels_and_leaves_the_limit(example, tmp_path, monkeypatch):
    RGB.save(tmp_path / "line.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    found = example["read"](tmp_path / "line.png", example["Model"](None, None, None))
    assert np.array_equal((found[0].transpose(1, 2, 0) * 255).round(), PIXELS)
    assert found.shape == (1, 3, 20, 30)
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.ppm"])
def test_example_refuses_a_file_that_is_too_short_for_the_size_it_claims(example, name, tmp_path):
    RGB.save(tmp_path / name)
    content, side = bytearray((tmp_path / name).read_bytes()), 100_000
    if name == "a.png":
        content[16:24] = struct.pack(">II", side, side)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    elif name == "a.bmp":
        content[18:26] = struct.pack("<ii", side, side)
    else:
        content = content.replace(b"30 20", f"{side} {side}".encode())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="too short for the 100000 x 100000 pixels that its header claims"):
        example["read"](tmp_path / name, example["Model"](None, None, None))

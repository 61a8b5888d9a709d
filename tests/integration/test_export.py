# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Exports start from a loaded checkpoint, give its scores, and are verified."""

import logging
import re

import numpy as np
import pytest
import torch
from anomalib.cli.cli import AnomalibCLI
from anomalib.data import Folder
from anomalib.data.utils import read_image
from anomalib.deploy import OpenVINOInferencer, TorchInferencer
from anomalib.engine import Engine
from anomalib.pre_processing import PreProcessor
from anomalib.pre_processing.utils.transform import get_exportable_transform
from PIL import Image
from sklearn.metrics import roc_auc_score
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_logic import Glcf, MVTecLoco
from anomalib_logic.export import ExportVerificationError, TorchRunner, open_exported
from anomalib_logic.export.images import generate
from anomalib_logic.export.mixin import KEEP_IMAGES, STORED
from anomalib_logic.export.quantization import compress_weights, layers_to_quantize
from anomalib_logic.export.runners import openvino_core
from anomalib_logic.models.components.pre_processing import engine_resize

from .conftest import SMALL_MODEL

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")


@pytest.fixture
def loaded(checkpoint) -> Glcf:
    return Glcf.load_from_checkpoint(checkpoint).eval()


@pytest.fixture
def image(loco):
    return loco / "squares/test/logical_anomalies/000.png"


def export(kind: str, checkpoint, root, *more: str) -> AnomalibCLI:
    arguments = ["--model=anomalib_logic.Glcf", *SMALL_MODEL, f"--export_type={kind}", f"--export_root={root}"]
    return AnomalibCLI(["export", *arguments, f"--ckpt_path={checkpoint}", *more])


def test_torch_file_gives_equal_scores(loaded, tmp_path):
    images = np.random.default_rng(0).random((2, 3, 80, 100), dtype=np.float32)
    found, expected = open_exported(loaded.to_torch(tmp_path))(images), TorchRunner(loaded)(images)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_export_of_a_model_that_was_never_validated_warns(loaded, tmp_path, caplog):
    loaded.to_torch(tmp_path, verify=False)
    assert "never validated" not in caplog.text
    loaded.post_processor.image_min.fill_(float("nan"))
    loaded.to_torch(tmp_path, verify=False)
    assert "never validated" in caplog.text


def saved_after_fit(loco, root, checkpoint):
    """What a checkpoint has that is saved where a data module is at hand."""
    model = Glcf.load_from_checkpoint(checkpoint)
    data = MVTecLoco(root=loco, category="squares", num_workers=0)
    engine = Engine(default_root_dir=root, accelerator="cpu", logger=False, enable_progress_bar=False, barebones=False)
    engine.validate(model, datamodule=data)
    engine.trainer.save_checkpoint(root / "saved.ckpt")
    return torch.load(root / "saved.ckpt", weights_only=True)


def test_checkpoint_keeps_no_image_by_default(checkpoint, loco, tmp_path):
    assert not torch.load(checkpoint, weights_only=True).get(STORED)
    assert not saved_after_fit(loco, tmp_path, checkpoint).get(STORED)


def test_checkpoint_keeps_as_many_images_as_are_asked_for(checkpoint, loco, tmp_path, monkeypatch):
    monkeypatch.setenv(KEEP_IMAGES, "2")
    saved = saved_after_fit(loco, tmp_path, checkpoint)[STORED]
    data = MVTecLoco(root=loco, category="squares", num_workers=0)
    data.setup()
    assert len(saved) == 2
    expected = read_image(data.val_data.samples.image_path[0], as_tensor=True)
    torch.testing.assert_close(saved["good/000.png"].float() / 255, expected, atol=1e-6, rtol=0)


def test_checkpoint_with_images_is_loaded_and_verifies_with_them(checkpoint, tmp_path, caplog):
    content = torch.load(checkpoint, weights_only=True)
    content[STORED] = {"good/000.png": torch.randint(0, 255, (3, 70, 90), dtype=torch.uint8)}
    torch.save(content, tmp_path / "old.ckpt")
    model = Glcf.load_from_checkpoint(tmp_path / "old.ckpt")
    with caplog.at_level(logging.INFO, "anomalib_logic"):
        path = model.to_torch(tmp_path)
    assert "generated images" not in caplog.text
    assert "largest difference" in caplog.text
    assert not open_exported(path).model._verification_images


@pytest.mark.parametrize("number", ["3", "three"])
def test_image_that_cannot_be_read_does_not_stop_a_checkpoint(number, checkpoint, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv(KEEP_IMAGES, number)
    model = Glcf.load_from_checkpoint(checkpoint)
    for i in range(3):
        (tmp_path / f"{i}.png").write_text("no image")
    data = Folder("broken", normal_dir=tmp_path, num_workers=0)
    monkeypatch.setattr(model, "_own_datamodule", lambda: data)
    model.on_save_checkpoint({})
    assert "could not be read" in caplog.text or "must be a number of images" in caplog.text


def test_command_shows_sizes_and_differences(commands):
    shown = " ".join((commands / "export.txt").read_text().split())
    assert re.search(r"weights/onnx/model\.onnx: [\d.]+ MB", shown)
    assert "verifying with generated images" in shown
    for batch in (1, 3):
        pattern = rf"CPUExecutionProvider, batch {batch}: largest difference from the engine \S+ of the score"
        assert re.search(pattern, shown)


def test_input_size_of_the_command_is_the_files(exports):
    shape = open_exported(exports / "weights/onnx/model.onnx").session.get_inputs()[0].shape
    assert shape[2:] == [48, 80]


def test_anomalibs_openvino_inferencer_gives_the_checkpoints_predictions(exports, loaded, image, workspace):
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    found = OpenVINOInferencer(exports / "weights/openvino/model.xml", device="CPU", config=config).predict(image)
    with torch.no_grad():
        expected = loaded(read_image(image, as_tensor=True)[None])
    np.testing.assert_allclose(found.pred_score.ravel(), expected.pred_score.numpy(), atol=1e-3)
    np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map.numpy(), atol=1e-3)
    assert np.array_equal(found.pred_label.ravel(), expected.pred_label.numpy())
    assert found.pred_mask.dtype == bool


def test_anomalibs_torch_inferencer_gives_the_checkpoints_predictions(loaded, image, tmp_path, monkeypatch):
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    found = TorchInferencer(loaded.to_torch(tmp_path), device="cpu").predict(image)
    with torch.no_grad():
        expected = loaded(found.image)
    assert torch.equal(found.pred_score.detach(), expected.pred_score)
    assert torch.equal(found.pred_mask[None], expected.pred_mask)


class _Wrong(Glcf):
    """Predicts something else once it was read from a file."""

    offset = 0.0

    def forward(self, batch, *args, **kwargs):
        result = super().forward(batch)
        return result._replace(pred_score=result.pred_score + self.offset)

    def __setstate__(self, state):
        super().__setstate__({**state, "offset": 0.01})


@pytest.mark.parametrize(
    ("kind", "real"), [("torch", True), ("torch", False), pytest.param("openvino", True, marks=pytest.mark.slow)]
)
def test_file_whose_resize_is_not_antialiased_is_refused(kind, real, loaded, tmp_path):
    data = large_images(tmp_path / "data") if real else None
    loaded.pre_processor.export_transform = get_exportable_transform(loaded.pre_processor.transform)
    with pytest.raises(ExportVerificationError, match="does not predict what the engine predicts: image"):
        getattr(loaded, f"to_{kind}")(tmp_path, datamodule=data)


def large_images(root):
    """A data module of textured images that are four times as large as the model's."""
    for kind in ("good", "bad"):
        (root / kind).mkdir(parents=True)
        for i, image in enumerate(generate([(256, 384)] * 4)):
            array = (image.image * 255).round().byte().permute(1, 2, 0).numpy()
            Image.fromarray(array).save(root / kind / f"{i}.png")
    return Folder("textures", "good", root, "bad", num_workers=0)


@pytest.mark.slow
def test_images_are_resized_first_for_a_file_of_fixed_size_and_that_is_said(loaded, tmp_path, caplog):
    data = large_images(tmp_path / "data")
    with caplog.at_level(logging.INFO, "anomalib_logic"):
        loaded.to_onnx(tmp_path, input_size=(80, 100), datamodule=data)
    assert "the images are resized to 80 x 100" in caplog.text


def test_pre_processor_that_keeps_the_aspect_ratio_is_refused(loaded, tmp_path):
    loaded.pre_processor = PreProcessor(Resize(64, antialias=True))
    with pytest.raises(ValueError, match="give Resize a height and a width"):
        loaded.to_openvino(tmp_path)


def test_model_without_a_pre_processor_is_verified_with_images_of_its_size(checkpoint, tmp_path):
    model = Glcf.load_from_checkpoint(checkpoint)
    model.pre_processor = None
    assert model.engine_size is None
    model.to_torch(tmp_path)


def test_users_own_pre_processor_and_the_checkpoints_are_exported_as_the_engine_runs_them(checkpoint, tmp_path):
    own = PreProcessor(Compose([Resize((64, 96), "bicubic", antialias=True), Normalize([0.5] * 3, [0.3] * 3)]))
    model = Glcf.load_from_checkpoint(checkpoint, pre_processor=own)  # Anomalib restores the checkpoint's
    assert engine_resize(model.pre_processor) == (64, 96)
    model.pre_processor = own
    model.to_torch(tmp_path)


def test_files_say_the_models_own_size(exports):
    for file, input_size in (("onnx/model.onnx", (48, 80)), ("openvino/model.xml", None)):
        runner = open_exported(exports / "weights" / file)
        assert (runner.image_size, runner.input_size) == ((64, 96), input_size)


def test_quantising_a_graph_without_any_known_layer_is_an_error(loaded, exports):
    model = openvino_core().read_model(exports / "weights/onnx/model.onnx")
    for operation in model.get_ops():
        operation.set_friendly_name(operation.get_friendly_name().rpartition("/")[2])
    for quantised in (layers_to_quantize, compress_weights):
        with pytest.raises(ValueError, match=r"nothing to quantise: none of the graph's \d+ operations"):
            quantised(model, loaded)


def test_our_openvino_runner_makes_no_folder(exports, workspace, image):
    open_exported(exports / "weights/openvino/model.xml").predict(image)
    assert not list(workspace.iterdir())


def test_file_that_differs_is_refused_and_the_image_named(checkpoint, loco, tmp_path):
    model = _Wrong.load_from_checkpoint(checkpoint)
    data = MVTecLoco(root=loco, category="squares", num_workers=0)
    data.setup()
    paths = [*data.val_data.samples.image_path, *data.test_data.samples.image_path]
    with pytest.raises(
        ExportVerificationError, match=r"model\.pt in cpu does not predict .* in a batch of 1"
    ) as raised:
        model.to_torch(tmp_path, datamodule=data)
    named = re.search(r"image '(.*?)' in a batch", str(raised.value))[1]
    assert any(path.endswith(named) for path in paths)


def test_verification_can_be_switched_off(loaded, tmp_path, monkeypatch, caplog):
    with caplog.at_level(logging.INFO, "anomalib_logic"):
        loaded.to_torch(tmp_path, verify=False)
        monkeypatch.setenv("ANOMALIB_LOGIC_VERIFY_EXPORT", "0")
        loaded.to_torch(tmp_path)
    assert "model.pt" in caplog.text
    assert "largest difference" not in caplog.text


def test_without_real_images_generated_ones_are_used_and_that_is_said(tmp_path, caplog):
    small = {k.removeprefix("--model."): v for k, v in (a.split("=") for a in SMALL_MODEL[:1])}
    model = Glcf(**small, pre_trained=False, image_size=(64, 96), width=48, depth=1, heads=4)
    with caplog.at_level(logging.INFO, "anomalib_logic"):
        model.to_torch(tmp_path)
    assert "verifying with generated images" in caplog.text


def test_quantisation_without_images_says_what_to_give(loaded, tmp_path):
    with pytest.raises(ValueError, match="need images to calibrate with: give a data module"):
        loaded.to_openvino(tmp_path, compression_type="int8_ptq")


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["fp16", "int8", "int8_ptq"])
def test_compressed_file_is_smaller_and_its_auroc_is_said(compression, checkpoint, exports, loco, workspace, caplog):
    caplog.set_level(logging.INFO, "anomalib_logic")
    data = ["--data=MVTecLoco", f"--data.root={loco}", "--data.category=squares", "--data.num_workers=0"]
    export("openvino", checkpoint, workspace, f"--compression_type={compression.upper()}", *data)
    weights = [root / "weights/openvino/model.bin" for root in (workspace, exports)]
    assert weights[0].stat().st_size < 0.6 * weights[1].stat().st_size
    assert "image AUROC on 7 test images" in caplog.text
    if compression == "int8_ptq":
        assert "int8: " in caplog.text


@pytest.mark.slow
def test_quantisation_with_accuracy_control_keeps_the_metric(checkpoint, loco, tmp_path, monkeypatch):
    from anomalib.metrics import AUROC

    model = Glcf.load_from_checkpoint(checkpoint)
    data = MVTecLoco(root=loco, category="squares", num_workers=0)
    metric = AUROC(fields=["pred_score", "gt_label"])
    path = Engine(accelerator="cpu").export(
        model, "openvino", tmp_path, compression_type="int8_acq", datamodule=data, metric=metric, max_drop=0.1
    )
    exported, labels = open_exported(path), data.test_data.samples.label_index
    files = list(data.test_data.samples.image_path)
    with torch.no_grad():
        expected = [model.eval()(read_image(file, as_tensor=True)[None]).pred_score.item() for file in files]
    found = [exported.predict(file)["pred_score"].item() for file in files]
    assert roc_auc_score(labels, expected) > 0.9
    assert roc_auc_score(labels, found) >= roc_auc_score(labels, expected) - 0.1

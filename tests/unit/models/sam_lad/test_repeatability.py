# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""One fit after another, models that were never fitted, seeds, loaders and batches, in real sessions."""

import numpy as np
import pytest
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from torch.utils._python_dispatch import TorchDispatchMode

from anomalib_logic import SamLad
from anomalib_logic.export import TorchRunner, open_exported
from anomalib_logic.models.sam_lad import lightning_model
from anomalib_logic.models.sam_lad.encoder import Encoder
from anomalib_logic.models.sam_lad.torch_model import SamLadModel

from .conftest import SMALL, SQUARES, draw, fit_encoder

EMPTY = "the bank is empty: train the model .* or load a checkpoint"


@pytest.fixture(scope="module", autouse=True)
def few_changes():
    """Measure the scores' trust on two images only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lightning_model, "CHANGED", 2)
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two sets of images, of four and of two squares, with bad ones."""
    roots = []
    for seed, squares in enumerate((SQUARES, SQUARES[1:3])):
        roots.append(tmp_path_factory.mktemp("squares"))
        generator = np.random.default_rng(seed)
        for kind, contents in (("good", [squares] * (6 + seed)), ("bad", [SQUARES[:1]] * 2)):
            (roots[-1] / kind).mkdir()
            for i, content in enumerate(contents):
                draw(generator, content).save(roots[-1] / kind / f"{i:02}.png")
    return roots


def datamodule(folder, **arguments):
    defaults = {"train_batch_size": 4, "eval_batch_size": 4, "num_workers": 0, "val_split_mode": "same_as_test"}
    return Folder("squares", "good", folder, "bad", test_split_ratio=0.25, seed=0, **{**defaults, **arguments})


def engine(tmp_path, **arguments):
    return Engine(default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False, logger=False, **arguments)


def new_model(**arguments) -> SamLad:
    torch.manual_seed(0)
    return SamLad(**{**SMALL, "clusters": None, "backbone_weights": None, "evaluator": False, **arguments})


def state_of(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_equal(state, expected):
    assert state.keys() == expected.keys()
    different = [n for n in state if not torch.equal(state[n].nan_to_num(), expected[n].nan_to_num())]
    assert not different


@pytest.fixture(scope="module")
def fitted(folders, tmp_path_factory):
    """States of a model fitted on each set of images alone, and the first one's checkpoint."""
    states = []
    for folder in reversed(folders):
        run, model = engine(tmp_path_factory.mktemp("fitted")), new_model()
        run.fit(model, datamodule=datamodule(folder))
        states.insert(0, state_of(model))
    return states, run.trainer.checkpoint_callback.best_model_path


def test_second_fit_on_other_images_is_that_of_a_new_model(tmp_path, folders, fitted):
    run, model = engine(tmp_path), new_model()
    for folder, state in zip(folders, fitted[0], strict=True):
        run.fit(model, datamodule=datamodule(folder))
        assert_equal(state_of(model), state)


def test_loaded_model_that_is_fitted_on_other_images_is_that_of_a_new_model(tmp_path, folders, fitted):
    states, checkpoint = fitted
    model = SamLad.load_from_checkpoint(checkpoint)
    assert_equal(state_of(model), states[0])
    engine(tmp_path).fit(model, datamodule=datamodule(folders[1]))
    assert_equal(state_of(model), states[1])


def test_fit_of_one_image_keeps_no_calibration_of_the_fit_before(folders):
    model = new_model().eval().model
    images = torch.rand(4, 3, 64, 96)
    with torch.no_grad():
        fit_encoder(model, images)
        templates = [model.represent(image) for image in images.split(1)]
        model.fit(templates[:1], 1)
        expected = state_of(model)
        model.fit(templates, 4)
        assert not torch.equal(model.scores["details"].unit, expected["scores.details.unit"])
        model.fit(templates[:1], 1)
    assert_equal(state_of(model), expected)


def test_several_epochs_are_as_one(tmp_path, folders, fitted, monkeypatch):
    monkeypatch.setattr(SamLad, "trainer_arguments", {"num_sanity_val_steps": 0})
    model, fits = new_model(), []
    monkeypatch.setattr(SamLadModel, "fit", counted(SamLadModel.fit, fits))
    run = engine(tmp_path, max_epochs=3)
    run.fit(model, datamodule=datamodule(folders[0]))
    assert run.trainer.current_epoch == 3
    assert len(fits) == 1
    assert_equal(state_of(model), fitted[0][0])


def counted(method, calls):
    def wrapper(*args, **kwargs):
        calls.append(method)
        return method(*args, **kwargs)

    return wrapper


def test_fit_that_goes_on_from_a_checkpoint_keeps_its_bank(tmp_path, folders, fitted, monkeypatch):
    states, checkpoint = fitted
    monkeypatch.setattr(SamLad, "trainer_arguments", {"num_sanity_val_steps": 0})
    model = new_model()
    engine(tmp_path, max_epochs=2).fit(model, datamodule=datamodule(folders[1]), ckpt_path=checkpoint)
    assert_equal(state_of(model.model), {n[6:]: v for n, v in states[0].items() if n.startswith("model.")})


def test_validating_testing_and_predicting_keep_the_bank(tmp_path, folders, fitted):
    model = SamLad.load_from_checkpoint(fitted[1])
    run, data = engine(tmp_path), datamodule(folders[1])
    run.validate(model, datamodule=data)
    run.test(model, datamodule=data)
    run.predict(model, datamodule=data)
    assert_equal(state_of(model.model), {n[6:]: v for n, v in fitted[0][0].items() if n.startswith("model.")})


@pytest.mark.parametrize("step", ["validate", "test", "predict"])
def test_model_that_was_never_fitted_is_refused(tmp_path, folders, step):
    with pytest.raises(RuntimeError, match=EMPTY):
        getattr(engine(tmp_path), step)(new_model(), datamodule=datamodule(folders[0]))


@pytest.mark.parametrize("export", ["to_torch", "to_onnx", "to_openvino"])
def test_model_that_was_never_fitted_is_not_exported(tmp_path, export):
    with pytest.raises(RuntimeError, match=EMPTY):
        getattr(new_model(), export)(tmp_path)
    assert not list(tmp_path.rglob("model.*"))


def test_model_that_was_never_fitted_explains_nothing():
    with pytest.raises(RuntimeError, match=EMPTY):
        new_model().explain(torch.rand(1, 3, 64, 96))


def test_result_depends_neither_on_loaders_nor_batches_nor_the_global_seed(tmp_path, folders, fitted):
    model = new_model()
    torch.manual_seed(1)
    np.random.seed(1)
    engine(tmp_path).fit(model, datamodule=datamodule(folders[0], num_workers=2, train_batch_size=1))
    assert_equal(state_of(model), fitted[0][0])


@pytest.mark.parametrize("export", ["to_torch", pytest.param("to_onnx", marks=pytest.mark.slow)])
def test_random_selection_gives_in_a_file_what_it_gives_in_the_model(tmp_path, folders, export):
    pytest.importorskip("onnxruntime")
    model = new_model(selection="random", k=4)
    engine(tmp_path).fit(model, datamodule=datamodule(folders[0]))
    images = np.random.default_rng(0).random((4, 3, 64, 96), dtype=np.float32)
    expected = TorchRunner(model)(images)
    exported = open_exported(getattr(model, export)(tmp_path, verify=False))
    for found in (exported(images), exported(images)):
        np.testing.assert_allclose(found["pred_score"], expected["pred_score"], atol=1e-3)
        np.testing.assert_allclose(found["anomaly_map"], expected["anomaly_map"], atol=1e-2)


def test_another_seed_gives_another_bank(tmp_path, folders, fitted):
    model = new_model(seed=1)
    engine(tmp_path).fit(model, datamodule=datamodule(folders[0]))
    assert not torch.equal(model.model.bank.priority, fitted[0][0]["model.bank.priority"])
    centroids = model.model.scores["composition"].centroids
    assert not torch.equal(centroids, fitted[0][0]["model.scores.composition.centroids"])


def test_deterministic_training_and_prediction_twice(tmp_path, folders, fitted):
    results = []
    try:
        for i in range(2):
            run, model = engine(tmp_path / str(i), deterministic=True), new_model()
            run.fit(model, datamodule=datamodule(folders[0]))
            assert torch.are_deterministic_algorithms_enabled()
            results.append(run.predict(model, datamodule=datamodule(folders[0])))
    finally:
        torch.use_deterministic_algorithms(False)
    for one, other in zip(*results, strict=True):
        assert torch.equal(one.pred_score, other.pred_score)
        assert torch.equal(one.anomaly_map, other.anomaly_map)


class Operations(TorchDispatchMode):
    """Names of all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        weighted = str(function) == "aten.bincount.default" and len(args) > 1
        self.names.add("weighted bincount" if weighted else str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("align", ["combined", "box"])
@torch.no_grad()
def test_fit_and_inference_use_nothing_that_cuda_refuses_in_deterministic_mode(align):
    """As torch.use_deterministic_algorithms lists it; the maximum of labels is allowed by itself."""
    model, images = new_model(align=align).eval().model, torch.rand(5, 3, 64, 96)
    with Operations() as used:
        fit_encoder(model, images)
        model.fit((model.represent(image) for image in images.split(1)), 5)
        model(images[:1])
    refused = ("histc", "put_.", "median.dim", "kthvalue", "weighted bincount", "max_unpool")
    assert "aten.sort.default" in used.names
    assert not [name for name in used.names if any(part in name.replace("index_put_.", "") for part in refused)]


def test_images_are_seen_one_at_a_time(tmp_path, folders, monkeypatch):
    seen, features = [], Encoder.features
    monkeypatch.setattr(Encoder, "features", lambda self, images: seen.append(len(images)) or features(self, images))
    run, model, data = engine(tmp_path), new_model(), datamodule(folders[0], train_batch_size=6, eval_batch_size=4)
    for step in ("fit", "validate", "test", "predict"):
        seen.clear()
        getattr(run, step)(model, datamodule=data)
        assert set(seen) == {1}, step

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""GLCF as an Anomalib model: training, statistics, checkpoints, all in one process and on real image files."""

import copy
from typing import NamedTuple

import pytest
import timm
import torch
from anomalib.data import Folder, InferenceBatch
from anomalib.deploy import TorchInferencer
from anomalib.engine import Engine
from anomalib.pre_processing import PreProcessor
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import EarlyStopping
from torchvision.transforms.v2 import ColorJitter, Resize

from anomalib_logic import Glcf
from anomalib_logic.models.glcf.loss import GlcfLoss
from anomalib_logic.models.glcf.options import GlcfNetworks, GlcfScoring, GlcfTraining

from .conftest import SMALL, check_training, write_squares


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Nine normal images and three anomalous ones."""
    return write_squares(tmp_path_factory.mktemp("folder"), 9)


def datamodule(folder, **arguments):
    defaults = {"train_batch_size": 4, "eval_batch_size": 4, "num_workers": 0, "val_split_mode": "same_as_test"}
    return Folder("squares", "good", folder, "bad", test_split_ratio=0.3, seed=0, **{**defaults, **arguments})


def engine(tmp_path, **arguments):
    defaults = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False}
    return Engine(default_root_dir=tmp_path, **{**defaults, **arguments})


def normalization_of(model):
    return model.model.anomaly_map_generator.normalization


def recomputed_statistics(model, data):
    """Statistics of the error maps over the training images, from their definition."""
    model = model.eval()
    collected = [[] for _ in range(6)]
    for item in data.train_data:
        image = model.pre_processor(item.image[None])
        with torch.no_grad():
            for values, error in zip(collected, model.model.errors(model.model.maps(image)), strict=True):
                values.append(error.double().flatten())
    values = [torch.cat(value) for value in collected]
    return torch.stack([v.mean() for v in values]), torch.stack([v.std(correction=0) for v in values])


class Fitted(NamedTuple):
    """A model after three epochs, and what happened in them."""

    model: Glcf
    run: Engine
    data: Folder
    backbone: dict  # weights before
    measured: list  # epochs and arguments of each pass over the training images
    validated: list  # whether there were statistics at each validation


@pytest.fixture(scope="module")
def fitted(folder, tmp_path_factory):
    model, run, data = Glcf(**SMALL), engine(tmp_path_factory.mktemp("fitted"), max_epochs=3), datamodule(folder)
    result = Fitted(model, run, data, copy.deepcopy(model.model.pyramid.state_dict()), [], [])
    measure = model._measure
    model._measure = lambda **kw: (result.measured.append((model.current_epoch, kw)), measure(**kw))
    model.on_validation_end = lambda: result.validated.append(bool(normalization_of(model).measured))
    run.fit(model, datamodule=data)
    del model._measure, model.on_validation_end
    return result


def test_statistics_after_training_are_those_of_the_final_weights_over_all_training_images(fitted):
    model, data = fitted.model, fitted.data
    mean, std = recomputed_statistics(model, data)
    torch.testing.assert_close(normalization_of(model).mean.double(), mean, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(normalization_of(model).std.double(), std, rtol=1e-4, atol=1e-6)


def test_muon_computes_in_float32_on_a_cpu_and_leaves_timm_as_it_was(tmp_path, folder, small, monkeypatch):
    original = timm.optim.muon.zeropower_via_newtonschulz
    computed = []

    def watched(*args, **kwargs):
        result = original(*args, **kwargs)
        computed.append(result.dtype)
        return result

    monkeypatch.setattr(timm.optim.muon, "zeropower_via_newtonschulz", watched)
    engine(tmp_path).fit(Glcf(**small, optimizer="muon"), datamodule=datamodule(folder))
    assert set(computed) == {torch.float32}
    assert timm.optim.muon.zeropower_via_newtonschulz is watched


def test_statistics_of_held_out_images_are_those_of_the_normal_validation_images(tmp_path, folder, small):
    model, data = Glcf(**small, statistics="validation"), datamodule(folder)
    engine(tmp_path).fit(model, datamodule=data)
    data.val_data.samples = data.val_data.samples[data.val_data.samples.label_index == 0].reset_index(drop=True)
    data.train_data = data.val_data
    mean, std = recomputed_statistics(model, data)
    torch.testing.assert_close(normalization_of(model).mean.double(), mean, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(normalization_of(model).std.double(), std, rtol=1e-4, atol=1e-6)


def test_statistics_ignore_training_augmentations(tmp_path, folder, small):
    model, data = Glcf(**small), datamodule(folder, train_augmentations=ColorJitter(brightness=(3.0, 3.0)))
    engine(tmp_path).fit(model, datamodule=data)
    data.train_data.augmentations = Resize((64, 96))
    mean, _ = recomputed_statistics(model, data)
    torch.testing.assert_close(normalization_of(model).mean.double(), mean, rtol=1e-4, atol=1e-6)


def test_statistics_are_measured_without_validation(tmp_path, folder, small):
    model, data = Glcf(**small), datamodule(folder)
    engine(tmp_path, limit_val_batches=0).fit(model, datamodule=data)
    mean, _ = recomputed_statistics(model, data)
    torch.testing.assert_close(normalization_of(model).mean.double(), mean, rtol=1e-4, atol=1e-6)


def test_all_training_images_are_passed_once_more_after_training_only(fitted):
    assert fitted.measured == [(0, {"channels": True}), (2, {})]


def test_each_validation_is_measured_where_a_callback_may_stop_at_it(tmp_path, folder, small, monkeypatch):
    model = Glcf(**small)
    measured = []
    measure = model._measure
    monkeypatch.setattr(model, "_measure", lambda **kw: (measured.append(model.current_epoch), measure(**kw)))
    stopping = EarlyStopping("train_loss", patience=10)
    engine(tmp_path, max_epochs=2, callbacks=[stopping]).fit(model, datamodule=datamodule(folder))
    assert measured == [0, 0, 1]


def test_intermediate_checkpoint_has_statistics(fitted):
    assert fitted.validated == [True, True, True]


def test_untrained_model_measures_before_testing(tmp_path, folder, small):
    model, data = Glcf(**small), datamodule(folder)
    engine(tmp_path).test(model, datamodule=data)
    mean, _ = recomputed_statistics(model, data)
    torch.testing.assert_close(normalization_of(model).mean.double(), mean, rtol=1e-4, atol=1e-6)


def test_channels_are_standardised_over_the_training_images(fitted):
    model, data = fitted.model, fitted.data
    images = torch.cat([model.pre_processor(item.image[None]) for item in data.train_data])
    features = model.model.pyramid(images)[0]
    channels = features.shape[1]
    torch.testing.assert_close(model.model.standardization.mean[:channels], features.mean((0, 2, 3)))


def test_backbone_stays_as_it_is(fitted):
    model, run = fitted.model, fitted.run
    assert all(torch.equal(value, fitted.backbone[name]) for name, value in model.model.pyramid.state_dict().items())
    optimised = {id(p) for group in run.trainer.optimizers[0].param_groups for p in group["params"]}
    frozen = {id(p) for p in model.model.pyramid.parameters()}
    assert not optimised & frozen
    assert optimised == {id(p) for p in model.parameters()} - frozen


@pytest.mark.parametrize(
    "arguments",
    [{"structure": s} for s in ("ps", "pgs", "none")]
    + [
        {"multi_scale": False},
        {"branch": "local"},
        {"branch": "global", "criterion": "correspondence"},
        {"distance": "cosine", "image_score": "max", "sigma": 0},
        {"standardize_features": False, "optimizer": "sgd", "schedule": "constant"},
        pytest.param(
            {"backbone": "swin_tiny_patch4_window7_224", "decoder_depths": (1, 1, 1, 1)}, marks=pytest.mark.slow
        ),
    ],
    ids=str,
)
def test_every_switch_trains_and_tests(tmp_path, folder, small, arguments):
    model = Glcf(**{**small, **arguments})
    check_training(model, engine(tmp_path), datamodule(folder))


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """The losses of each epoch of a training, and its results on test images."""
    torch.manual_seed(1)
    model, history = Glcf(**SMALL, learning_rate=3e-3, schedule="constant"), []
    on_train_end = model.on_train_epoch_end
    model.on_train_epoch_end = lambda: (history.append(dict(model.trainer.callback_metrics)), on_train_end())
    run = engine(tmp_path_factory.mktemp("trained"), max_epochs=15, check_val_every_n_epoch=15)
    (results,) = run.train(model, datamodule=datamodule(folder))
    return history, results


def test_training_makes_all_losses_fall(trained):
    history, _ = trained
    for name in ("train_loss", "train_loss_correspondence", "train_loss_local"):
        assert history[-1][name] < 0.8 * history[0][name]


def test_trained_model_finds_the_missing_square(trained):
    assert trained[1]["image_AUROC"] == 1.0


def test_mixed_precision_trains_and_keeps_maps_in_single_precision(tmp_path, folder, small):
    model = Glcf(**small)
    run = engine(tmp_path, precision="bf16-mixed")
    run.fit(model, datamodule=datamodule(folder))
    predictions = run.predict(model, datamodule=datamodule(folder), ckpt_path=None)
    assert predictions[0].anomaly_map.dtype == torch.float32
    assert torch.isfinite(predictions[0].pred_score).all()
    with torch.autocast("cpu", torch.bfloat16):
        maps = model.model.eval()(torch.rand(1, 3, 64, 96)).anomaly_map
    assert not torch.equal(maps, maps.bfloat16().float())  # as they would be had they been rounded on the way


def test_batch_gives_what_its_images_give_alone_at_the_models_size(small):
    model = Glcf(**small, post_processor=False).eval()
    images = torch.rand(2, 3, 80, 80)
    result = model(images)
    assert isinstance(result, InferenceBatch)
    assert result.anomaly_map.shape == (2, 1, 64, 96)
    assert result.pred_score[0] != result.pred_score[1]
    for i in range(2):
        alone = model.model(model.pre_processor(images[i : i + 1]))
        torch.testing.assert_close(result.anomaly_map[i : i + 1], alone.anomaly_map, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(result.pred_score[i : i + 1], alone.pred_score, rtol=1e-4, atol=1e-4)


def test_loaded_checkpoint_gives_equal_scores_without_weights_or_network(tmp_path, folder, small):
    weights = tmp_path / "backbone.pth"
    torch.save(Glcf(**small).model.pyramid.network.state_dict(), weights)
    model = Glcf(**{**small, "pre_trained": True}, backbone_weights=str(weights))
    run = engine(tmp_path)
    run.fit(model, datamodule=datamodule(folder))
    weights.unlink()
    loaded = Glcf.load_from_checkpoint(run.trainer.checkpoint_callback.best_model_path)
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        expected, result = model.eval()(images), loaded.eval()(images)
    assert torch.equal(result.pred_score, expected.pred_score)
    assert torch.equal(result.anomaly_map, expected.anomaly_map)


def test_size_of_a_custom_pre_processor_is_used_and_survives_a_checkpoint(tmp_path, folder, small):
    model = Glcf(**{**small, "image_size": 224}, pre_processor=PreProcessor(Resize((96, 64))))
    run = engine(tmp_path)
    run.fit(model, datamodule=datamodule(folder))
    loaded = Glcf.load_from_checkpoint(run.trainer.checkpoint_callback.best_model_path)
    assert model.input_size == loaded.input_size == (96, 64)
    assert loaded.eval()(torch.rand(1, 3, 50, 50)).anomaly_map.shape == (1, 1, 96, 64)


@pytest.mark.parametrize(("given", "expected"), [({}, 3), ({"max_epochs": 2}, 2)])
def test_trainer_sets_the_epochs_and_else_the_model_does(tmp_path, folder, small, given, expected):
    model = Glcf(**small, max_epochs=3)
    limits = {"limit_train_batches": 1, "limit_val_batches": 0}
    run = Engine(default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False, **limits, **given)
    run.fit(model, datamodule=datamodule(folder))
    assert run.trainer.current_epoch == expected


@pytest.mark.parametrize(("trainers", "expected"), [({}, 0.5), ({"gradient_clip_val": 0.25}, 0.25)])
def test_trainers_gradient_clipping_has_precedence(tmp_path, folder, small, trainers, expected, monkeypatch):
    model = Glcf(**small, gradient_clip=0.5)
    used = []
    monkeypatch.setattr(model, "clip_gradients", lambda _, value, __: used.append(value))
    engine(tmp_path, limit_train_batches=1, **trainers).fit(model, datamodule=datamodule(folder))
    assert used == [expected]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 100}, r"image_size must be multiples of 32 pixels.*got \(100, 100\)"),
        ({"image_size": [64, 64, 64]}, "image_size must be one number or two"),
        ({"structure": "abc"}, r"structure must be one of \('pss', 'pgs', 'ps', 'none'\), got 'abc'"),
        ({"statistics": "test"}, r"statistics must be one of \('training', 'validation'\), got 'test'"),
        ({"sigma": -1.0}, "sigma must be at least 0, got -1.0"),
        ({"feature_noise": -0.5}, "feature_noise must be at least 0, got -0.5"),
        ({"loss_weights": (1, 1)}, r"loss_weights must be 3 numbers.*got \[1, 1\]"),
        ({"schedule": "step"}, r"schedule must be one of \('cosine', 'constant'\), got 'step'"),
    ],
)
def test_argument_out_of_range_is_refused_by_name(small, arguments, message):
    with pytest.raises(ValueError, match=message):
        Glcf(**{**small, **arguments})


def test_options_are_the_same_in_a_group_in_a_mapping_and_by_themselves(small):
    by_itself = Glcf(**small, structure="ps", learning_rate=0.5, sigma=2.0)
    mapping = Glcf(**small, networks={"structure": "ps"}, training={"learning_rate": 0.5}, scoring={"sigma": 2.0})
    group = Glcf(
        **small,
        networks=GlcfNetworks(structure="ps"),
        training=GlcfTraining(learning_rate=0.5),
        scoring=GlcfScoring(sigma=2.0),
    )
    assert by_itself.hparams == mapping.hparams == group.hparams
    assert group.hparams["structure"] == "ps"
    assert group.learning_rate == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"structur": "ps"}, "Glcf has no option 'structur'; it has .*structure"),
        ({"networks": {"dept": 1}}, "GlcfNetworks has no option 'dept'; it has structure, .*depth"),
    ],
)
def test_unknown_option_is_refused_with_those_there_are(small, arguments, message):
    with pytest.raises(TypeError, match=message):
        Glcf(**small, **arguments)


@pytest.mark.parametrize(
    ("branch", "unused"),
    [
        ("local", ("correspondence_network", "global_estimation_network", "bottleneck.global_projection")),
        ("global", ("local_estimation_network",)),
    ],
)
def test_networks_of_a_branch_that_is_left_out_neither_train_nor_run(tmp_path, folder, small, branch, unused):
    model = Glcf(**small, branch=branch).model
    for name in unused:
        module = model.get_submodule(name)
        module.register_forward_hook(lambda *_, name=name: pytest.fail(f"{name} runs"))
        assert not any(parameter.requires_grad for parameter in module.parameters())
    images = torch.rand(2, 3, 64, 96)
    loss = GlcfLoss("mse", (1.0, 1.0, 1.0))(*model.train()(images))["loss"]
    loss.backward()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None for parameter in trained)
    assert torch.isfinite(model.eval()(images).pred_score).all()


def test_wrong_choice_is_refused_before_a_download_is_tried():
    with pytest.raises(ValueError, match="branch must be one of"):
        Glcf(branch="middle", pre_trained=True)


def test_failed_download_is_an_error_not_random_weights(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(RuntimeError, match="could not get the pre-trained weights"):
        Glcf()


def test_inference_records_no_gradient(small):
    model = Glcf(**small, post_processor=False).eval()
    result = model(torch.rand(2, 3, 80, 80))
    assert not result.anomaly_map.requires_grad
    assert not result.pred_score.requires_grad
    assert result.anomaly_map.numpy().shape == (2, 1, 64, 96)


def test_anomalibs_torch_inferencer_gives_results_without_gradients(fitted, folder, tmp_path, monkeypatch):
    model, run = fitted.model, fitted.run
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    file = run.export(model, "torch", export_root=tmp_path)
    prediction = TorchInferencer(file, device="cpu").predict(folder / "good" / "0.png")
    assert not prediction.anomaly_map.requires_grad
    assert prediction.pred_score.numpy().shape == (1,)


def test_training_after_inference_records_gradients(small):
    model = Glcf(**small).model
    model.eval()(torch.rand(1, 3, 64, 96))
    maps = model.train()(torch.rand(1, 3, 64, 96))
    assert all(m.requires_grad for m in (*maps.correspondence, *maps.local_estimate, *maps.global_estimate))


@pytest.fixture
def restored_determinism():
    """Leave the settings of determinism as they were."""
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.usefixtures("restored_determinism")
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        pytest.param(
            {"backbone": "swin_tiny_patch4_window7_224", "decoder_depths": (1, 1, 1, 1)}, marks=pytest.mark.slow
        ),
    ],
    ids=str,
)
def test_deterministic_training_gives_the_same_weights_and_scores_twice(tmp_path, folder, small, arguments):
    weights, scores = [], []
    for i in range(2):
        seed_everything(0)
        model, run = Glcf(**{**small, **arguments}), engine(tmp_path / str(i), deterministic=True)
        run.fit(model, datamodule=datamodule(folder))
        assert torch.are_deterministic_algorithms_enabled()
        weights.append(model.state_dict())
        predictions = run.predict(model, datamodule=datamodule(folder), ckpt_path=None)
        scores.append(torch.cat([batch.pred_score for batch in predictions]))
    # A threshold without masks is NaN.
    torch.testing.assert_close(*weights, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(*scores)


def test_noise_disturbs_training_inputs_only(small):
    torch.manual_seed(0)
    model = Glcf(**small, feature_noise=1.0).model
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert not torch.equal(model.train().maps(images).local_estimate[0], model.maps(images).local_estimate[0])
        assert torch.equal(model.maps(images).features[0], model.eval().maps(images).features[0])
        assert torch.equal(model.maps(images).local_estimate[0], model.maps(images).local_estimate[0])

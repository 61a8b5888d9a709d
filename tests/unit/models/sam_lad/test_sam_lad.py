# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""SAM-LAD as an Anomalib model: filling the bank, testing, checkpoints, on real image files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import Folder, InferenceBatch
from anomalib.engine import Engine
from anomalib.pre_processing import PreProcessor
from PIL import Image
from torchvision.transforms.v2 import Resize

from anomalib_logic import SamLad
from anomalib_logic.models.components.upsampling import JbuUpsampler
from anomalib_logic.models.sam_lad import lightning_model, segment_anything
from anomalib_logic.models.sam_lad.lightning_model import default_image_size
from anomalib_logic.models.sam_lad.options import SamLadBank

from .conftest import SMALL, TELLING

TRAINED = {**SMALL, **TELLING}
TINY_VIT = {"backbone": "vit_tiny_patch16_224", "backbone_args": {"depth": 1, "embed_dim": 32, "num_heads": 2}}


def datamodule(folder, **arguments):
    defaults = {"train_batch_size": 4, "eval_batch_size": 4, "num_workers": 0, "val_split_mode": "same_as_test"}
    return Folder("squares", "good", folder, "bad", test_split_ratio=0.25, seed=0, **{**defaults, **arguments})


def engine(tmp_path):
    return Engine(default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False)


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """A filled model, its engine and its test results."""
    torch.manual_seed(0)
    model = SamLad(**TRAINED)
    run = engine(tmp_path_factory.mktemp("trained"))
    results = run.train(model, datamodule=datamodule(folder))
    return model, run, results


@pytest.mark.parametrize(
    ("backbone", "side"),
    [
        ("mobilenetv2_035", 384),
        ("tf_efficientnet_lite0", 384),
        ("vit_small_patch16_dinov3", 384),
        ("vit_small_patch14_dinov2", 392),
        ("eva02_tiny_patch14_224", 392),
        ("vit_base_patch32_224", 384),
    ],
)
def test_default_size_is_the_first_multiple_of_the_backbones_stride_from_384_on(backbone, side):
    assert default_image_size(backbone) == side


def test_model_without_a_size_sees_images_of_the_default_size():
    model = SamLad("mobilenetv2_035", pre_trained=False, objects="cluster")
    assert model.image_size == model.input_size == (384, 384)
    assert model.hparams["image_size"] == [384, 384]


def test_size_of_a_given_pre_processor_stays():
    resize = PreProcessor(Resize((64, 96), antialias=True))
    model = SamLad("mobilenetv2_035", pre_trained=False, objects="cluster", pre_processor=resize)
    assert model.image_size == (64, 96)


def test_one_pass_fills_the_bank_with_every_training_image(trained):
    model, run, _ = trained
    assert len(model.model.bank) == len(run.trainer.datamodule.train_data)
    assert run.trainer.current_epoch == 1


def test_images_with_other_objects_are_found(trained):
    assert trained[2][0]["image_AUROC"] == 1.0


def test_batch_gives_what_its_images_give_alone(trained):
    model = trained[0].eval()
    images = torch.rand(3, 3, 80, 80, generator=torch.Generator().manual_seed(0))
    together, alone = model(images), model(images[1:2])
    assert isinstance(together, InferenceBatch)
    assert together.anomaly_map.shape == (3, 1, 64, 96)
    torch.testing.assert_close(together.pred_score[1:2], alone.pred_score, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together.anomaly_map[1:2], alone.anomaly_map, rtol=1e-3, atol=1e-3)


def test_loaded_checkpoint_gives_equal_scores(trained):
    model, run, _ = trained
    loaded = SamLad.load_from_checkpoint(run.trainer.checkpoint_callback.best_model_path)
    images = torch.rand(2, 3, 64, 96)
    expected, result = model.eval()(images), loaded.eval()(images)
    assert torch.equal(result.pred_score, expected.pred_score)
    assert torch.equal(result.anomaly_map, expected.anomaly_map)


def images_of(folder, kind):
    paths = sorted((folder / kind).glob("*.png"))
    return torch.stack([torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) / 255 for path in paths])


def test_explanation_names_the_missing_object_and_the_surplus_one(trained, folder):
    less, _, more, _ = trained[0].explain(images_of(folder, "bad"))
    assert (len(less.masks), len(more.masks)) == (3, 5)
    assert less.missing.sum() == 1
    assert (less.partners >= 0).all()
    rows, columns = np.nonzero(less.reference_masks[less.missing][0].numpy())
    assert (rows.mean() / 16 > 0.5, columns.mean() / 16 > 0.5) == (True, True)  # the fourth square's place
    assert more.surplus.sum() == 1
    assert more.scores.shape == (5,)


def test_explanation_names_the_scores_that_the_image_score_is_made_of(trained, folder):
    model = trained[0].eval()
    for explanation in model.explain(images_of(folder, "bad")):
        deviations = [reason.deviation for reason in explanation.reasons]
        assert [reason.score for reason in explanation.reasons] != list(model.model.scores)  # but by deviation:
        assert deviations == sorted(deviations, reverse=True)
        assert {reason.score for reason in explanation.reasons} == set(model.model.scores)
        assert explanation.score == pytest.approx(np.log(np.exp(4 * np.array(deviations)).sum()) / 4, rel=1e-4)


def test_every_score_says_what_it_finds_unusual():
    for options in ({}, {"lite": True}, {"align": "box"}, {"align": "none", "composition": False}):
        scores = SamLad(**{**TRAINED, **options}).model.scores
        assert len({score.finding for score in scores.values()}) == len(scores)


def test_picture_shows_partners_in_one_colour_and_the_unmatched_in_red(trained, folder):
    explanation = trained[0].explain(images_of(folder, "bad")[2:3])[0]
    picture = np.array(explanation.draw(size=128))
    assert picture.shape == (128, 256, 3)
    left, right = (outlines(part) for part in (picture[:, :128], picture[:, 128:]))
    surplus = explanation.masks[explanation.partners < 0][0].nonzero().float().mean(dim=0) * 8  # masks of 16 x 16
    np.testing.assert_allclose(left.pop((255, 0, 0)), surplus, atol=10)
    assert len(left) == 4
    assert left.keys() == right.keys()
    for colour, place in left.items():  # partners are the same square, which moves by 2 pixels of 64 at most
        np.testing.assert_allclose(right[colour], place, atol=10)


def test_picture_has_the_shape_that_was_asked_for(trained, folder):
    explanation = trained[0].explain(images_of(folder, "bad")[2:3])[0]
    picture = np.array(explanation.draw(size=(128, 256)))
    assert picture.shape == (128, 512, 3)
    surplus = explanation.masks[explanation.partners < 0][0].nonzero().float().mean(dim=0)  # masks of 16 x 16
    np.testing.assert_allclose(outlines(picture[:, :256])[(255, 0, 0)], surplus * torch.tensor([8, 16]), atol=10)


def test_what_only_a_fit_needs_is_freed(trained):
    network = trained[0].model
    assert not network._prepared
    assert not network._held_out


def outlines(picture):
    """Mean place of the pixels of each pure colour."""
    pure = (picture.max(axis=2) == 255) & (picture.min(axis=2) == 0)
    colours = {tuple(colour) for colour in picture[pure].tolist()}
    return {colour: np.argwhere((picture == colour).all(axis=2)).mean(axis=0) for colour in colours}


def test_half_precision_halves_the_features_and_hardly_changes_scores(trained, tmp_path, folder):
    torch.manual_seed(0)
    model = SamLad(**TRAINED, half_precision_bank=not trained[0].model.options.half_precision_bank)
    engine(tmp_path).fit(model, datamodule=datamodule(folder))
    images = torch.rand(4, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    both = [trained[0].eval().model, model.eval().model]
    less, more = sorted(network.bank.crops.nbytes for network in both)
    assert more == 2 * less
    torch.testing.assert_close(*(network(images).pred_score for network in both), rtol=0.02, atol=0.05)


def test_coreset_keeps_its_share(tmp_path, few, small):
    model = SamLad(**small, coreset=0.5)
    engine(tmp_path).fit(model, datamodule=datamodule(few))
    assert len(model.model.bank) == 3
    assert model.model.scores["composition"].number == 6  # of all normal images


@pytest.mark.parametrize(
    "arguments",
    [
        {"align": "none", "geometry": 0.0, "score_missing": False, "composition": False},
        {"align": "box", "k": 3, "descriptor": "dcga", "image_score": "std"},
        {"selection": "random", "descriptor": "dcga_literal", "image_score": "max"},
        {"lite": True, "align": "nearest", "descriptor": "gmp", "upsample": 1, "sigma": 0.0},
        {**TINY_VIT, "upsample": 4},
    ],
    ids=str,
)
def test_every_switch_trains_and_tests(tmp_path, few, folder, small, arguments, monkeypatch):
    monkeypatch.setattr(lightning_model, "CHANGED", 2)
    model = SamLad(**{**small, **arguments})
    engine(tmp_path).train(model, datamodule=datamodule(few))
    result = model.eval()(images_of(folder, "bad"))
    assert torch.isfinite(result.pred_score).all()
    assert torch.isfinite(result.anomaly_map).all()
    assert result.anomaly_map.shape == (4, 1, 64, 96)
    assert result.pred_score.unique().numel() > 1


def test_real_segment_anything_network_goes_through_training_and_checkpoint(tmp_path, few, small, monkeypatch):
    monkeypatch.setattr(lightning_model, "CHANGED", 2)
    tiny = {"embed_dim": 32, "depth": 2, "num_heads": 2, "global_attn_indexes": (1,)}
    monkeypatch.setitem(segment_anything.ENCODERS, "vit_b", tiny)
    torch.manual_seed(0)
    model = SamLad(**{**small, "objects": "sam_vit_b"}, sam_size=64, sam_points=4)
    model.model.encoder.objects.iou_threshold, model.model.encoder.objects.stability_threshold = -1e3, 0.0
    run = engine(tmp_path)
    run.fit(model, datamodule=datamodule(few))
    loaded = SamLad.load_from_checkpoint(run.trainer.checkpoint_callback.best_model_path)
    loaded.model.encoder.objects.iou_threshold, loaded.model.encoder.objects.stability_threshold = -1e3, 0.0
    assert model.model.bank.valid.any()  # random weights find nothing in some images
    images = torch.rand(2, 3, 64, 96)
    assert torch.equal(model.eval()(images).pred_score, loaded.eval()(images).pred_score)


def test_loaded_checkpoint_needs_no_upsampler_file(tmp_path, few, small):
    state = {f"upsampler.{name}": value for name, value in JbuUpsampler(32).state_dict().items()}
    norm = {"model.1.norm.weight": torch.rand(32), "model.1.norm.bias": torch.rand(32)}
    torch.save({"state_dict": state | norm}, tmp_path / "featup.ckpt")
    arguments = {**TINY_VIT, "upsample": 2, "upsampler_weights": str(tmp_path / "featup.ckpt")}
    model = SamLad(**{**small, **arguments})
    run = engine(tmp_path)
    run.fit(model, datamodule=datamodule(few))
    (tmp_path / "featup.ckpt").unlink()
    loaded = SamLad.load_from_checkpoint(run.trainer.checkpoint_callback.best_model_path)
    images = torch.rand(1, 3, 64, 96)
    assert torch.equal(model.eval()(images).pred_score, loaded.eval()(images).pred_score)


@pytest.mark.parametrize("change", ["a field less", "a field more"])
def test_checkpoint_with_other_fields_is_refused_in_one_sentence(trained, tmp_path, change):
    checkpoint = torch.load(trained[1].trainer.checkpoint_callback.best_model_path, weights_only=True)
    if change == "a field less":
        del checkpoint["state_dict"]["model.scores.composition.shrinkage"]
    else:
        checkpoint["state_dict"]["model.scores.composition.histograms"] = torch.zeros(3, 4)
    torch.save(checkpoint, tmp_path / "old.ckpt")
    with pytest.raises(ValueError, match="that had other fields: fit the model again"):
        SamLad.load_from_checkpoint(tmp_path / "old.ckpt")


@pytest.mark.parametrize("kept", [{}, {"format": 0}])
def test_checkpoint_whose_fields_mean_something_else_is_refused(trained, tmp_path, kept):
    checkpoint = torch.load(trained[1].trainer.checkpoint_callback.best_model_path, weights_only=True)
    assert checkpoint["anomalib_logic"].pop("format") == lightning_model.FORMAT
    checkpoint["anomalib_logic"] |= kept
    torch.save(checkpoint, tmp_path / "old.ckpt")
    with pytest.raises(ValueError, match="that had other fields: fit the model again"):
        SamLad.load_from_checkpoint(tmp_path / "old.ckpt")


@pytest.mark.parametrize("coreset", [1.0, 0.5])
def test_copies_of_normal_images_count_once(small, folder, tmp_path, caplog, coreset):
    (tmp_path / "good").mkdir()
    (tmp_path / "bad").symlink_to(folder / "bad")
    for i in range(24):
        (tmp_path / "good" / f"{i:02}.png").symlink_to(folder / "good" / f"{i // 4:02}.png")
    model = SamLad(**small, coreset=coreset)
    data = Folder("copies", "good", tmp_path, "bad", test_split_mode="synthetic", num_workers=0, seed=0)
    engine(tmp_path / "run").fit(model, datamodule=data)
    files = [Path(path).resolve() for path in data.train_data.samples.image_path]
    assert len(model.model.bank) == int(coreset * len(set(files)))
    assert f"{len(files) - len(set(files))} of {len(files)} normal images are exact copies" in caplog.text
    assert all(score.unit.min() > 1e-6 for name, score in model.model.scores.items() if name != "count")


@pytest.mark.slow
def test_images_that_are_clustered_are_drawn_from_all(small, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(lightning_model, "SAMPLE", 3)
    drawn = []
    for seed in (0, 0, 1, 2):
        model = SamLad(**small, seed=seed)
        take = model.model.fit_encoder
        monkeypatch.setattr(model.model, "fit_encoder", lambda *args, take=take: drawn.append(args[0]) or take(*args))
        engine(tmp_path).fit(model, datamodule=datamodule(folder))
    assert all(len(images) == 3 for images in drawn)
    assert torch.equal(drawn[0], drawn[1])
    assert len({images.sum().item() for images in drawn}) == 3


@pytest.mark.parametrize("precision", ["16-true", "bf16-true"])
def test_weights_in_half_precision_are_refused(small, few, tmp_path, precision):
    run = Engine(default_root_dir=tmp_path, accelerator="cpu", precision=precision)
    with pytest.raises(ValueError, match=f"precision {precision} .*: use 32-true or {precision[:-4]}mixed"):
        run.fit(SamLad(**small), datamodule=datamodule(few))


def test_fit_of_several_processes_is_refused(small, few, tmp_path, monkeypatch):
    monkeypatch.setattr("lightning.pytorch.Trainer.world_size", 2)
    with pytest.raises(RuntimeError, match="filled by one process, not by 2: fit it with devices=1"):
        engine(tmp_path).fit(SamLad(**small), datamodule=datamodule(few))


def test_options_are_taken_by_themselves_and_in_their_groups(small):
    small = {name: value for name, value in small.items() if name != "scene_size"}
    models = [
        SamLad(**small, scene_size=16, k=3),
        SamLad(**small, bank={"scene_size": 16, "k": 3}),
        SamLad(**small, bank=SamLadBank(scene_size=16, k=3)),
    ]
    assert models[0].model.options == models[1].model.options == models[2].model.options
    with pytest.raises(TypeError, match="SamLad has no option 'neighbours'; it has objects, max_objects"):
        SamLad(**small, neighbours=3)


def test_empty_bank_is_an_error_that_says_what_to_do(small):
    with pytest.raises(RuntimeError, match="the bank is empty: train the model"):
        SamLad(**small).eval()(torch.rand(1, 3, 64, 96))


def test_fewer_normals_than_k_are_all_used(tmp_path, few, small, caplog):
    model = SamLad(**small, k=50)
    engine(tmp_path).fit(model, datamodule=datamodule(few))
    number = len(model.model.bank)
    network = model.eval().model
    compared = network.compare(network.represent(torch.rand(1, 3, 64, 96)))
    assert compared.references.shape == (1, number)
    assert f"the bank has {number} images, fewer than k=50" in caplog.text


def test_image_without_objects_is_compared_as_a_whole_and_said_once(trained, caplog):
    model = trained[0].eval()
    areas = model.model.encoder.objects.areas.clone()
    model.model.encoder.objects.areas.fill_(2.0)
    batches = [torch.rand(1, 3, 64, 96) for _ in range(2)]
    scores = [model.model(batch).pred_score for batch in batches]
    for batch in batches:
        model.warn_of_objects(model.model.represent(batch))
    model.model.encoder.objects.areas.copy_(areas)
    assert all(torch.isfinite(score).all() for score in scores)
    assert caplog.text.count("no object was found in an image") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 100}, r"image_size must be multiples of 16 pixels.*got \(100, 100\)"),
        ({"upsampler_weights": "jbu"}, "upsampler_weights=jbu needs a backbone of one scale"),
        ({"objects": "sam"}, r"objects must be one of \('sam_vit_h'.*got 'sam'"),
        ({"align": "abc"}, r"align must be one of \('combined', 'nearest', 'box', 'none'\), got 'abc'"),
        ({"upsample": 3}, r"upsample must be one of .*got 3"),
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"max_objects": 0}, "max_objects must be at least 1, got 0"),
        ({"scene_size": 0}, "scene_size must be at least 1, got 0"),
        ({"object_size": 0}, "object_size must be at least 1, got 0"),
        ({"clusters": 1}, "clusters must be at least 2, got 1"),
        ({"eps": 0.0}, r"eps must be above 0, got 0\.0"),
        ({"area_range": [0.5, 0.1]}, r"area_range must be two shares .* got \[0\.5, 0\.1\]"),
        ({"area_range": [0.1]}, "area_range must be two shares"),
        ({"coreset": 1.5}, r"coreset must be above 0 and at most 1, got 1\.5"),
    ],
)
def test_argument_out_of_range_is_refused_by_name(small, arguments, message):
    with pytest.raises(ValueError, match=message):
        SamLad(**{**small, **arguments})


@pytest.mark.parametrize("arguments", [{"upsample": 3}, {"k": 0}, {"objects": "sam"}, {"align": "abc"}], ids=str)
def test_options_are_checked_before_weights_are_read(small, arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must be"):
        SamLad(**{**small, **arguments, "pre_trained": True, "backbone_weights": "gone.safetensors"})

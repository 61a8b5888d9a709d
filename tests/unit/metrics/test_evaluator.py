# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What a test run reports, on data in the LOCO layout and on other data, and the maps that it writes.

The model gives the maps of a file as they are, so that the metrics are known; post-processor and engine are Anomalib's.
"""

import logging
import shutil
from types import SimpleNamespace

import pytest
import tifffile
import torch
from anomalib import LearningType
from anomalib.data import Folder
from anomalib.data.transforms import ExportableCenterCrop, SquarePad
from anomalib.engine import Engine
from anomalib.metrics import AUROC, Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.pre_processing import PreProcessor
from PIL import Image
from torch import nn
from torchvision.transforms.v2 import (
    RGB,
    CenterCrop,
    ColorJitter,
    Compose,
    GaussianBlur,
    Identity,
    Lambda,
    Normalize,
    Pad,
    RandomApply,
    RandomCrop,
    RandomHorizontalFlip,
    RandomRotation,
    Resize,
    ToDtype,
)

from anomalib_logic import AnomalyMapWriter, AUsPRO, Glcf, LocoAUROC, LocoEvaluator, MVTecLoco
from anomalib_logic.metrics import loco
from anomalib_logic.metrics.functional import resize_anomaly_map
from anomalib_logic.models.components.defaults import default_evaluator, resolve_evaluator

from .conftest import SIZE, batches

USUAL = {"image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score"}
KINDS = ("logical", "structural", "mean")
LOCO = {f"image_AUROC_{kind}" for kind in KINDS} | {f"pixel_AUsPRO_5_{kind}" for kind in KINDS}


class Oracle(AnomalibModule):
    """Model that knows the map of each test image; its post-processor has seen scores of good images only."""

    def __init__(self, test_set, **components):
        super().__init__(pre_processor=False, visualizer=False, **components)
        self.model = nn.Identity()
        self.maps = dict(zip(test_set.paths, test_set.maps, strict=True))
        if self.post_processor is not None:
            for name, value in {"min": -1.0, "max": 1.0}.items():
                getattr(self.post_processor, f"image_{name}").fill_(value)
                getattr(self.post_processor, f"pixel_{name}").fill_(value)
            self.post_processor._image_threshold.fill_(1.0)
            self.post_processor._pixel_threshold.fill_(1.0)

    def test_step(self, batch, batch_idx):
        maps = torch.stack([self.maps.get(path, torch.zeros(SIZE)) for path in batch.image_path])
        return batch.update(anomaly_map=maps, pred_score=maps.amax(dim=(1, 2)))

    def training_step(self, batch, batch_idx):
        pytest.fail("no test trains")

    def configure_optimizers(self):
        return None

    trainer_arguments = {}
    learning_type = LearningType.ONE_CLASS


def run(test_set, model, tmp_path, datamodule=None, callbacks=None, **trainer):
    """Test a model; return what was logged."""
    if datamodule is None:
        datamodule = loco_data(test_set)
    quiet = {"enable_progress_bar": False, "logger": False, "accelerator": "cpu"}
    engine = Engine(default_root_dir=tmp_path / "results", callbacks=callbacks, **quiet, **trainer)
    (results,) = engine.test(model, datamodule=datamodule)
    return results


def loco_data(test_set, batch=4):
    data = {"root": test_set.category.parent, "category": test_set.category.name, "num_workers": 0}
    return MVTecLoco(**data, eval_batch_size=batch, val_split_mode="same_as_test")


def folder_data(test_set):
    """The category's normal and structural images as a folder of good and bad parts."""
    root = test_set.category.with_name("parts")
    shutil.copytree(test_set.category / "test" / "good", root / "good", dirs_exist_ok=True)
    shutil.copytree(test_set.category / "test" / "structural_anomalies", root / "bad", dirs_exist_ok=True)
    return Folder("parts", "good", root, "bad", num_workers=0, test_split_ratio=0.5, val_split_mode="same_as_test")


def value_of(test_set, metric):
    for batch in batches(test_set, 9):
        metric.update(batch)
    return metric.compute().item()


@pytest.fixture(autouse=True)
def full_size_maps(test_set):
    """Maps of the images' size, and their maxima as scores: what the oracle gives."""
    test_set.maps = torch.stack([resize_anomaly_map(m, SIZE) for m in test_set.maps])
    test_set.scores = test_set.maps.amax(dim=(1, 2))


def test_loco_data_is_reported_with_the_protocols_figures_of_unclamped_maps(test_set, tmp_path):
    logged = run(test_set, Oracle(test_set, evaluator=default_evaluator()), tmp_path)
    assert set(logged) == USUAL | LOCO
    for kind in KINDS:
        assert logged[f"image_AUROC_{kind}"] == pytest.approx(value_of(test_set, LocoAUROC(kind)), abs=1e-6)
        assert logged[f"pixel_AUsPRO_5_{kind}"] == pytest.approx(value_of(test_set, AUsPRO(kind=kind)), abs=1e-6)


def test_plain_evaluator_with_loco_metrics_sees_unclamped_maps_and_clamped_ones_would_give_others(test_set, tmp_path):
    """The reason why LocoEvaluator takes the maps before the post-processor."""
    plain, ours = (
        run(test_set, Oracle(test_set, evaluator=resolve(Evaluator(test_metrics=[AUsPRO()]))), tmp_path)
        for resolve in (lambda evaluator: evaluator, resolve_evaluator)
    )
    expected = value_of(test_set, AUsPRO())
    assert ours["AUsPRO_5_mean"] == pytest.approx(expected, abs=1e-6)
    assert abs(plain["AUsPRO_5_mean"] - expected) > 0.01


def test_other_data_is_reported_with_anomalibs_figures_only(test_set, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="anomalib_logic"):
        logged = run(test_set, Oracle(test_set, evaluator=default_evaluator()), tmp_path, folder_data(test_set))
    assert {name for name in logged if name in USUAL | LOCO} <= USUAL
    assert "is not reported" not in caplog.text  # nobody asked for metrics of another layout


def test_category_with_one_kind_is_reported_with_that_kinds_metrics(test_set, tmp_path):
    for folder in ("test", "ground_truth"):
        shutil.rmtree(test_set.category / folder / "structural_anomalies")
    logged = run(test_set, Oracle(test_set, evaluator=default_evaluator()), tmp_path)
    assert set(logged) == USUAL | {"image_AUROC_logical", "pixel_AUsPRO_5_logical"}


def test_category_without_configuration_is_reported_with_image_metrics(test_set, tmp_path):
    (test_set.category / "defects_config.json").unlink()
    logged = run(test_set, Oracle(test_set, evaluator=default_evaluator()), tmp_path)
    assert set(logged) == USUAL | {f"image_AUROC_{kind}" for kind in KINDS}


def test_run_over_a_part_of_the_images_is_no_error_for_figures_that_nobody_asked_for(test_set, tmp_path, caplog):
    logged = run(test_set, Oracle(test_set, evaluator=default_evaluator()), tmp_path, limit_test_batches=1)
    assert not LOCO & set(logged)
    assert "the metrics of MVTec LOCO AD are not reported: the logical metric needs test images" in caplog.text


def test_one_model_is_tested_on_two_data_sets(test_set, tmp_path):
    model = Oracle(test_set, evaluator=default_evaluator())
    first = run(test_set, model, tmp_path)
    assert not LOCO & set(run(test_set, model, tmp_path, folder_data(test_set)))
    assert run(test_set, model, tmp_path) == first


def test_run_that_failed_leaves_nothing_to_the_next(test_set, tmp_path):
    metric = AUsPRO(kind="structural")
    broken = test_set.maps[-1].clone()
    test_set.maps[-1] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinity"):
        run(test_set, Oracle(test_set, evaluator=LocoEvaluator(test_metrics=[metric])), tmp_path)
    test_set.maps = -test_set.maps
    test_set.maps[-1] = -broken
    logged = run(test_set, Oracle(test_set, evaluator=LocoEvaluator(test_metrics=[metric])), tmp_path)
    assert logged["AUsPRO_5_structural"] == pytest.approx(value_of(test_set, AUsPRO(kind="structural")), abs=1e-6)


def test_batch_size_changes_no_metric(test_set, tmp_path):
    model = Oracle(test_set, evaluator=default_evaluator())
    one, all_at_once = (run(test_set, model, tmp_path, loco_data(test_set, batch=batch)) for batch in (1, 32))
    assert {name: one[name] for name in LOCO} == {name: all_at_once[name] for name in LOCO}


def test_test_dataloader_without_data_module_is_enough(test_set, tmp_path):
    data = loco_data(test_set)
    data.setup()
    engine = Engine(default_root_dir=tmp_path, enable_progress_bar=False, logger=False, accelerator="cpu")
    (logged,) = engine.test(Oracle(test_set, evaluator=default_evaluator()), dataloaders=data.test_dataloader())
    assert logged["pixel_AUsPRO_5_mean"] == pytest.approx(value_of(test_set, AUsPRO()), abs=1e-6)


def test_limits_and_defects_are_options(test_set, tmp_path):
    evaluator = LocoEvaluator(test_metrics=[], limits=[0.05, 0.3], per_defect=True)
    logged = run(test_set, Oracle(test_set, evaluator=evaluator), tmp_path)
    names = [*KINDS, "missing", "scratch", "unseen"]
    assert set(logged) == {f"image_AUROC_{kind}" for kind in KINDS} | {
        f"pixel_AUsPRO_{limit}_{name}" for limit in (5, 30) for name in names
    }
    expected = value_of(test_set, AUsPRO(limit=0.3, defect="scratch"))
    assert logged["pixel_AUsPRO_30_scratch"] == pytest.approx(expected, abs=1e-6)


def test_metrics_of_one_evaluator_share_what_they_keep(test_set):
    metrics = [AUsPRO(kind=kind) for kind in KINDS]
    evaluator = LocoEvaluator(test_metrics=metrics)
    trainer = SimpleNamespace(datamodule=loco_data(test_set), num_devices=1)
    trainer.datamodule.setup()
    evaluator._choose(trainer)
    evaluator.loco_metrics.update(next(batches(test_set, 9)))
    assert len({metric.values[0].data_ptr() for metric in metrics}) == 1


def test_category_without_ground_truth_is_reported_with_image_metrics(test_set, tmp_path, caplog):
    shutil.rmtree(test_set.category / "ground_truth")
    logged = run(test_set, Oracle(test_set, evaluator=default_evaluator()), tmp_path)
    assert set(logged) == {"image_AUROC", "image_F1Score"} | {f"image_AUROC_{kind}" for kind in KINDS}
    assert caplog.text.count("has no ground_truth folder: there are no masks, and so no pixel metrics") == 1


def test_autovi_is_reported_with_figures_of_each_defect_folder(autovi_set, tmp_path):
    logged = run(autovi_set, Oracle(autovi_set, evaluator=default_evaluator()), tmp_path)
    names = {"no_clip": "no clip", "scratch": "scratch", "mean": "mean"}
    assert set(logged) == USUAL | {f"image_AUROC_{n}" for n in names} | {f"pixel_AUsPRO_5_{n}" for n in names}
    for name, kind in names.items():
        assert logged[f"image_AUROC_{name}"] == pytest.approx(value_of(autovi_set, LocoAUROC(kind)), abs=1e-6)
        assert logged[f"pixel_AUsPRO_5_{name}"] == pytest.approx(value_of(autovi_set, AUsPRO(kind=kind)), abs=1e-6)


def test_figures_of_autovis_defects_have_other_names_than_those_of_its_folders(autovi_set, tmp_path):
    evaluator = LocoEvaluator(test_metrics=[], per_defect=True)
    logged = run(autovi_set, Oracle(autovi_set, evaluator=evaluator), tmp_path)
    assert {name for name in logged if "defect" in name} == {
        f"pixel_defect_AUsPRO_5_{name}" for name in ("missing", "scratch", "unseen")
    }
    assert logged["pixel_AUsPRO_5_scratch"] != logged["pixel_defect_AUsPRO_5_scratch"]


def test_folders_of_the_same_name_in_metrics_are_refused(autovi_set, tmp_path):
    for folder in ("test", "ground_truth"):
        (autovi_set.category / folder / "scratch").rename(autovi_set.category / folder / "no_clip")
    with pytest.raises(
        ValueError, match=r"folders \['no clip', 'no_clip'\] .* same name in metrics, 'no_clip'; rename"
    ):
        run(autovi_set, Oracle(autovi_set, evaluator=LocoEvaluator()), tmp_path)


# explicit requests on data that does not allow them


@pytest.mark.parametrize("evaluator", [LocoEvaluator, lambda: resolve_evaluator(Evaluator(test_metrics=[AUsPRO()]))])
def test_figures_that_other_data_does_not_allow_are_an_error_at_setup(test_set, tmp_path, evaluator):
    model = Oracle(test_set, evaluator=evaluator())
    model.test_step = lambda batch, batch_idx: pytest.fail("the run must not come that far")
    with pytest.raises(ValueError, match="image_path must lie in a folder named one of"):
        run(test_set, model, tmp_path, folder_data(test_set))


def test_missing_configuration_is_an_error_at_setup(test_set, tmp_path):
    (test_set.category / "defects_config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"defects_config\.json does not exist"):
        run(test_set, Oracle(test_set, evaluator=LocoEvaluator()), tmp_path)


def test_missing_kind_is_an_error_at_setup(test_set, tmp_path):
    for folder in ("test", "ground_truth"):
        shutil.rmtree(test_set.category / folder / "logical_anomalies")
    model = Oracle(test_set, evaluator=LocoEvaluator(test_metrics=[AUsPRO(kind="logical")]))
    with pytest.raises(ValueError, match=r"none in \['logical_anomalies'\]"):
        run(test_set, model, tmp_path)


def test_unknown_defect_is_an_error_at_setup(test_set, tmp_path):
    model = Oracle(test_set, evaluator=LocoEvaluator(test_metrics=[AUsPRO(defect="dent")]))
    with pytest.raises(ValueError, match=r"defect must be one of \('missing', 'scratch', 'unseen'\)"):
        run(test_set, model, tmp_path)


def test_figures_are_checked_before_training(test_set, tmp_path):
    model = Oracle(test_set, evaluator=LocoEvaluator())
    engine = Engine(default_root_dir=tmp_path, max_epochs=1, logger=False, accelerator="cpu")
    with pytest.raises(ValueError, match="image_path must lie in a folder named one of"):
        engine.fit(model, datamodule=folder_data(test_set))


def test_validation_metric_needs_validation_images_of_its_kinds(test_set, tmp_path):
    data = loco_data(test_set)
    shutil.copytree(test_set.category / "test" / "good", test_set.category / "validation" / "good")
    data.val_split_mode = "from_dir"
    model = Oracle(test_set, evaluator=LocoEvaluator(val_metrics=[AUsPRO()]))
    with pytest.raises(ValueError, match="test images must lie in <category>/test/<kind>/"):
        run(test_set, model, tmp_path, data)


# our models


def small_glcf(**arguments):
    return Glcf(backbone="mobilenetv2_035", pre_trained=False, width=48, depth=1, heads=4, **arguments)


def test_our_models_report_the_protocols_figures_by_default():
    evaluator = small_glcf().evaluator
    assert type(evaluator) is LocoEvaluator
    assert not evaluator.required
    assert {metric.name for metric in evaluator.test_metrics} == USUAL


def test_our_models_give_a_users_metrics_unclamped_maps():
    evaluator = small_glcf(evaluator=Evaluator(test_metrics=[AUsPRO()])).evaluator
    assert type(evaluator) is LocoEvaluator
    assert evaluator.required


@pytest.mark.parametrize("evaluator", [False, Evaluator(test_metrics=[AUROC(fields=["pred_score", "gt_label"])])])
def test_our_models_keep_any_other_evaluator(evaluator):
    assert small_glcf(evaluator=evaluator).evaluator is (evaluator or None)


# maps in MVTec's layout


def test_written_maps_give_the_runs_figures_with_the_command(test_set, tmp_path):
    callbacks = [AnomalyMapWriter(tmp_path / "maps")]
    logged = run(test_set, Oracle(test_set, evaluator=default_evaluator()), tmp_path, callbacks=callbacks)
    (results,) = [loco.evaluate(test_set.category.parent, ["tray"], tmp_path / "maps")]
    for kind in KINDS:
        name = kind if kind == "mean" else f"{kind}_anomalies"
        assert results["localization"]["auc_spro"][name]["0.05"] == pytest.approx(logged[f"pixel_AUsPRO_5_{kind}"])
        assert results["classification"]["auc_roc"][name] == pytest.approx(logged[f"image_AUROC_{kind}"])


def test_written_maps_are_the_models_at_the_images_size(test_set, tmp_path):
    full_size = test_set.maps
    test_set.maps = torch.nn.functional.avg_pool2d(full_size, 4)
    model = Oracle(test_set)
    model.evaluator = None
    model.post_processor.enable_thresholding = False
    run(test_set, model, tmp_path, callbacks=[AnomalyMapWriter()])
    (folder,) = tmp_path.glob("results/**/anomaly_maps")
    files = sorted(folder.rglob("*"))
    assert sum(path.is_file() for path in files) == len(test_set.paths)
    for path, kind, expected in zip(test_set.paths, test_set.kinds, test_set.maps, strict=True):
        written = tifffile.imread(folder / "tray" / "test" / kind / f"{path[-7:-4]}.tiff")
        assert written.dtype == "float32"
        assert torch.equal(torch.from_numpy(written), resize_anomaly_map(expected, SIZE))


def test_writer_refuses_other_data_at_setup(test_set, tmp_path):
    with pytest.raises(ValueError, match="image_path must lie in a folder named one of"):
        run(test_set, Oracle(test_set), tmp_path, folder_data(test_set), [AnomalyMapWriter(tmp_path / "maps")])
    assert not (tmp_path / "maps").exists()


def test_writer_refuses_a_file_as_folder(test_set, tmp_path):
    (tmp_path / "maps").write_text("")
    with pytest.raises(NotADirectoryError, match="output_dir must be a folder"):
        run(test_set, Oracle(test_set), tmp_path, callbacks=[AnomalyMapWriter(tmp_path / "maps")])


def test_writer_names_the_image_of_a_map_that_is_not_finite(test_set, tmp_path):
    test_set.maps[0] = float("nan")
    model = Oracle(test_set, evaluator=False)
    with pytest.raises(ValueError, match=r"good/000\.png: .*NaN or infinity"):
        run(test_set, model, tmp_path, callbacks=[AnomalyMapWriter(tmp_path / "maps")])
    assert not [path for path in (tmp_path / "maps").rglob("*") if path.is_file()]


def test_maps_of_autovi_are_written_to_its_folders_and_give_the_runs_metrics(autovi_set, tmp_path):
    callbacks = [AnomalyMapWriter(tmp_path / "maps")]
    logged = run(autovi_set, Oracle(autovi_set, evaluator=default_evaluator()), tmp_path, callbacks=callbacks)
    results = loco.evaluate(autovi_set.category.parent, ["tray"], tmp_path / "maps")
    for name, kind in {"no_clip": "no clip", "scratch": "scratch", "mean": "mean"}.items():
        assert results["localization"]["auc_spro"][kind]["0.05"] == pytest.approx(logged[f"pixel_AUsPRO_5_{name}"])
        assert results["classification"]["auc_roc"][kind] == pytest.approx(logged[f"image_AUROC_{name}"])


def test_maps_of_jpeg_images_are_named_by_their_stem(test_set, tmp_path):
    for path in (test_set.category / "test").rglob("*.png"):
        with Image.open(path) as image:
            image.save(path.with_suffix(".jpg"))
        path.unlink()
    test_set.paths = [path.replace(".png", ".jpg") for path in test_set.paths]
    run(test_set, Oracle(test_set), tmp_path, callbacks=[AnomalyMapWriter(tmp_path / "maps")])
    assert len(list((tmp_path / "maps" / "tray").rglob("[0-9][0-9][0-9].tiff"))) == len(test_set.paths)


# models whose pre-processor crops


class CroppingOracle(Oracle):
    """Gives the mask as its pre-processor leaves it, so that the map covers the crop only."""

    def __init__(self, test_set, *transforms, **components):
        super().__init__(test_set, **components)
        self.pre_processor = PreProcessor(Compose(list(transforms)))

    def test_step(self, batch, batch_idx):
        maps = batch.gt_mask.float()
        return batch.update(anomaly_map=maps, pred_score=maps.amax(dim=(1, 2)))


# The masks' rows are 0 to 39 of 40 and columns 0 to 47 of 48; a crop of 30 x 36 shows rows 5 to 34, columns 6 to 41
INSIDE = {"logical_anomalies": ["001"], "structural_anomalies": ["000"]}


@pytest.fixture
def defects_inside(test_set):
    """Leave the anomalous images whose defects lie in the middle of the image."""
    for kind, stems in INSIDE.items():
        for path in (test_set.category / "test" / kind).iterdir():
            if path.stem not in stems:
                path.unlink()
                shutil.rmtree(test_set.category / "ground_truth" / kind / path.stem)
    return test_set


CROPS = {
    "crop": [CenterCrop((30, 38))],
    "resize and crop": [Resize((80, 96)), CenterCrop((60, 76))],
    "nested": [
        Compose([Compose([Resize((80, 96))]), Identity()]),
        Compose([CenterCrop((64, 80)), CenterCrop((60, 76))]),
    ],
    "short side": [Resize(80), CenterCrop((60, 76))],
    "crop larger than the image": [Resize((40, 48)), CenterCrop((61, 70))],
    "exportable crop": [ExportableCenterCrop((30, 38)), Normalize([0.5] * 3, [0.5] * 3)],
}


@pytest.mark.parametrize("transforms", CROPS.values(), ids=CROPS)
def test_oracle_on_a_crop_has_an_au_spro_of_1_where_the_defects_lie_in_the_crop(defects_inside, tmp_path, transforms):
    model = CroppingOracle(defects_inside, *transforms, evaluator=LocoEvaluator(test_metrics=[]))
    callbacks = [AnomalyMapWriter(tmp_path / "maps")]
    logged = run(defects_inside, model, tmp_path, callbacks=callbacks)
    results = loco.evaluate(defects_inside.category.parent, ["tray"], tmp_path / "maps")
    assert logged["pixel_AUsPRO_5_mean"] == pytest.approx(1, abs=1e-3)
    assert results["localization"]["auc_spro"]["mean"]["0.05"] == pytest.approx(1, abs=1e-3)


def test_written_map_of_a_crop_has_its_lowest_score_around_it(test_set, tmp_path):
    model = CroppingOracle(test_set, CenterCrop((20, 24)), evaluator=False)
    model.test_step = lambda batch, batch_idx: batch.update(
        anomaly_map=torch.linspace(2, 3, 480).view(20, 24).expand(len(batch.image), -1, -1),
        pred_score=torch.zeros(len(batch.image)),
    )
    run(test_set, model, tmp_path, callbacks=[AnomalyMapWriter(tmp_path / "maps")])
    written = torch.from_numpy(tifffile.imread(tmp_path / "maps" / "tray" / "test" / "good" / "000.tiff"))
    assert torch.equal(written[10:30, 12:36], torch.linspace(2, 3, 480).view(20, 24))
    written[10:30, 12:36] = 2
    assert torch.equal(written, torch.full(SIZE, 2.0))


@pytest.mark.parametrize(
    "transform",
    [
        RandomCrop(20),
        RandomHorizontalFlip(),
        Pad(3),
        Compose([RandomApply([RandomRotation(5)])]),
        SquarePad(),
        Lambda(abs),
    ],
    ids=lambda transform: type(transform).__name__,
)
@pytest.mark.parametrize("part", ["evaluator", "writer"])
def test_pre_processor_that_moves_pixels_otherwise_is_refused_at_setup(test_set, tmp_path, transform, part):
    evaluator = LocoEvaluator() if part == "evaluator" else False
    model = CroppingOracle(test_set, Resize((20, 24)), transform, evaluator=evaluator)
    model.test_step = lambda batch, batch_idx: pytest.fail("the run must not come that far")
    callbacks = [AnomalyMapWriter(tmp_path / "maps")] if part == "writer" else None
    with pytest.raises(ValueError, match="maps cannot be placed on their images again after "):
        run(test_set, model, tmp_path, callbacks=callbacks)


def test_augmentations_of_the_test_set_count_as_well(test_set, tmp_path):
    datamodule = loco_data(test_set)
    datamodule.test_augmentations = RandomHorizontalFlip()
    model = CroppingOracle(test_set, Resize((20, 24)), evaluator=LocoEvaluator())
    with pytest.raises(ValueError, match="after RandomHorizontalFlip"):
        run(test_set, model, tmp_path, datamodule)


def test_figures_that_nobody_asked_for_are_left_out_where_pixels_move_otherwise(test_set, tmp_path, caplog):
    model = CroppingOracle(test_set, Pad(3), evaluator=default_evaluator())
    logged = run(test_set, model, tmp_path)
    assert LOCO & set(logged) == {f"image_AUROC_{kind}" for kind in KINDS}
    assert caplog.text.count("the metrics of anomaly maps are not reported: maps cannot be placed") == 1


@pytest.mark.parametrize("transform", [ColorJitter(0.1), GaussianBlur(3), ToDtype(torch.float32), RandomApply([RGB()])])
def test_transforms_that_move_no_pixel_are_allowed(test_set, tmp_path, transform):
    model = CroppingOracle(test_set, transform, evaluator=LocoEvaluator(test_metrics=[]))
    assert run(test_set, model, tmp_path)["pixel_AUsPRO_5_mean"] == 1

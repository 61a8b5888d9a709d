# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import re

import pytest
import torch

from anomalib_logic import Glcf, MVTecLoco

from .conftest import FAST, SMALL_MODEL, anomalib


@pytest.mark.slow
def test_two_processes_measure_the_statistics_of_all_training_images(loco, tmp_path):
    anomalib(
        "fit",
        "--model=anomalib_logic.Glcf",
        *SMALL_MODEL,
        "--data=anomalib_logic.MVTecLoco",
        f"--data.root={loco}",
        "--data.category=squares",
        "--data.train_batch_size=3",
        *FAST,
        "--trainer.devices=2",
        "--trainer.strategy=ddp",
        "--trainer.max_epochs=1",
        cwd=tmp_path,
    )
    (checkpoint,) = tmp_path.glob("results/Glcf/MVTecLoco/squares/v*/weights/lightning/*.ckpt")
    model = Glcf.load_from_checkpoint(checkpoint).eval()
    data = MVTecLoco(root=loco, category="squares")
    data.setup()
    collected = [[] for _ in range(6)]
    for item in data.train_data:
        with torch.no_grad():
            errors = model.model.errors(model.model.maps(model.pre_processor(item.image[None])))
        for values, error in zip(collected, errors, strict=True):
            values.append(error.double().flatten())
    mean = torch.stack([torch.cat(values).mean() for values in collected])
    saved = model.model.anomaly_map_generator.normalization.mean.double()
    torch.testing.assert_close(saved, mean, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_two_processes_print_the_loco_figures_of_one(loco, checkpoint, tmp_path):
    printed = []
    for devices in (1, 2):
        output = anomalib(
            "test",
            "--model=anomalib_logic.Glcf",
            *SMALL_MODEL,
            "--data=anomalib_logic.MVTecLoco",
            f"--data.root={loco}",
            "--data.category=squares",
            "--data.eval_batch_size=2",
            f"--ckpt_path={checkpoint}",
            *FAST,
            f"--trainer.devices={devices}",
            "--trainer.strategy=ddp",
            cwd=tmp_path,
        ).stdout
        names = re.findall(r"((?:image_AUROC|pixel_AUsPRO_5)_(?:logical|structural|mean))\W+([\d.]+)", output)
        printed.append({name: float(value) for name, value in names})
    assert len(printed[0]) == 6
    assert all(figure > 0.1 for figure in printed[0].values())
    assert printed[1] == pytest.approx(printed[0], abs=1e-6)

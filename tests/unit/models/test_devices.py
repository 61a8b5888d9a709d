# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Models on a device that has neither float64 nor border padding."""

import pytest
import torch
from torch.nn import functional as F

from anomalib_logic.models.components.normal_statistics import MapNormalization
from anomalib_logic.models.glcf.loss import GlcfLoss
from anomalib_logic.models.glcf.torch_model import GlcfModel

from .emulated_device import emulated_device
from .sam_lad.conftest import build_model, fit_encoder

BACKBONE = {"backbone": "mobilenetv2_035", "pre_trained": False}


def images(number):
    """Two squares on noise, in slightly different places."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(number, 3, 64, 96, generator=generator) * 0.2
    for i, picture in enumerate(pictures):
        picture[:, 8 + i : 24 + i, 10:30] = 1.0
        picture[:, 36:52, 60 - i : 80 - i] = 0.6
    return pictures


def test_the_emulated_device_refuses_float64_and_border_padding():
    with emulated_device() as device:
        values = torch.ones(1, 1, 2, 2, device=device)
        with pytest.raises(TypeError, match="no float64"):
            values.double()
        with pytest.raises(TypeError, match="no float64"):
            torch.zeros(3, dtype=torch.float64).to(device)
        with pytest.raises(NotImplementedError, match="no border padding"):
            F.grid_sample(values, torch.zeros(1, 2, 2, 2, device=device), padding_mode="border", align_corners=False)
        assert values.cpu().double().sum() == 4


def test_statistics_are_computed_without_float64_on_the_device():
    batches = [[100 + torch.rand(2, 1, 8, 8), torch.rand(2, 1, 4, 4)] for _ in range(3)]
    expected = MapNormalization(2)
    for batch in batches:
        expected.update(batch)
    expected.finalize()
    with emulated_device() as device:
        normalization = MapNormalization(2).to(device)
        for batch in batches:
            normalization.update([error.to(device) for error in batch])
        normalization.finalize()
        mean, std = normalization.mean.cpu(), normalization.std.cpu()
    assert torch.equal(mean, expected.mean)
    assert torch.equal(std, expected.std)


def test_glcf_trains_and_scores_without_float64_on_the_device(small):
    torch.manual_seed(0)
    model = GlcfModel(**small)
    with emulated_device() as device:
        model.to(device)
        pictures = images(2).to(device)
        model.standardization.update(model.pyramid(pictures))
        model.standardization.finalize()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
        maps = model.train()(pictures)
        GlcfLoss("mse", (1.0, 1.0, 1.0))(*maps)["loss"].backward()
        optimizer.step()
        normalization = model.normalization
        normalization.update(model.errors(maps))
        normalization.finalize()
        with torch.no_grad():
            result = model.eval()(pictures)
        assert result.pred_score.device == device
        assert torch.isfinite(result.pred_score.cpu()).all()


@torch.no_grad()
def test_sam_lad_fits_and_scores_without_float64_on_the_device():
    torch.manual_seed(0)
    model = build_model(max_objects=6)
    with emulated_device() as device:
        model.to(device)
        pictures = images(4).to(device)
        fit_encoder(model, pictures)
        model.fit([model.represent(pictures)], 4)
        result = model(pictures[:2])
        assert result.pred_score.device == device
        assert torch.isfinite(result.pred_score.cpu()).all()

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Towers, head, noise and errors of LGFDR."""

import numpy as np
import pytest
import torch

from anomalib_logic.models.lgfdr.options import LgfdrNetworks, LgfdrScoring, LgfdrTraining
from anomalib_logic.models.lgfdr.torch_model import GlobalTower, LgfdrLoss, LgfdrModel, LocalTower, SelectiveHead

NETWORKS = {"width": 32, "local_depth": 1, "bottleneck": 8, "global_depth": 1}


def build(image_size=(64, 96), scoring=None, training=None, **networks):
    groups = (LgfdrNetworks(**{**NETWORKS, **networks}), LgfdrScoring(**scoring or {}), LgfdrTraining(**training or {}))
    torch.manual_seed(0)
    return LgfdrModel(image_size, *groups, "mobilenetv2_035", pre_trained=False)


def influence(tower, position):
    """Positions whose features change the reconstruction at a position."""
    features = torch.randn(1, 6, 8, 12, requires_grad=True)
    tower(features)[0, :, position[0], position[1]].square().sum().backward()
    return features.grad.abs().sum(dim=1)[0] > 1e-9


def test_global_tower_sees_all_positions():
    assert influence(GlobalTower(6, (8, 12), 16, 1, 2).eval(), (4, 6)).all()


def test_local_towers_convolutions_see_a_neighbourhood_only():
    tower = LocalTower(6, 16, 2, 4).eval()
    for norm in (module for module in tower.modules() if isinstance(module, torch.nn.GroupNorm)):
        norm.forward = lambda x: x  # its statistics are of the whole map
    seen = influence(tower, (4, 6))
    rows, columns = np.nonzero(seen.numpy())
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (1, 7, 3, 9)  # three blocks of 3 x 3


def test_local_tower_passes_no_more_than_the_bottlenecks_channels():
    tower = LocalTower(6, 16, 1, 4)
    narrow = [module.out_channels for module in tower if isinstance(module, torch.nn.Conv2d)]
    assert narrow == [16, 4, 16, 6]


def test_global_towers_queries_do_not_copy():
    """Without attention to the image, its reconstruction is the same for all images."""
    tower = GlobalTower(6, (8, 12), 16, 1, 2).eval()
    torch.nn.init.zeros_(tower.decoder[0].attn.proj.weight)
    torch.testing.assert_close(tower(torch.randn(1, 6, 8, 12)), tower(torch.randn(1, 6, 8, 12)))


def test_global_tower_tells_positions_apart():
    tower, features = GlobalTower(6, (8, 12), 16, 1, 2).eval(), torch.randn(1, 6, 8, 12)
    # The same patches in other places.
    assert not torch.allclose(tower(features), tower(features.roll(2, dims=3)), atol=1e-3)


def test_global_tower_lays_its_queries_out_row_by_row_as_patches_of_four():
    tower = GlobalTower(6, (8, 12), 16, 1, 2).eval()
    tower.encoder = tower.decoder = torch.nn.Identity()
    (result,) = tower(torch.randn(1, 6, 8, 12))
    weight, bias = tower.head[0].weight[:, :, 0, 0], tower.head[0].bias
    for y, x in ((0, 0), (1, 4), (3, 5)):
        query = (tower.queries + tower.position)[0, 6 * y + x]
        patch = (weight @ query + bias).view(6, 2, 2)
        torch.testing.assert_close(result[:, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2], patch)


def test_selective_head_weighs_both_reconstructions_by_a_softmax_for_each_channel():
    """As in selective-kernel networks: two logits a channel, from the pooled sum."""
    head = SelectiveHead(6)
    first, second = torch.randn(2, 6, 4, 4), torch.randn(2, 6, 4, 4)
    hidden, logits = ((layer.weight[:, :, 0, 0], layer.bias) for layer in (head.weights[0], head.weights[2]))
    pooled = (first + second).mean(dim=(2, 3))
    values = torch.nn.functional.gelu(pooled @ hidden[0].T + hidden[1]) @ logits[0].T + logits[1]
    weight = torch.sigmoid(values[:, :6] - values[:, 6:])[..., None, None]
    torch.testing.assert_close(head(first, second), weight * first + (1 - weight) * second)


def test_mean_head_averages_and_a_single_tower_is_taken_as_it_is():
    images = torch.rand(1, 3, 64, 96)
    maps = build(head="mean").eval().maps(images)
    torch.testing.assert_close(maps.fused, (maps.local + maps.global_) / 2)
    for towers, field in (("local", "local"), ("global", "global_")):
        maps = build(towers=towers).eval().maps(images)
        torch.testing.assert_close(maps.fused, getattr(maps, field))
        assert sum(value is None for value in maps) == 1


def test_features_are_the_standardised_maps_on_one_grid():
    model = build()
    images = torch.rand(2, 3, 64, 96)
    pyramid = model.pyramid(images)
    model.standardization.update(pyramid)
    model.standardization.finalize()
    features = model.eval().maps(images).features
    assert features.shape == (2, sum(model.pyramid.channels), 8, 12)
    middle = model.pyramid.channels[0], sum(model.pyramid.channels[:2])
    expected = (pyramid[1] - pyramid[1].mean((0, 2, 3), keepdim=True)) / model.standardization.std[
        middle[0] : middle[1]
    ].view(1, -1, 1, 1)
    torch.testing.assert_close(features[:, middle[0] : middle[1]], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "level"), [("gaussian", 0.5), ("gaussian", 2.0), ("varied", 0.5)])
def test_noise_has_the_level_and_is_added_in_training_only(kind, level):
    model = build(training={"noise": level, "noise_kind": kind}, towers="local")
    seen = []
    model.local_tower.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.rand(64, 3, 64, 96)
    noisy_target = model.train().maps(images).features
    clean_target = model.eval().maps(images).features
    torch.testing.assert_close(noisy_target, clean_target)
    assert torch.equal(seen[1], clean_target)
    levels = (seen[0] - clean_target).flatten(1).std(dim=1)
    if kind == "gaussian":
        torch.testing.assert_close(levels, torch.full_like(levels, level), rtol=0.1, atol=0)
    else:
        assert levels.min() < 0.3 * level
        assert 1.7 * level < levels.max() < 2.2 * level
        assert levels.mean().item() == pytest.approx(level, rel=0.25)


def test_errors_are_distances_of_each_scale():
    model = build().eval()
    maps = model.maps(torch.rand(2, 3, 64, 96))
    expected = [
        np.linalg.norm(fused - features, axis=1)
        for features, fused in zip(
            *([m.numpy() for m in maps_.detach().split(model.pyramid.channels, 1)] for maps_ in (maps[0], maps[3])),
            strict=True,
        )
    ]
    errors = model.errors(maps)
    assert len(errors) == 3
    for error, reference in zip(errors, expected, strict=True):
        np.testing.assert_allclose(error.detach()[:, 0].numpy(), reference, rtol=1e-4)


def test_one_error_of_all_channels_is_an_option():
    model = build(scoring={"normalize_scales": False, "distance": "cosine"}).eval()
    maps = model.maps(torch.rand(2, 3, 64, 96))
    (error,) = model.errors(maps)
    expected = 1 - torch.nn.functional.cosine_similarity(maps.features, maps.fused, dim=1)
    torch.testing.assert_close(error[:, 0], expected)


def test_loss_is_squared_error_and_cosine_of_each_reconstruction():
    features, local, fused = (torch.randn(2, 5, 3, 4) for _ in range(3))
    terms = LgfdrLoss()(features, local, None, fused)
    assert set(terms) == {"loss", "loss_local", "loss_fused"}
    for name, one in (("loss_local", local), ("loss_fused", fused)):
        a, b = features.double().numpy(), one.double().numpy()
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert terms[name].item() == pytest.approx(((a - b) ** 2).mean() + 1 - cosine.mean(), rel=1e-5)
    assert terms["loss"].item() == pytest.approx((terms["loss_local"] + terms["loss_fused"]).item())

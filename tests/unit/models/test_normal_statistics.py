# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import multiprocessing

import pytest
import torch

from anomalib_logic.models.components.normal_statistics import ChannelStandardization, MapNormalization


def batches(number=3):
    generator = torch.Generator().manual_seed(0)
    return [
        [100 + 3 * torch.randn(n + 1, 1, 4, 4, generator=generator), torch.randn(n + 1, 1, 2, 2, generator=generator)]
        for n in range(number)
    ]


def test_statistics_are_those_of_all_positions_of_all_batches():
    normalization = MapNormalization(2)
    for batch in batches():
        normalization.update(batch)
    normalization.finalize()
    for i in range(2):
        values = torch.cat([batch[i].flatten() for batch in batches()]).double()
        assert normalization.mean[i].item() == pytest.approx(values.mean().item(), rel=1e-5)
        assert normalization.std[i].item() == pytest.approx(values.std(correction=0).item(), rel=1e-5)


def test_normalised_maps_have_mean_zero_and_deviation_one():
    normalization = MapNormalization(2)
    batch = batches()[2]
    normalization.update(batch)
    normalization.finalize()
    for scaled in normalization(batch):
        assert scaled.mean().item() == pytest.approx(0, abs=1e-4)
        assert scaled.std(correction=0).item() == pytest.approx(1, rel=1e-4)


def test_unmeasured_maps_pass_unchanged():
    batch = batches()[0]
    assert all(torch.equal(a, b) for a, b in zip(MapNormalization(2)(batch), batch, strict=True))


def test_finalize_without_samples_keeps_the_statistics():
    normalization = MapNormalization(2)
    normalization.update(batches()[0])
    normalization.finalize()
    before = normalization.mean.clone()
    normalization.finalize()
    assert normalization.measured
    assert torch.equal(normalization.mean, before)


def test_statistics_travel_in_the_state_dict_and_sums_do_not():
    normalization = MapNormalization(2)
    normalization.update(batches()[0])
    assert set(normalization.state_dict()) == {"mean", "std", "measured"}


def test_each_channel_is_standardised_by_itself():
    standardization = ChannelStandardization([2, 3])
    scale = torch.tensor([1.0, 5.0]).view(1, 2, 1, 1)
    pyramid = [scale * torch.randn(4, 2, 8, 8) + scale, torch.randn(4, 3, 4, 4)]
    standardization.update(pyramid)
    standardization.finalize()
    for features in standardization(pyramid):
        torch.testing.assert_close(features.mean((0, 2, 3)), torch.zeros(features.shape[1]), atol=1e-4, rtol=0)
        deviation = features.transpose(0, 1).flatten(1).std(dim=1, correction=0)
        torch.testing.assert_close(deviation, torch.ones(features.shape[1]), atol=1e-3, rtol=0)


def test_dead_channel_does_not_drown_the_others():
    standardization = ChannelStandardization([2])
    alive = torch.tensor([-1.0, 1.0]).repeat(128).view(4, 1, 8, 8)  # standard deviation 1
    normal = torch.cat([alive, torch.zeros(4, 1, 8, 8)], dim=1)
    standardization.update([normal])
    standardization.finalize()
    awake = standardization([torch.ones(1, 2, 8, 8)])[0]
    assert awake[0, 1].max().item() == pytest.approx(2 / ChannelStandardization.FLOOR)


def test_pyramid_of_constant_channels_stays_finite():
    standardization = ChannelStandardization([1])
    standardization.update([torch.full((2, 1, 4, 4), 3.0)])
    standardization.finalize()
    assert torch.isfinite(standardization([torch.full((2, 1, 4, 4), 3.0)])[0]).all()


def _share(rank, world, store, queue):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    normalization = MapNormalization(2)
    for batch in batches()[rank::world]:
        normalization.update(batch)
    normalization.finalize()
    queue.put((normalization.mean.tolist(), normalization.std.tolist()))
    torch.distributed.destroy_process_group()


def test_two_processes_agree_with_one(tmp_path):
    single = MapNormalization(2)
    for batch in batches():
        single.update(batch)
    single.finalize()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_share, args=(rank, 2, tmp_path / "store", queue)) for rank in range(2)]
    for worker in workers:
        worker.start()
    results = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(timeout=60)
    for mean, std in results:
        assert mean == pytest.approx(single.mean.tolist(), rel=1e-6)
        assert std == pytest.approx(single.std.tolist(), rel=1e-6)

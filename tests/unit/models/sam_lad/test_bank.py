# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The bank's fields, streaming, search, and coresets."""

import pytest
import torch

from anomalib_logic.models.sam_lad import bank as bank_module
from anomalib_logic.models.sam_lad.bank import Bank, Template, greedy_k_center

IMAGES = {"key": torch.float, "coarse": torch.half, "valid": torch.bool, "words": torch.uint8}
OBJECTS = {"crops": torch.half}


def templates(number: int, slots: int = 3, seed: int = 0) -> Template:
    """Fields of images with 0 to ``slots`` objects, in any of their slots."""
    generator = torch.Generator().manual_seed(seed)
    valid = torch.rand(number, slots, generator=generator) > 0.4
    return {
        "key": torch.rand(number, 5, generator=generator),
        "coarse": torch.rand(number, 3, 4, 5, generator=generator),
        "valid": valid,
        "words": torch.randint(9, (number, 2, 4, 4), generator=generator).to(torch.uint8),
        "crops": torch.rand(number, slots, 2, 3, 3, generator=generator) * valid[..., None, None, None],
    }


def parts(fields: Template, sizes):
    """The same images, a few at a time."""
    return [
        dict(zip(fields, some, strict=True)) for some in zip(*(f.split(sizes) for f in fields.values()), strict=True)
    ]


@pytest.mark.parametrize("sizes", [[9], [1] * 9, [4, 5]], ids=str)
@pytest.mark.parametrize("block", [1, 200, 10**6])
def test_templates_come_back_however_they_were_given(sizes, block, monkeypatch):
    monkeypatch.setattr(bank_module, "BLOCK", block)
    fields, bank = templates(9), Bank(IMAGES, OBJECTS, half=False)
    bank.fill(iter(parts(fields, sizes)), 9)
    assert len(bank) == 9
    assert len(bank.crops) == fields["valid"].sum()  # none for empty slots
    found = bank.template(torch.arange(9))
    assert set(found) == set(fields)
    for name, values in fields.items():
        assert torch.equal(found[name], values), name


@pytest.mark.parametrize("sizes", [[10], [1] * 10, [4, 5, 1], [2, 8]], ids=str)
@pytest.mark.parametrize(("most", "kept"), [(10, range(10)), (4, [0, 2, 5, 7]), (9, range(9)), (1, [0])])
def test_sampled_fields_are_kept_of_the_images_that_are_held_out(sizes, most, kept, monkeypatch):
    monkeypatch.setattr(bank_module, "HELD_OUT", most)
    fields, bank = templates(10), Bank(IMAGES, OBJECTS, half=False, sampled=["coarse"])
    bank.fill(iter(parts(fields, sizes)), 10)
    kept = torch.tensor(list(kept))
    assert torch.equal(bank.held_out, kept)
    assert torch.equal(bank.images_of("coarse"), kept)
    assert torch.equal(bank.images_of("words"), torch.arange(10))
    assert torch.equal(bank.coarse, fields["coarse"][kept])
    assert torch.equal(bank.words, fields["words"])
    found = bank.template(bank.held_out)
    for name, values in fields.items():
        assert torch.equal(found[name], values[kept]), name
    if len(kept) < 10:
        with pytest.raises(ValueError, match=f"keeps 'coarse' of {len(kept)} of 10 images only"):
            bank.template(torch.arange(10))


def test_single_objects_are_found_by_image_and_slot():
    fields, bank = templates(6), Bank(IMAGES, OBJECTS, half=False)
    bank.fill([fields], 6)
    images, slots = torch.tensor([[3, 0]]), torch.tensor([[[0, 2, 1], [1, 1, 0]]])
    found = bank.objects("crops", images, slots)
    assert found.shape == (1, 2, 3, 2, 3, 3)
    for r in range(2):
        for k in range(3):
            assert torch.equal(found[0, r, k], fields["crops"][images[0, r], slots[0, r, k]])


def test_bank_without_any_object_has_zeros():
    fields, bank = templates(3), Bank(IMAGES, OBJECTS)
    fields["valid"][:] = False
    bank.fill([fields], 3)
    assert (bank.get("crops", torch.arange(3)) == 0).all()


@pytest.mark.parametrize("half", [True, False])
def test_features_are_kept_in_half_precision_if_that_is_wanted(half):
    fields, bank = templates(5), Bank(IMAGES, OBJECTS, half)
    bank.fill([fields], 5)
    kinds = {name: getattr(bank, name).dtype for name in fields}
    kept = torch.half if half else torch.float
    assert kinds == {"key": torch.float, "coarse": kept, "valid": torch.bool, "words": torch.uint8, "crops": kept}
    assert bank.get("coarse", torch.tensor([1])).dtype == torch.float


def test_another_number_of_images_than_announced_is_an_error():
    for number in (3, 5):
        with pytest.raises(ValueError, match=f"another number of normal images the second time \\({number} before"):
            Bank(IMAGES, OBJECTS).fill(parts(templates(4), [1] * 4), number)
    with pytest.raises(ValueError, match="the bank is empty"):
        Bank(IMAGES, OBJECTS).fill([], 0)


def test_fill_that_breaks_off_leaves_an_empty_bank():
    def interrupted():
        yield from parts(templates(4), [2, 2])[:1]
        raise KeyboardInterrupt

    bank = Bank(IMAGES, OBJECTS)
    bank.fill([templates(3)], 3)
    with pytest.raises(KeyboardInterrupt):
        bank.fill(interrupted(), 4)
    assert len(bank) == 0


def test_second_fill_replaces_the_first():
    bank, fresh = Bank(IMAGES, OBJECTS), Bank(IMAGES, OBJECTS)
    bank.fill([templates(7)], 7)
    for one in (bank, fresh):
        one.fill([templates(4, slots=2, seed=1)], 4)
    state, expected = bank.state_dict(), fresh.state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_filled_bank_is_loaded_from_its_state():
    bank, loaded = Bank(IMAGES, OBJECTS), Bank(IMAGES, OBJECTS)
    bank.fill([templates(4)], 4)
    loaded.load_state_dict(bank.state_dict())
    assert torch.equal(loaded.get("crops", torch.arange(4)), bank.get("crops", torch.arange(4)))


@pytest.mark.parametrize("seed", [0, 1])
def test_bank_depends_on_its_seed_alone(seed):
    banks = []
    for global_seed, own_seed in ((0, seed), (1, seed), (1, seed + 1)):
        torch.manual_seed(global_seed)
        banks.append(Bank(IMAGES, OBJECTS))
        banks[-1].fill([templates(4)], 4, own_seed)
    states = [bank.state_dict() for bank in banks]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["priority"], states[2]["priority"])


@pytest.mark.parametrize("together", [1, 4, 100])
def test_nearest_images_are_found_without_the_query_itself(together, monkeypatch):
    monkeypatch.setattr(bank_module, "KEYS", together)
    fields, bank = templates(6), Bank(IMAGES, OBJECTS)
    bank.fill([fields], 6)
    order = torch.cdist(fields["key"], fields["key"]).argsort(dim=1)
    assert torch.equal(bank.search(fields["key"], 3), order[:, :3])
    assert torch.equal(bank.search(fields["key"], 3, torch.arange(6)), order[:, 1:4])


@pytest.mark.parametrize(("block", "part"), [(1, 7), (5, 30), (500, 4096)])
def test_coreset_takes_the_farthest_point_each_time(block, part, monkeypatch):
    monkeypatch.setattr(bank_module, "FAR_POINTS", block)
    monkeypatch.setattr(bank_module, "PART", part)
    points = torch.cat([torch.rand(20, 3), 5 + 0.1 * torch.rand(10, 3)])
    chosen = greedy_k_center(points, 30).tolist()
    assert chosen[0] == 0
    assert sorted(chosen) == list(range(30))
    for i in range(1, 29):
        nearest = torch.cdist(points, points[chosen[:i]]).amin(dim=1)
        assert nearest[chosen[i]] == pytest.approx(nearest.max().item(), abs=1e-4)


def test_coreset_goes_on_from_what_was_chosen_before():
    points, before = torch.rand(40, 3), torch.rand(5, 3)
    distances = torch.cdist(points, before).square().amin(dim=1)
    distances[:10] = -1.0  # must not be chosen
    chosen = greedy_k_center(points, 12, distances).tolist()
    assert len(set(chosen)) == 12
    assert min(chosen) >= 10
    assert chosen[0] == distances.argmax()
    assert distances[0] == -1.0  # the caller's stays as it was

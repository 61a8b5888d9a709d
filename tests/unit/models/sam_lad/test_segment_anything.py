# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import re

import numpy as np
import pytest
import torch
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam
from torch.nn import functional as F

from anomalib_logic.models.sam_lad import segment_anything as module
from anomalib_logic.models.sam_lad.segment_anything import SegmentAnything, suppress_duplicates

TINY = {"embed_dim": 32, "depth": 2, "num_heads": 2, "global_attn_indexes": (1,)}
MEAN, STD = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])


@pytest.fixture(autouse=True)
def tiny_encoder(monkeypatch):
    monkeypatch.setitem(module.ENCODERS, "tiny", TINY)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return SegmentAnything("tiny", pre_trained=False, size=128, points=6, points_per_batch=10, slots=5)


@pytest.fixture
def picture():
    """A picture of 80 x 128 pixels as bytes, and normalised."""
    picture = np.random.default_rng(0).integers(0, 255, (80, 128, 3), dtype=np.uint8)
    normalised = (torch.from_numpy(picture).float() - MEAN) / STD
    return picture, normalised.permute(2, 0, 1).unsqueeze(0)


def original(model) -> Sam:
    """The package's own model around the same networks."""
    return Sam(model.image_encoder, model.prompt_encoder, model.mask_decoder, MEAN.tolist(), STD.tolist()).eval()


def test_kept_proposals_are_those_of_the_packages_generator(model, picture):
    image, normalised = picture
    masks, ious, stabilities = model.proposals(normalised, (80, 128))
    thresholds = ious.median().item(), stabilities.median().item()
    kept = (ious > thresholds[0]) & (stabilities >= thresholds[1])
    generator = SamAutomaticMaskGenerator(
        original(model),
        points_per_side=6,
        pred_iou_thresh=thresholds[0],
        stability_score_thresh=thresholds[1],
        box_nms_thresh=1.1,
    )
    expected = sorted(generator.generate(image), key=lambda record: record["predicted_iou"])
    order = ious[kept].argsort()
    assert 5 < len(expected) == int(kept.sum())
    np.testing.assert_allclose(ious[kept][order], [r["predicted_iou"] for r in expected], atol=1e-5)
    np.testing.assert_allclose(stabilities[kept][order], [r["stability_score"] for r in expected], atol=1e-3)
    areas = masks[kept][order].sum(dim=(1, 2))
    np.testing.assert_allclose(areas, [r["area"] for r in expected], atol=3)


def test_batch_gives_what_its_images_give_alone(model, picture):
    images = torch.cat([picture[1], picture[1].flip(3)])
    together = model.proposals(images, (20, 32))
    alone = model.proposals(images[1:], (20, 32))
    torch.testing.assert_close(together[1][1:], alone[1], atol=1e-5, rtol=1e-4)
    assert (together[0][1:] != alone[0]).float().mean() < 1e-3


def greedy(masks, valid, threshold):
    kept = []
    for i in range(len(masks)):
        ious = [(masks[i] * masks[j]).sum() / ((masks[i] + masks[j]) > 0).sum() for j in kept]
        if valid[i] and all(iou <= threshold for iou in ious):
            kept.append(i)
    return kept


def test_suppression_is_the_greedy_one():
    generator = torch.Generator().manual_seed(0)
    boxes = torch.randint(0, 24, (40, 2), generator=generator)
    masks = torch.zeros(1, 40, 32, 32)
    for mask, (top, left) in zip(masks[0], boxes.tolist(), strict=True):
        mask[top : top + 8, left : left + 8] = 1
    valid = torch.rand(1, 40, generator=generator) > 0.2
    kept = suppress_duplicates(masks, valid, 0.3)
    assert kept[0].nonzero().flatten().tolist() == greedy(masks[0], valid[0], 0.3)
    assert kept.sum() < valid.sum()


def test_objects_are_the_best_within_the_areas(model, picture):
    model.iou_threshold, model.stability_threshold = -1e3, 0.0
    masks, ious, _ = (values[0] for values in model.proposals(picture[1], (20, 32)))
    order = ious.argsort(descending=True)
    distinct = order[greedy(masks[order], ious[order] > 0, model.duplicate_threshold)]
    areas = masks[distinct].mean(dim=(1, 2))
    ordered = areas.sort().values
    model.areas.copy_(torch.stack([ordered[:2].mean(), ordered[-2:].mean()]))  # without the smallest and the largest
    expected = distinct[(areas > ordered[0]) & (areas < ordered[-1])]
    assert 0 < len(expected) <= len(distinct) - 2
    result = model(picture[1], torch.zeros(1, 3, 20, 32))
    number = min(5, len(expected))
    assert result.found.tolist() == [len(expected)]
    assert result.valid[0].tolist() == [True] * number + [False] * (5 - number)
    torch.testing.assert_close(result.scores[0, :number], ious[expected[:5]])
    assert torch.equal(result.masks[0, :number], masks[expected[:5]])
    assert result.masks[0, number:].sum() == 0


def test_checkpoint_of_the_packages_layout_is_loaded_at_another_size(model, tmp_path):
    state = original(model).state_dict()
    torch.save(state, tmp_path / "sam.pth")
    loaded = SegmentAnything("tiny", tmp_path / "sam.pth", size=64, points=4)
    assert torch.equal(loaded.mask_decoder.iou_token.weight, model.mask_decoder.iou_token.weight)
    expected = F.interpolate(model.image_encoder.pos_embed.permute(0, 3, 1, 2), (4, 4), mode="bicubic")
    torch.testing.assert_close(loaded.image_encoder.pos_embed.permute(0, 3, 1, 2), expected)
    loaded.proposals(torch.zeros(1, 3, 64, 64), (16, 16))


def test_checkpoint_of_another_size_of_model_is_refused(model, tmp_path, monkeypatch):
    torch.save(original(model).state_dict(), tmp_path / "sam.pth")
    monkeypatch.setitem(module.ENCODERS, "other", {**TINY, "embed_dim": 48})
    with pytest.raises(ValueError, match="is not one of 'other'"):
        SegmentAnything("other", tmp_path / "sam.pth", size=128)


def mobile_sams_name(name: str) -> str:
    """MobileSAM's name of an entry of ours, written down from its published checkpoint."""
    name = name.replace(".conv.", ".c.").replace("image_encoder.network.", "image_encoder.")
    name = re.sub(r"patch_embed\.conv([12])", lambda m: f"patch_embed.seq.{2 * int(m[1]) - 2}", name)
    name = re.sub(r"stages\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", name)
    return re.sub(r"stages\.(\d)\.", r"layers.\1.", name)


def test_mobile_sams_checkpoint_is_loaded(tmp_path):
    torch.manual_seed(0)
    model = SegmentAnything("mobile_sam", pre_trained=False, size=128, points=3)
    state = {mobile_sams_name(k): v for k, v in model.state_dict().items() if k not in ("grid", "areas")}
    assert "image_encoder.patch_embed.seq.2.bn.running_mean" in state
    assert "image_encoder.layers.2.downsample.conv2.c.weight" in state
    assert "image_encoder.layers.1.blocks.0.local_conv.c.weight" in state
    assert "image_encoder.layers.3.blocks.1.attn.attention_biases" in state
    state |= {"image_encoder.norm_head.weight": torch.ones(320), "image_encoder.head.weight": torch.ones(5, 320)}
    torch.save(state, tmp_path / "mobile_sam.pt")
    loaded = SegmentAnything("mobile_sam", tmp_path / "mobile_sam.pt", size=128, points=3)
    image = torch.randn(1, 3, 128, 128)
    assert model.image_encoder(image).shape == (1, 256, 8, 8)
    torch.testing.assert_close(loaded.image_encoder(image), model.image_encoder(image))


def test_size_that_is_no_multiple_of_the_patch_is_refused():
    with pytest.raises(ValueError, match="sam_size must be a multiple of 16, got 100"):
        SegmentAnything("tiny", pre_trained=False, size=100)


def test_random_weights_are_said_when_the_bank_is_filled_and_loaded_ones_are_not(model, picture, caplog):
    model.area_range = (0.1, 0.5)
    model.fit(picture[1], picture[1])
    assert "Segment Anything has random weights: pass sam_checkpoint=FILE or pre_trained=True" in caplog.text
    caplog.clear()
    model.load_state_dict(model.state_dict())
    model.fit(picture[1], picture[1])
    assert not caplog.text


def test_fewer_proposals_than_slots_are_refused():
    with pytest.raises(ValueError, match="sam_points=2 give 12 proposals, fewer than max_objects=20: raise sam_points"):
        SegmentAnything("tiny", pre_trained=False, size=128, points=2)


def test_candidates_are_at_least_the_slots():
    assert SegmentAnything("tiny", pre_trained=False, size=128, points=4, slots=40, candidates=10).candidates == 40

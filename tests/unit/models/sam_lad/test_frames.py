# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import onnxruntime
import openvino
import pytest
import torch
from torch.nn import functional as F

from anomalib_logic.models.sam_lad.frames import _sample, bounding_boxes, crop, crop_own, paste


def masks_of(*corners):
    masks = torch.zeros(1, len(corners), 32, 48)
    for slot, (top, left, bottom, right) in enumerate(corners):
        masks[0, slot, top:bottom, left:right] = 1
    return masks


def test_boxes_are_the_masks_extents():
    boxes = bounding_boxes(masks_of((4, 6, 12, 30), (0, 0, 32, 48), (31, 47, 32, 48)))
    scale = torch.tensor([32.0, 48, 32, 48])
    assert (boxes[0] * scale).round().int().tolist() == [[4, 6, 12, 30], [0, 0, 32, 48], [31, 47, 32, 48]]


def test_empty_mask_has_an_empty_box():
    assert bounding_boxes(torch.zeros(1, 2, 8, 8)).abs().max() == 0


def test_crop_of_an_object_does_not_depend_on_where_it_lies():
    patch = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    maps = torch.zeros(2, 3, 32, 48)
    maps[0, :, 4:12, 6:14] = patch
    maps[1, :, 20:28, 33:41] = patch
    boxes = torch.tensor([[[4 / 32, 6 / 48, 12 / 32, 14 / 48]], [[20 / 32, 33 / 48, 28 / 32, 41 / 48]]])
    crops = crop(maps, boxes, 8)
    torch.testing.assert_close(crops[0, 0], patch, atol=1e-5, rtol=0)
    torch.testing.assert_close(crops[0], crops[1], atol=1e-5, rtol=0)


def test_paste_undoes_crop_own():
    masks = masks_of((4, 6, 20, 22), (0, 32, 16, 48))
    boxes = bounding_boxes(masks)
    values = masks * torch.rand(1, 2, 32, 48, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(paste(crop_own(values, boxes, 16), boxes, (32, 48)), values, atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(1, 3), (7, 8), (24, 14), (64, 96)])
def test_sampling_is_that_of_grid_sample_with_repeated_borders(size):
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 3, *size, generator=generator)
    grid = torch.rand(2, 50, 60, 2, generator=generator) * 3 - 1.5
    expected = F.grid_sample(maps, grid, padding_mode="border", align_corners=False)
    torch.testing.assert_close(_sample(maps, grid), expected, atol=1e-6, rtol=0)


class CropAndPaste(torch.nn.Module):
    """Objects taken out of their frames and put back."""

    def forward(self, masks):
        boxes = bounding_boxes(masks)
        return paste(crop_own(masks, boxes, 16), boxes, (32, 48))


def test_exported_frames_give_the_same_maps(tmp_path):
    masks = masks_of((4, 6, 20, 22), (0, 32, 16, 48)) * torch.rand(1, 2, 32, 48).clamp_min(0.6)
    expected = CropAndPaste()(masks)
    file = tmp_path / "frames.onnx"
    torch.onnx.export(CropAndPaste(), (masks,), file, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(file)
    (result,) = session.run(None, {session.get_inputs()[0].name: masks.numpy()})
    torch.testing.assert_close(torch.from_numpy(result), expected, atol=1e-5, rtol=0)
    compiled = openvino.compile_model(openvino.convert_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    torch.testing.assert_close(torch.from_numpy(compiled(masks.numpy())[0]), expected, atol=1e-5, rtol=0)


def test_no_sampling_asks_for_border_padding(monkeypatch):
    asked = []
    sample = F.grid_sample
    monkeypatch.setattr(F, "grid_sample", lambda *a, **kw: (asked.append(kw.get("padding_mode")), sample(*a, **kw))[1])
    CropAndPaste()(masks_of((4, 6, 20, 22)))
    assert asked == [None, None]

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import torch

from anomalib_logic.models.sam_lad.frames import bounding_boxes, crop, crop_own, paste


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

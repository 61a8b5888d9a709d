# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Maps placed on images: what torchvision shows of an image comes back to where it was."""

import pytest
import torch
from anomalib.models import Dinomaly
from torchvision.transforms.v2 import CenterCrop, Compose, Resize
from torchvision.transforms.v2.functional import InterpolationMode

from anomalib_logic.metrics.functional import resize_anomaly_map
from anomalib_logic.metrics.map_geometry import MapGeometry

NEAREST = InterpolationMode.NEAREST


def seen(transform, size):
    """Map that numbers the pixels of an image, as the transform leaves it; restored again."""
    whole = torch.arange(size[0] * size[1], dtype=torch.float32).view(1, *size) + 1
    return whole[0], transform(whole)[0]


@pytest.mark.parametrize("size", [(40, 48), (41, 47), (39, 50)])
@pytest.mark.parametrize("crop", [(20, 24), (21, 25), 7, (60, 24), (21, 61), (61, 70)])
def test_every_pixel_of_a_crop_comes_back_to_its_place(size, crop):
    whole, part = seen(CenterCrop(crop), size)
    part = part.where(part > 0, 9999.0)  # padding of a crop larger than the image
    restored = MapGeometry(CenterCrop(crop)).restore(part, size)
    shown = restored > restored.min()
    assert torch.equal(restored[shown], whole[shown])
    assert shown.sum() >= min(part.numel(), whole.numel(), (part < 9999).sum()) - 1


@pytest.mark.parametrize(
    "transform",
    [
        Compose([Resize((80, 96), NEAREST), CenterCrop((60, 76))]),
        Compose([CenterCrop((30, 38)), Resize((60, 76), NEAREST)]),
        Compose([Resize(80, NEAREST), CenterCrop(60)]),
        Compose([Resize(None, NEAREST, max_size=96), CenterCrop(60)]),
        Compose([Resize((80, 96), NEAREST), CenterCrop(70), Resize((140, 140), NEAREST), CenterCrop(120)]),
    ],
    ids=["resize, crop", "crop, resize", "short side", "long side", "twice"],
)
def test_resizes_and_crops_are_undone_together(transform):
    whole, part = seen(transform, (40, 48))
    restored = MapGeometry(transform).restore(part, (40, 48))
    error = (restored - whole)[12:28, 14:34].abs()  # rows differ by 48
    assert error.max() < 48


@pytest.mark.parametrize("shape", [(30, 38), (60, 76)])
def test_map_of_another_resolution_than_the_crop_covers_the_crop(shape):
    transform = Compose([Resize((80, 96)), CenterCrop((60, 76))])
    scores = torch.ones(shape)
    scores[0, 0] = 0  # the lowest one, beside rows and columns that the crop shows
    restored = MapGeometry(transform).restore(scores, (40, 48))
    assert restored[8:34, 6:42].min() == restored[6:34, 8:42].min() == 1
    assert restored[:4].max() == restored[36:].max() == restored[:, :4].max() == restored[:, 44:].max() == 0


def test_geometry_of_dinomaly_leaves_a_sixteenth_at_each_edge_out():
    """448 pixels, of which 392 in the middle are seen."""
    geometry = MapGeometry(Dinomaly.configure_pre_processor().transform)
    scores = torch.ones(28, 28)
    scores[0, 0] = 0
    restored = geometry.restore(scores, (1280, 1600))
    assert restored[150:1190, 110:1490].min() == restored[90:1190, 200:1490].min() == 1
    assert restored[:75].max() == restored[1205:].max() == 0
    assert restored[:, :95].max() == restored[:, 1505:].max() == 0


@pytest.mark.parametrize("transforms", [(), (None,), (Resize((8, 9)), Resize(20))])
def test_without_a_crop_a_map_is_only_resized(transforms):
    scores = torch.randn(12, 10)
    assert torch.equal(MapGeometry(*transforms).restore(scores, (40, 48)), resize_anomaly_map(scores, (40, 48)))

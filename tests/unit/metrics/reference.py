# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""sPRO from its definition: binarise every map at every threshold and count."""

import torch


def reference_curve(maps, channels, saturations, thresholds):
    """False positive rate and mean sPRO at given thresholds.

    maps: one (H, W) tensor an image; channels: for each image a list of (H, W) bool tensors; saturations: in the same
    order a list of areas.
    """
    fpr, spro = [], []
    for threshold in thresholds:
        false_positives = defect_free = 0
        overlaps = []
        for scores, masks, areas in zip(maps, channels, saturations, strict=True):
            positive = scores > threshold
            free = torch.ones_like(positive)
            for mask, area in zip(masks, areas, strict=True):
                overlaps.append(min(int((positive & mask).sum()) / area, 1.0))
                free &= ~mask
            false_positives += int((positive & free).sum())
            defect_free += int(free.sum())
        fpr.append(false_positives / defect_free)
        spro.append(sum(overlaps) / len(overlaps))
    return torch.tensor(fpr, dtype=torch.float64), torch.tensor(spro, dtype=torch.float64)


def reference_area(fpr, spro, limit):
    """Trapezoids one after another, the last one cut at the limit."""
    area = 0.0
    for x0, x1, y0, y1 in zip(fpr[:-1], fpr[1:], spro[:-1], spro[1:], strict=True):
        if x0 < limit and x1 > x0:
            end = min(float(x1), limit)
            y_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
            area += float((y0 + y_end) / 2 * (end - x0))
    return area / limit

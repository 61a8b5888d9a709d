# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Gaussian filter of anomaly maps."""

from typing import Any

from anomalib.models.components import GaussianBlur2d
from anomalib.models.components.filters.blur import compute_kernel_size
from torch import nn


class SeparableBlur(nn.Sequential):
    """Anomalib's Gaussian filter of maps, shape ``(N, 1, H, W)``, along one axis after the other.

    The result is that of the filter of both axes at once. For 4 pixels, whose window is 33 x 33, it takes 66 products
    a pixel instead of 1089. Checkpoints do not have its kernels, since ``sigma`` tells them; those of older ones are
    passed over.

    Args:
        sigma: Standard deviation in pixels; 0 for no filter.
    """

    def __init__(self, sigma: float) -> None:
        size = compute_kernel_size(sigma)
        filters = [GaussianBlur2d(sigma, kernel_size=shape) for shape in ((size, 1), (1, size))] if sigma > 0 else []
        super().__init__(*filters)
        for one in filters:
            one.register_buffer("kernel", one.kernel, persistent=False)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in [name for name in state_dict if name.startswith(prefix)]:
            del state_dict[name]
        super()._load_from_state_dict(state_dict, prefix, *args)

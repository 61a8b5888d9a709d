# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Muon's matrix iterations in single precision on CPUs."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import timm.optim.muon
import torch


@contextmanager
def muon_in_float32(device: torch.device) -> Iterator[None]:
    """Let timm's Muon compute its Newton-Schulz iterations in float32 within this context, if the device is a CPU.

    timm computes them in bfloat16 and has no option for it. A CPU without instructions for bfloat16 emulates them.

    Args:
        device: The parameters' device.
    """
    if device.type != "cpu":
        yield
        return
    original = timm.optim.muon.zeropower_via_newtonschulz
    timm.optim.muon.zeropower_via_newtonschulz = partial(original, dtype=torch.float32)
    try:
        yield
    finally:
        timm.optim.muon.zeropower_via_newtonschulz = original

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""LGFDR: local and global feature denoising reconstruction."""

from .lightning_model import Lgfdr
from .options import LgfdrNetworks, LgfdrScoring, LgfdrTraining
from .torch_model import LgfdrModel

__all__ = ["Lgfdr", "LgfdrModel", "LgfdrNetworks", "LgfdrScoring", "LgfdrTraining"]

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""GLCF: Global-Local Correspondence Framework."""

from .lightning_model import Glcf
from .options import GlcfNetworks, GlcfScoring, GlcfTraining
from .torch_model import GlcfModel

__all__ = ["Glcf", "GlcfModel", "GlcfNetworks", "GlcfScoring", "GlcfTraining"]

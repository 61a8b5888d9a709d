# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What classes to inherit from before Anomalib's module are based on: that module, but for type checkers only."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anomalib.models import AnomalibModule as BeforeAnomalibModule
else:
    BeforeAnomalibModule = object

__all__ = ["BeforeAnomalibModule"]

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Nothing in the tests may reach a model hub: a missing download must fail at once, not after retries."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

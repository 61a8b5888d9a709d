# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""One command that measures models on data sets and writes tables, plots and a page of results.

    python -m anomalib_logic.benchmark quick

Anomalib's own benchmark pipeline is not used: it makes all models first, keeps results in memory until the last job has
ended, and has neither raw scores nor a way to go on.
"""

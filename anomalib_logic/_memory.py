# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""How much memory there is."""

import os
from pathlib import Path


def memory_gigabytes() -> float | None:
    """Memory of this machine, or of the container that it is, in 1e9 bytes; ``None`` where that is not known."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            memory = min(memory, int(Path(file).read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such file, or no limit
            continue
    return memory / 1e9

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Time ``import anomalib`` and what ``import anomalib_logic`` adds, each in fresh processes.

    python benchmarks/import_time.py [--runs 5]

Two comparisons, side by side: the bare imports, and the imports with everything that training loads.
"""

import argparse
import os
import statistics
import subprocess
import sys

PAIRS = {
    "bare": ("import anomalib", "import anomalib_logic"),
    "with all models": (
        "import anomalib.models, anomalib.data, anomalib.engine",
        "import anomalib_logic; anomalib_logic.Glcf; anomalib_logic.MVTecLoco",
    ),
}
PROGRAM = """
import time
start = time.perf_counter()
{first}
middle = time.perf_counter()
{second}
print(middle - start, time.perf_counter() - middle)
"""


def measure(first: str, second: str) -> tuple[float, float]:
    """Seconds that each import takes in one fresh process without the start-up hook."""
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM.format(first=first, second=second)]
    environment = {**os.environ, "ANOMALIB_LOGIC_AUTOLOAD": "0"}
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    host, ours = output.split()[-2:]
    return float(host), float(ours)


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    for name, pair in PAIRS.items():
        samples = [measure(*pair) for _ in range(runs)]
        host, ours = (statistics.median(values) for values in zip(*samples, strict=True))
        print(f"{name}: anomalib {host:.3f} s, anomalib_logic adds {ours:.3f} s ({ours / host:.1%}), {runs} runs")


if __name__ == "__main__":
    main()

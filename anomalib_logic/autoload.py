# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Registration at every start of Python, for pipelines whose command or code cannot be changed.

    python -m anomalib_logic.autoload install | status | remove

writes, shows or removes one file, ``anomalib_logic_autoload.pth``, in the ``site-packages`` of the environment whose
Python runs the command. Python reads this file at each start and imports ``anomalib_logic``, which loads neither torch
nor Anomalib's models; where the package has been uninstalled, nothing happens. Nothing else writes this file: the
program ``anomalib-logic`` and ``import anomalib_logic`` do without.
"""

import argparse
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

NAME = "anomalib_logic_autoload.pth"
LINE = 'import importlib.util as u; u.find_spec("anomalib_logic") and __import__("anomalib_logic")\n'


def hook_file() -> Path:
    """Where the file is, or would be, in this environment."""
    return Path(sysconfig.get_path("purelib")) / NAME


def main(arguments: Sequence[str] | None = None) -> int:
    """Install, show or remove the file.

    Args:
        arguments: Those of the command line by default.

    Returns:
        Exit status: 1 if the file cannot be written or removed; for ``status``, 1 if it is not there.
    """
    parser = argparse.ArgumentParser(
        prog="python -m anomalib_logic.autoload", description="Register anomalib_logic at every start of Python."
    )
    parser.add_argument("action", choices=("install", "status", "remove"))
    action = parser.parse_args(arguments).action
    file = hook_file()
    try:
        if action == "install":
            file.write_text(LINE, encoding="ascii")
        elif action == "remove":
            file.unlink(missing_ok=True)
    except OSError as error:
        print(f"error: {file}: {error.strerror}; run this with the rights of the environment's owner", file=sys.stderr)
        return 1
    installed = file.is_file()
    print(f"{'installed' if installed else 'not installed'}: {file}")
    return int(action == "status" and not installed)


if __name__ == "__main__":
    raise SystemExit(main())

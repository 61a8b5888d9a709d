# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What ``pyproject.toml`` says of the package is true."""

import ast
import re
import subprocess
import sys
from importlib.metadata import packages_distributions, version
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no TOML reader")

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = ("openvino", "plots", "sam", "weights")  # what a user may install beside; the others are for contributors
REQUIRED = [Requirement(line) for line in PROJECT["dependencies"]]
OPTIONAL = [Requirement(line) for extra in EXTRAS for line in PROJECT["optional-dependencies"][extra]]


def imported(file: Path, top_level: bool) -> set[str]:
    """Top-level packages outside the standard library that a file imports, in functions too or not."""
    tree = ast.parse(file.read_text())
    nodes = tree.body if top_level else ast.walk(tree)
    names = chain.from_iterable(
        [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
        for node in nodes
        if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and node.level == 0)
    )
    packages = {name.partition(".")[0] for name in names}
    return packages - set(sys.stdlib_module_names) - {"anomalib_logic"}


def distributions(packages: set[str]) -> set[str]:
    known = packages_distributions()
    # Several distributions can hold a package: anomalib-logic declares one build of OpenCV.
    return {min(map(canonicalize_name, known.get(p, [p])), key=lambda d: d not in declared()) for p in packages}


def declared() -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in [*REQUIRED, *OPTIONAL]}


def test_every_imported_package_is_declared():
    files = (ROOT / "anomalib_logic").rglob("*.py")
    assert distributions(set().union(*(imported(file, top_level=False) for file in files))) <= declared()


def test_modules_are_imported_without_the_packages_of_extras():
    files = [f for f in (ROOT / "anomalib_logic").rglob("*.py") if f.name != "segment_anything.py"]
    found = distributions(set().union(*(imported(file, top_level=True) for file in files)))
    assert found <= {canonicalize_name(requirement.name) for requirement in REQUIRED}


def test_lower_bounds_are_the_versions_of_the_constraints_file():
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    lowest = dict(line.split("==") for line in lines if not line.startswith("#"))
    bounds = {r.name: re.search(r"(?:>=|==)([\d.]+)", str(r.specifier)).group(1) for r in [*REQUIRED, *OPTIONAL]}
    assert {name: Version(v) for name, v in lowest.items()} == {name: Version(v) for name, v in bounds.items()}


def test_anomalib_is_held_at_the_minor_version_that_is_tested():
    (anomalib,) = [requirement.specifier for requirement in REQUIRED if requirement.name == "anomalib"]
    tested = Version(version("anomalib"))
    assert anomalib.contains(tested)
    assert not anomalib.contains(f"{tested.major}.{tested.minor + 1}.0")


@pytest.mark.slow
def test_wheel_has_no_start_up_file_and_source_distribution_has_the_tests(tmp_path):
    command = [sys.executable, "-m", "uv", "build", "--quiet", "--out-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,), (source,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    listed = subprocess.run([sys.executable, "-m", "zipfile", "-l", str(wheel)], capture_output=True, text=True).stdout
    assert ".pth" not in listed
    assert "anomalib_logic/py.typed" in listed
    listed = subprocess.run([sys.executable, "-m", "tarfile", "-l", str(source)], capture_output=True, text=True).stdout
    assert "tests/unit/test_packaging.py" in listed
    assert "configs/quick_start.yaml" in listed

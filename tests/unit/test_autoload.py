# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The start-up hook, on a stand-in for Anomalib: that the real one is served is seen in tests/integration."""

import importlib
import importlib.util
import sys
from pathlib import Path

import pytest

HOOK = Path(__file__).parents[2] / "autoload" / "anomalib_logic_autoload.py"


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A package ``host_package`` with a module ``models``, in place of Anomalib."""
    package = tmp_path / "host_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "models.py").write_text("READY = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    for name in [n for n in sys.modules if n.split(".")[0] in ("host_package", "anomalib_logic")]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def start(monkeypatch, package: Path, content: str):
    """Run the hook as at start-up, with a stand-in for ``anomalib_logic`` of the given content."""
    (package / "anomalib_logic").mkdir()
    (package / "anomalib_logic" / "__init__.py").write_text(content)
    spec = importlib.util.spec_from_file_location("hook_under_test", HOOK)
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    monkeypatch.setattr(hook, "_TRIGGER", "host_package.models")


def test_package_is_imported_after_the_host(monkeypatch, host):
    start(monkeypatch, host, "import sys\nSEEN = sys.modules['host_package.models'].READY\n")
    importlib.import_module("host_package")
    assert "anomalib_logic" not in sys.modules
    importlib.import_module("host_package.models")
    assert sys.modules["anomalib_logic"].SEEN


def test_broken_package_does_not_break_the_host(monkeypatch, host):
    start(monkeypatch, host, "raise RuntimeError('broken on purpose')\n")
    with pytest.warns(UserWarning, match="anomalib_logic could not be loaded.*broken on purpose"):
        models = importlib.import_module("host_package.models")
    assert models.READY


def test_hook_leaves_no_trace_after_its_work(monkeypatch, host):
    start(monkeypatch, host, "")
    models = importlib.import_module("host_package.models")
    assert not [finder for finder in sys.meta_path if getattr(finder, "__module__", "") == "hook_under_test"]
    assert type(models.__loader__).__name__ == "SourceFileLoader"
    assert importlib.reload(models) is models


def test_environment_variable_switches_it_off(monkeypatch, host):
    monkeypatch.setenv("ANOMALIB_LOGIC_AUTOLOAD", "0")
    start(monkeypatch, host, "")
    importlib.import_module("host_package.models")
    assert "anomalib_logic" not in sys.modules

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The hook that registers this package, on a stand-in for Anomalib; the real one is seen in tests/integration."""

import importlib
import sys

import pytest

from anomalib_logic._after_import import call_after_import


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A package ``host_package`` with a module ``models``."""
    package = tmp_path / "host_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "models.py").write_text("READY = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield
    for name in [n for n in sys.modules if n.split(".")[0] == "host_package"]:
        del sys.modules[name]


def test_callback_runs_once_right_after_the_import(host):
    calls = []
    call_after_import("host_package.models", lambda: calls.append(sys.modules["host_package.models"].READY))
    importlib.import_module("host_package")
    assert calls == []
    importlib.import_module("host_package.models")
    importlib.import_module("host_package.models")
    assert calls == [True]


def test_callback_runs_at_once_if_the_module_is_there(host):
    importlib.import_module("host_package.models")
    calls = []
    call_after_import("host_package.models", lambda: calls.append(1))
    assert calls == [1]


def test_module_and_import_system_are_as_without_the_hook(host):
    before = list(sys.meta_path)
    call_after_import("host_package.models", lambda: None)
    module = importlib.import_module("host_package.models")
    assert sys.meta_path == before
    assert type(module.__loader__).__name__ == "SourceFileLoader"
    assert importlib.reload(module) is module


def test_absent_module_is_still_an_import_error(host):
    call_after_import("host_package.absent", lambda: None)
    with pytest.raises(ModuleNotFoundError, match=r"host_package\.absent"):
        importlib.import_module("host_package.absent")

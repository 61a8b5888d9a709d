# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What holds for all tests: no model hub, the same random numbers in any order, and a stack for signal handlers."""

import ctypes
import os
import random
import sys

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # a missing download must fail at once, not after retries
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # each process has one core
SHARED = "commands"  # a fixture of several files that takes long
FORKING = ("test_benchmark.py", "test_failure.py")  # whose processes come from one server, which takes long to start


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file in one process, and those of all files that share what takes long."""
    for item in items:
        shared = SHARED in getattr(item, "fixturenames", ())
        group = "forking" if item.path.name in FORKING else str(item.path)
        item.add_marker(pytest.mark.xdist_group("shared" if shared else group))


def seed_random_numbers() -> None:
    import numpy as np  # not before OMP_NUM_THREADS is set
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    os.environ.pop("PL_GLOBAL_SEED", None)  # what a test before has left


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup() -> None:
    """Let no fixture depend on what ran before it."""
    seed_random_numbers()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    """Let no test depend on what ran before it."""
    seed_random_numbers()


class SignalStack(ctypes.Structure):
    """``stack_t`` of Linux."""

    _fields_ = [("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


def signal_stack(new: SignalStack | None = None) -> SignalStack:
    """Return the stack of this thread's signal handlers, and replace it."""
    former = SignalStack()
    ctypes.CDLL(None).sigaltstack(None if new is None else ctypes.byref(new), ctypes.byref(former))
    return former


@pytest.fixture(scope="session", autouse=True)
def first_signal_stack():
    """The stack of signal handlers before anything changes it."""
    return signal_stack() if sys.platform.startswith("linux") else None


@pytest.fixture(autouse=True)
def own_signal_stack(first_signal_stack):
    """Undo what OpenVINO leaves behind where Anomalib or NNCF make several cores, see ``openvino_core``."""
    if first_signal_stack is not None:
        signal_stack(first_signal_stack)

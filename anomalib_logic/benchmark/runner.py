# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Run jobs, each in a process of its own: its peak of memory is its own, and if it dies the others go on."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from anomalib_logic.cli import sentence

from .jobs import Job, Place, Result, failure, is_done, read_result, write_result

ERROR_LENGTH = 400
MALLOC = {-1: 1_000_000, -3: 1_000_000}  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h, bytes
FRAGMENTING = ("patchcore",)  # models whose large temporary arrays glibc gives back to the system only with these
QUIET = {"PYTHONWARNINGS": "ignore::FutureWarning"}  # libraries about themselves, when they are imported

OF_DOWNLOADS = ("URLError", "LocalEntryNotFoundError", "HfHubHTTPError", "RequestException")  # of several libraries

Watcher = Callable[[int, Job, Result], None]


def run_jobs(jobs: Sequence[Job], place_of: Callable[[Job], Place], after: Watcher) -> None:
    """Run what has no result yet, one after the other.

    Args:
        jobs: What to run.
        place_of: Where a job runs.
        after: Called after each job with its index, the job and its result.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload(["anomalib_logic.benchmark.measure"])  # imported once
    for index, job in enumerate(jobs):
        place = place_of(job)
        path = place.output / job.path
        if not is_done(place.output, job):
            path.unlink(missing_ok=True)
            process = context.Process(target=work, args=(job, place), daemon=True)
            process.start()
            try:
                process.join()
            finally:  # also if the user interrupts
                process.kill()
            if not path.exists():
                write_result(place.output, job, failure(death(process.exitcode)))
        after(index, job, read_result(path))


def death(code: int | None) -> str:
    """Say how a process ended that wrote nothing."""
    if code is not None and code < 0:
        return f"the process was ended by signal {-code}" + (", perhaps for lack of memory" if code == -9 else "")
    return f"the process ended with exit code {code} and no result"


def work(job: Job, place: Place) -> None:
    """Run a job in this process and write its result; what libraries print goes to a file beside it."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # else Lightning may take it as the end of training
    log = (place.output / job.path).with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    started = time.perf_counter()
    if job.model in FRAGMENTING:
        give_memory_back()
    try:
        from .measure import run_job

        result = run_job(job, place)
    except Exception as error:  # whatever it is, the other jobs go on
        traceback.print_exc()
        write_result(place.output, job, failure(one_line(error)))
        print(f"failed after {time.perf_counter() - started:.0f} s", flush=True)
    else:
        write_result(place.output, job, result)
        log.unlink()


def give_memory_back() -> None:
    """Let glibc give large arrays back at once, which takes time; other C libraries have no such setting."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if set_option is not None:
        for option, size in MALLOC.items():
            set_option(option, size)


def one_line(error: Exception) -> str:
    """What an error says, in one line without the paths of this machine's folders."""
    text = " ".join(f"{type(error).__name__}: {sentence(error)}".split())
    text = text.replace(str(Path.cwd()), ".").replace(str(Path.home()), "~")
    if any(kind.__name__ in OF_DOWNLOADS for kind in type(error).__mro__):
        text = f"a download that the model or its data needs failed: {text}"
    return text if len(text) <= ERROR_LENGTH else f"{text[:ERROR_LENGTH]} ..."


def end_with_parent() -> None:
    """End this process when the one that started it does, even if that is killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    """Wait for the end of a process, then end this one."""
    wait([sentinel])
    os._exit(1)

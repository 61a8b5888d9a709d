# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The end of a run on SIGTERM."""

import os
import signal
import threading
from types import FrameType
from typing import NoReturn

import lightning.pytorch as pl


def stop_on_sigterm(trainer: pl.Trainer) -> None:
    """End a run at once on SIGTERM, with exit status 143; Lightning gives the signal its former handler back.

    Lightning ends a run after the batch, and what is done between batches, such as filling a bank, takes minutes. Files
    are complete or not there, see :func:`~anomalib_logic._files.complete_file`; Lightning writes checkpoints likewise.
    Jobs of Slurm are left to Lightning, which puts them into the queue again.

    Args:
        trainer: Trainer whose run has started.
    """
    former = signal.getsignal(signal.SIGTERM)
    if (
        threading.current_thread() is not threading.main_thread()
        or getattr(former, "__module__", None) == __name__
        or "SLURM_JOB_ID" in os.environ
    ):
        return

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(number)
        if trainer.world_size == 1 and callable(former):  # else Lightning's would wait for the other processes
            former(number, frame)
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)

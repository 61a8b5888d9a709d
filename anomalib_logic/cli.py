# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Anomalib's command line with this package's models and data modules, and with messages for users only.

    anomalib-logic train --config configs/quick_start.yaml

takes the arguments of ``anomalib``, and uses ``--seed_everything``. It prints each message once and without place and
time, no warnings of libraries about themselves, and for an error of input one sentence.
"""

import logging
import os
import pickle
import re
import sys
import traceback
import warnings
from importlib import import_module
from pathlib import Path
from typing import NoReturn, TextIO

from anomalib_logic._memory import memory_gigabytes

logger = logging.getLogger("anomalib_logic.cli")  # also where this module is run as a program

TRACEBACK = "ANOMALIB_LOGIC_TRACEBACK"

CORES = 2
GIGABYTES = 4.0

# What libraries say about themselves and about what they do with each other. (message pattern, category)
NOT_FOR_USERS: tuple[tuple[str, type[Warning]], ...] = (
    ("Importing from timm.models", FutureWarning),
    ("The anomalib.models.components.dinov2 package is deprecated", FutureWarning),
    (r"`LightningModule.configure_optimizers` returned `None`", UserWarning),
    (r"`?isinstance\(treespec, LeafSpec\)`? is deprecated", Warning),
    (r"Found \d+ module\(s\) in eval mode", UserWarning),
    ("This DataLoader will create", UserWarning),
    (r"The '?\w+'? does not have many workers", UserWarning),
    (r"The number of training batches \(\d+\) is smaller than the logging interval", UserWarning),
    (r"Checkpoint directory .* exists and is not empty", UserWarning),
    (r"Trying to infer the `batch_size`", UserWarning),
    (r"The ``compute`` method of metric \w+ was called before the ``update`` method", UserWarning),
    (r"The dirpath has changed from", UserWarning),
    (r"'pin_memory' argument is set as true but no accelerator is found", UserWarning),
)
UNION = "Does not validate against any of the Union subtypes"  # jsonargparse, of a class that could not be made
NOT_FROM_US = ("Expected a ", "Import path ", "Not of type ", "Not a valid subclass")  # jsonargparse's own words there
NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")  # torch's on Linux, on Windows and on GPUs
NO_FILE = ("PytorchStreamReader failed", "Weights only load failed", "Ran out of input", "invalid load key")  # torch's
NO_MEMBER = re.compile(r"'(.*)' is not a valid (\w+)")  # of an enumeration
NOT_ASCII = re.compile(r"Path contains non-printable characters: (.*)")  # Anomalib's, of letters outside ASCII
INPUT_ERRORS = (ValueError, OSError, RuntimeError, MemoryError, ImportError, EOFError, pickle.UnpicklingError)


def main() -> None:
    """Run Anomalib's command line; exit with 1 and a sentence where the input is at fault."""
    configure_messages()
    warn_of_small_machine()
    shorten_argument_errors()
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from anomalib_logic._command_line import CommandLine, show_overridden_options

    show_overridden_options()
    try:
        CommandLine()
    except (*INPUT_ERRORS, MisconfigurationException) as error:
        if os.environ.get(TRACEBACK, "0") not in ("", "0") or not is_for_users(error):
            raise
        print(f"error: {sentence(error)}\n({TRACEBACK}=1 shows where)", file=sys.stderr)
        raise SystemExit(1) from None


class CurrentStream(logging.StreamHandler):
    """Handler that writes to what is standard output at the time: a progress bar takes its place while it moves.

    Where standard output is for a configuration or for help, it writes to standard error.
    """

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        """Where a message goes."""
        wanted = any(argument.split("=")[0] in ("--print_config", "--help", "-h") for argument in sys.argv[1:])
        return sys.stderr if wanted else sys.stdout


def configure_messages() -> None:
    """Let through this package's messages and all warnings and errors but those in ``NOT_FOR_USERS``."""
    for pattern, category in NOT_FOR_USERS:
        warnings.filterwarnings("ignore", message=pattern, category=category)
    logging.basicConfig(format="%(message)s", handlers=[CurrentStream()], level=logging.WARNING)
    if os.environ.get("LOCAL_RANK", "0") == "0":  # of several processes one speaks
        logging.getLogger("anomalib_logic").setLevel(logging.INFO)
    logger.info("loading Anomalib")  # takes seconds, on a slow disk many
    import anomalib.cli.cli  # noqa: F401  Lightning sets the levels of its loggers when it is imported

    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def shorten_argument_errors() -> None:
    """Let jsonargparse say in a sentence what is wrong with an argument, where that is known."""
    from jsonargparse import ArgumentParser

    from anomalib_logic._argument_errors import argument_sentence

    complete = ArgumentParser.error

    def error(parser: ArgumentParser, message: str, ex: Exception | None = None) -> NoReturn:
        complete(parser, argument_sentence(message) or message, ex)

    if complete.__module__ != __name__:  # once
        ArgumentParser.error = error  # type: ignore[method-assign, assignment]


def warn_of_small_machine() -> None:
    """Say that a machine is smaller than those that this package was measured on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = memory_gigabytes()
    if cores < CORES or (memory is not None and memory < GIGABYTES):
        has = f"{cores} core{'s' if cores > 1 else ''}" + ("" if memory is None else f" and {memory:.1f} GB of memory")
        logger.warning(
            "this machine has %s. With fewer than %d cores or %g GB a run takes longer, or stops for lack of memory; "
            "smaller images (--model.image_size) and fewer of them need less",
            has,
            CORES,
            GIGABYTES,
        )


def is_for_users(error: BaseException) -> bool:
    """Whether a message says what to change: one that we or Anomalib raised, or of the operating system or memory."""
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    if isinstance(error, OSError | MisconfigurationException) or lacks_memory(error) or is_broken_file(error):
        return True
    if own_messages(error) or unknown_member(error) is not None:
        return True
    frames = traceback.extract_tb(error.__traceback__)
    raised = bool(frames) and (frames[-1].line or "").startswith("raise")  # else an operation failed: a fault of ours
    packages = [Path(path) for name in ("anomalib_logic", "anomalib") for path in import_module(name).__path__]
    return raised and any(Path(frames[-1].filename).is_relative_to(package) for package in packages)


def lacks_memory(error: BaseException) -> bool:
    """Whether memory, of the machine or of a GPU, did not suffice."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY)


def is_broken_file(error: BaseException) -> bool:
    """Whether torch refused to read a file that is cut short, of another kind, or holds code."""
    if isinstance(error, ValueError):  # of a model's own files, with a message of its own
        return False
    return isinstance(error, EOFError) or any(words in str(error) for words in NO_FILE)


def sentence(error: BaseException) -> str:
    """What an error says."""
    if lacks_memory(error):
        return (
            "there is not enough memory. Smaller images (--model.image_size), smaller batches or fewer images need less"
        )
    if is_broken_file(error):
        return (
            "the checkpoint (--ckpt_path) cannot be read: it is damaged, no checkpoint, or holds code, which is not "
            "run; copy it again, or train again"
        )
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.strerror}: {error.filename}"
    unknown = unknown_member(error)
    if unknown is not None:
        return unknown
    path = NOT_ASCII.match(str(error))
    if path is not None:
        return f"{path[1]} has letters outside ASCII, which Anomalib does not take: rename the folder or file"
    if "_dataloader` must be implemented" in str(error):  # Lightning's
        return "there is no data: pass --data, as in training"
    return "; ".join(own_messages(error)) or str(error) or type(error).__name__


def unknown_member(error: BaseException) -> str | None:
    """Say which values there are where Anomalib makes a member of an enumeration of a word that is none."""
    found = NO_MEMBER.fullmatch(str(error))
    if found is None:
        return None
    from anomalib.data.utils import TestSplitMode, ValSplitMode
    from anomalib.deploy import CompressionType, ExportType

    kinds = {kind.__name__: kind for kind in (ExportType, CompressionType, TestSplitMode, ValSplitMode)}
    if found[2] not in kinds:
        return None
    option = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", found[2]).lower()
    return f"the {option} must be one of {', '.join(member.value for member in kinds[found[2]])}, got '{found[1]}'"


def own_messages(error: BaseException) -> list[str]:
    """What a model said of its arguments, in an error in which jsonargparse lists every type that it tried."""
    if UNION not in str(error):
        return []
    listed = re.findall(r"^ *- (.*)$", str(error), flags=re.MULTILINE)
    return [message for message in listed if not message.startswith(NOT_FROM_US)]


if __name__ == "__main__":
    main()

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Anomalib's command line, in which options count that Anomalib 2.7 declares and does not use."""

import logging

from anomalib.cli.cli import AnomalibCLI
from lightning.pytorch import seed_everything

OVERRIDING = "Overriding "  # begins what the engine says of a trainer's option that a model does not take


class CommandLine(AnomalibCLI):
    """Anomalib's command line with ``--seed_everything``, and with ``--optimizer`` and ``--lr_scheduler`` in ``train``.

    ``--seed_everything true``, which is the default, takes the seed 0, or that of the variable ``PL_GLOBAL_SEED``.
    """

    def before_instantiate_classes(self) -> None:
        """Seed random numbers before anything is created."""
        super().before_instantiate_classes()
        seed = self._get(self.config, "seed_everything", False)
        if seed is not False:
            seed_everything(None if seed is True else seed, workers=True, verbose=False)

    def instantiate_classes(self) -> None:
        """Use the optimiser in ``train`` as in ``fit``."""
        super().instantiate_classes()
        if self.subcommand == "train":
            self._configure_optimizers_method_to_model()


def show_overridden_options() -> None:
    """Let Anomalib's engine say which of the trainer's options that were given are not taken."""
    engine = logging.getLogger("anomalib.engine.engine")
    engine.setLevel(logging.INFO)
    engine.addFilter(_is_for_users)


def _is_for_users(record: logging.LogRecord) -> bool:
    said = record.getMessage()
    given = said.startswith(OVERRIDING) and " from None " not in said and " from auto " not in said
    return record.levelno > logging.INFO or given

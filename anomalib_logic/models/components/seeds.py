# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Random numbers of models."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from anomalib_logic._host import BeforeAnomalibModule

GLOBAL_SEED = "PL_GLOBAL_SEED"  # where Lightning's `seed_everything` leaves the seed


class Seeded(BeforeAnomalibModule):
    """One seed for the initial weights, the noise and the order of images; to inherit from before ``AnomalibModule``.

    Attributes:
        seed: The seed.
    """

    seed: int
    _random_state: torch.Tensor | None = None  # of the CPU, after the initial weights

    def use_seed(self, seed: int | None) -> None:
        """Set the seed.

        Args:
            seed: The constructor's argument; ``None``: the seed of ``seed_everything`` if it was called, else 0.
        """
        self.seed = int(os.environ.get(GLOBAL_SEED, 0)) if seed is None else seed

    @contextmanager
    def initial_weights(self) -> Iterator[None]:
        """Let networks that are made meanwhile have the seed's weights; other random numbers go on as they would."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            yield
            self._random_state = torch.get_rng_state()

    def begin_random_numbers(self, process: int = 0) -> None:
        """Let torch go on from the initial weights.

        Args:
            process: Rank of this process; the noise of each is another one.
        """
        torch.manual_seed(self.seed + process)
        if process == 0 and self._random_state is not None:
            torch.set_rng_state(self._random_state)

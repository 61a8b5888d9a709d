# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What the metrics of the MVTec LOCO AD protocol share."""

from abc import abstractmethod
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path, PureWindowsPath
from typing import Any

import torch
from torchmetrics import Metric

from anomalib_logic.data.loco_layout import ANOMALY_KINDS

from .protocol import KIND_FOLDERS, KINDS

_KEY_BYTES = 6  # what a float64 represents exactly


class LocoMetric(Metric):
    """Metric that depends on the kind of each image, which its path tells.

    States are flat tensors of fixed dtypes. Each image has a key, so that an image that a distributed sampler repeats
    to fill up a batch counts once.

    Args:
        states: Name and dtype of each state.
        kind: ``"logical"``, ``"structural"``, ``"mean"``, or the name of a folder of test images (AutoVI's layout).
        **kwargs: Arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If ``kind`` is no name of a folder.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    def __init__(self, states: dict[str, torch.dtype], kind: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(kind, str) or not kind or PureWindowsPath(kind).name != kind:
            msg = f"kind must be one of {KINDS} or the name of a folder of test images, got {kind!r}"
            raise ValueError(msg)
        self.kind = kind
        self._kind_names = {text_key(name): name for name in (*ANOMALY_KINDS, KIND_FOLDERS.get(kind, kind))}
        self._dtypes = states
        for name in states:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    @abstractmethod
    def check_images(self, image_paths: Sequence[str | Path]) -> None:
        """Raise ``ValueError`` or ``FileNotFoundError`` if the test images do not allow this metric."""

    def _kind_key(self, kind: str) -> int:
        """Number of a kind, the same in every process."""
        key = text_key(kind)
        self._kind_names[key] = kind
        return key

    def _kind_name(self, key: float) -> str:
        """Kind of a number; that of images that only other processes saw has no name here."""
        return self._kind_names.get(int(key), f"kind {int(key)}")

    def _gather(self, name: str) -> torch.Tensor:
        """Concatenate one state over all updates."""
        state = getattr(self, name)
        if isinstance(state, torch.Tensor):
            return state
        if not state:
            return torch.empty(0, dtype=self._dtypes[name], device=self.device)
        return torch.cat([part.to(state[-1].device) for part in state])  # compute_on_cpu moves those of past updates

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        """Let a process that saw no image take part with states of the right dtype."""
        for name in self._dtypes:
            setattr(self, name, [self._gather(name)])
        super()._sync_dist(*args, **kwargs)


def text_key(text: str | Path) -> int:
    """Number that identifies an image's path or a kind in every process, below 2 to the power of 48."""
    return int.from_bytes(blake2b(str(text).encode(), digest_size=_KEY_BYTES).digest(), "big")


def on_reliable_device(tensor: torch.Tensor) -> torch.Tensor:
    """Move a tensor to the CPU unless it is there or on a CUDA device: others may lack double precision."""
    return tensor.detach() if tensor.device.type == "cuda" else tensor.detach().cpu()

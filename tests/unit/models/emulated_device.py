# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""A device that has neither float64 nor border padding, as older MPS has not, emulated on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

DEVICE = torch.device("mps", 0)
BORDER = 1  # what grid_sample's padding_mode="border" is called in aten


class OnDevice(torch.Tensor):
    """A tensor that says it is on the device, and computes on the CPU.

    PyTorch's C++ side takes it for one on the meta device: for others it needs their drivers.
    """

    device = DEVICE

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "OnDevice":
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device="meta"
        )
        tensor.inner = inner
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    def new_tensor(self, values: Any) -> torch.Tensor:
        """As PyTorch's, which would not ask this class."""
        return torch.tensor(values, dtype=self.dtype).to(DEVICE)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


def compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation on the CPU, and refuse what the device lacks."""
    tensors = [value for value in pytree.tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
    device = _device_of_result(func, args, kwargs, tensors)
    mixed = [t for t in tensors if not isinstance(t, OnDevice) and t.dim() > 0]
    if device == DEVICE and mixed and len(mixed) < len(tensors) and "copy" not in func.__name__:
        msg = f"{func}: expected all tensors to be on the same device"
        raise RuntimeError(msg)
    if device == DEVICE and "grid_sampler" in func.__name__ and args[3] == BORDER:
        msg = "the device has no border padding"
        raise NotImplementedError(msg)
    plain_args, plain_kwargs = pytree.tree_map(_to_cpu, (args, kwargs))
    result = func(*plain_args, **plain_kwargs)
    if device != DEVICE:
        return result
    result = pytree.tree_map_only(torch.Tensor, _on_device, result)
    return return_and_correct_aliasing(func, args, kwargs, result) if any_on_device(tensors) else result


def any_on_device(tensors: list[torch.Tensor]) -> bool:
    return any(isinstance(value, OnDevice) for value in tensors)


def _device_of_result(func: Any, args: Any, kwargs: dict[str, Any], tensors: list[torch.Tensor]) -> torch.device:
    if kwargs.get("device") is not None:
        return DEVICE if kwargs["device"].type in (DEVICE.type, "meta") else torch.device("cpu")
    if func.__name__.startswith("copy_"):
        return args[0].device
    return DEVICE if any_on_device(tensors) else torch.device("cpu")


def _to_cpu(value: Any) -> Any:
    if isinstance(value, OnDevice):
        return value.inner
    return torch.device("cpu") if isinstance(value, torch.device) else value


def _on_device(value: torch.Tensor) -> torch.Tensor:
    if value.dtype in (torch.float64, torch.complex128):
        msg = "the device has no float64"
        raise TypeError(msg)
    return OnDevice(value)


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


@contextmanager
def emulated_device() -> Iterator[torch.device]:
    """While it is entered, tensors and modules can be moved to the device, and be made there."""
    with _Mode():
        yield DEVICE

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Checks of constructor arguments."""

from collections.abc import Sequence
from typing import Any, get_args


def check_choice(name: str, value: str, choices: Any) -> str:
    """Return ``value`` if it is one of ``choices``.

    Args:
        name: Name of the argument.
        value: Its value.
        choices: A ``typing.Literal``: the same type, on the argument, lets Anomalib's command line refuse it early.

    Raises:
        ValueError: If it is not; the message names the argument and the choices.
    """
    if value not in get_args(choices):
        msg = f"{name} must be one of {get_args(choices)}, got '{value}'"
        raise ValueError(msg)
    return value


def as_pair(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    """Return two numbers, or one number twice.

    Raises:
        ValueError: If there are more or fewer; the message names the argument.
    """
    values = (value, value) if isinstance(value, int) else tuple(value)
    if len(values) != 2:
        msg = f"{name} must be one number or two (height and width), got {value}"
        raise ValueError(msg)
    return values


def check_least(name: str, value: float, least: float) -> float:
    """Return ``value`` if it is not below ``least``.

    Raises:
        ValueError: If it is; the message names the argument.
    """
    if not value >= least:
        msg = f"{name} must be at least {least}, got {value}"
        raise ValueError(msg)
    return value


def check_ascending(name: str, values: Sequence[float]) -> None:
    """Refuse an empty list, and one whose values are not each above the one before.

    Raises:
        ValueError: The message names the argument.
    """
    if list(values) != sorted(set(values)) or not values:
        msg = f"{name} must be different and in ascending order, got {list(values)}"
        raise ValueError(msg)


def check_weights(name: str, weights: Sequence[float], number: int) -> tuple[float, ...]:
    """Return weights as a tuple if there are ``number`` of them, none negative and not all zero.

    Raises:
        ValueError: If not; the message names the argument.
    """
    values = tuple(float(weight) for weight in weights)
    if len(values) != number or not min(values) >= 0 or max(values) == 0:
        msg = f"{name} must be {number} numbers, none negative and not all zero, got {list(weights)}"
        raise ValueError(msg)
    return values


def check_divisible(image_size: tuple[int, int], stride: int, backbone: str) -> None:
    """Refuse image sizes that are not multiples of the backbone's patch size or coarsest stride.

    Raises:
        ValueError: The message names the nearest size that suits.
    """
    if any(size % stride or size <= 0 for size in image_size):
        nearest = tuple(max(1, round(size / stride)) * stride for size in image_size)
        msg = (
            f"image_size must be multiples of {stride} pixels (patch size or stride of backbone '{backbone}'), got "
            f"{tuple(image_size)}; the nearest is {nearest}"
        )
        raise ValueError(msg)

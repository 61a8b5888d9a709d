# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Constructor arguments in groups: frozen dataclasses whose fields can also be given by themselves.

A model takes a few groups, such as ``networks`` and ``training``. ``Glcf(networks={"depth": 2})``,
``Glcf(networks=GlcfNetworks(depth=2))`` and ``Glcf(depth=2)`` are the same, on the command line and in configurations
too. So a default is stated once, in its group.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypedDict, get_origin, get_type_hints

from typing_extensions import NotRequired

from .arguments import check_choice, check_least


@dataclass(frozen=True)
class OptionGroup:
    """A group, whose choices (``Literal``) and lower limits are checked when it is made.

    Attributes:
        LEAST: Least value of fields that have one; ``None`` is allowed where it is the default.

    Raises:
        ValueError: If a value is out of range; the message names the field, the value and the remedy.
    """

    LEAST: ClassVar[Mapping[str, float]] = {}

    def __post_init__(self) -> None:
        """Check the values."""
        hints = get_type_hints(type(self))
        for field in fields(self):
            if get_origin(hints[field.name]) is Literal:
                check_choice(field.name, getattr(self, field.name), hints[field.name])
        for name, least in self.LEAST.items():
            value, default = getattr(self, name), getattr(type(self), name)
            if value is not None or default is not None:
                check_least(name, value, least)


def names_of(*groups: type) -> Any:
    """Make the type of ``**options``, all of whose keys may be left out: the fields of some groups.

    Args:
        groups: Dataclasses, no two of which have a field of the same name.
    """
    annotations: dict[str, Any] = {}
    for group in groups:
        hints = get_type_hints(group)
        annotations |= {field.name: NotRequired[hints[field.name]] for field in fields(group)}
    return TypedDict("Options", annotations)  # type: ignore[operator]


def take_groups(owner: str, options: Mapping[str, Any], *groups: tuple[type[OptionGroup], Any]) -> list[Any]:
    """Make the groups of what was given for each, and of options that were given by themselves, which count.

    Args:
        owner: Name of the class that has the options, for messages.
        options: Fields that were given by themselves.
        groups: For each group its dataclass, and an instance, a mapping of some of its fields, or ``None``.

    Raises:
        TypeError: If there is no such option; the message names it, and those that there are.
    """
    names = {group: [field.name for field in fields(group)] for group, _ in groups}
    _check_known(owner, options, [name for known in names.values() for name in known])
    taken = []
    for group, given in groups:
        own = {name: options[name] for name in names[group] if name in options}
        if isinstance(given, group):
            taken.append(replace(given, **own))
        else:
            values = given or {}
            _check_known(group.__name__, values, names[group])
            taken.append(group(**{**values, **own}))
    return taken


def _check_known(owner: str, options: Mapping[str, Any], known: list[str]) -> None:
    for name in options:
        if name not in known:
            msg = f"{owner} has no option '{name}'; it has {', '.join(known)}"
            raise TypeError(msg)


def single_options(arguments: Mapping[str, Any], groups: Collection[str]) -> dict[str, Any]:
    """Arguments with each field of a group by itself, as plain values: a field that stands by itself counts.

    Args:
        arguments: Arguments of a model's constructor; a group is a dataclass or a mapping of some of its fields.
        groups: Names of the arguments that are groups.
    """
    single: dict[str, Any] = {}
    for name in groups:
        given: Any = arguments.get(name)
        single |= dict(given or {}) if isinstance(given, Mapping | None) else asdict(given)
    single |= {name: value for name, value in arguments.items() if name not in groups}
    return {name: str(value) if isinstance(value, Path) else value for name, value in single.items()}

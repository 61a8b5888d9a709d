# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""A checkpoint is of one model: whoever loads it gets the options that it was trained with."""

import inspect
import logging
import textwrap
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

import torch
from anomalib.data import AnomalibDataModule

from anomalib_logic._host import BeforeAnomalibModule
from anomalib_logic._version import __version__

from .options import plain

logger = logging.getLogger(__name__)

COMPONENTS = ("pre_processor", "post_processor", "evaluator", "visualizer")
HYPER_PARAMETERS = "hyper_parameters"  # Lightning's key in checkpoints
ENABLED = "anomalib_components_enabled"  # Anomalib's
ENGINE = "anomalib.engine.engine"
SOURCE = "anomalib_logic"  # in checkpoints: the model's class and this package's version


class CheckpointOptions(BeforeAnomalibModule):
    """Take constructor arguments from checkpoints; to inherit from before ``AnomalibModule``.

    Anomalib's ``test``, ``predict``, ``fit`` and ``validate`` with ``ckpt_path`` load weights into a model that was
    built from the arguments of that call, so an option that leaves no trace in the weights would silently be another
    one. Here the model is built anew from the checkpoint's arguments. An argument that is neither the class's default
    nor the checkpoint's value is named in a warning.

    Attributes:
        WITHOUT_FILES: Arguments of a model whose networks come from a checkpoint.
        TRAINING_OPTIONS: Groups of arguments that only say how to train: where they are not the default, the caller's
            count.
    """

    WITHOUT_FILES: ClassVar[dict[str, Any]] = {"pre_trained": False, "backbone_weights": None}
    TRAINING_OPTIONS: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path, *args: Any, **kwargs: Any) -> Any:
        """Load a model; its networks come from the checkpoint, so neither a download nor a weights file is needed.

        Args:
            checkpoint_path: The checkpoint.
            *args: As in Anomalib's method.
            **kwargs: As in Anomalib's method; constructor arguments override the checkpoint's.

        Raises:
            ValueError: If it is a checkpoint of another model.
        """
        try:
            model = super().load_from_checkpoint(checkpoint_path, *args, **{**cls.WITHOUT_FILES, **kwargs})
        except (TypeError, ValueError):  # perhaps the other model has other arguments
            cls._check_source(torch.load(checkpoint_path, map_location="cpu", weights_only=True))
            raise
        replaced = _model_to_export(inspect.currentframe())
        if isinstance(replaced, cls):
            replaced._warn_of_overridden(model._arguments(model.hparams))
        return model

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say which model the checkpoint is of."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[SOURCE] = {"model": type(self).__name__, "version": __version__}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the model anew if the checkpoint was trained with other options, then restore the components.

        Raises:
            ValueError: If it is a checkpoint of another model.
        """
        self._check_source(checkpoint)
        stored = self._arguments(checkpoint.get(HYPER_PARAMETERS, {}))
        self._warn_of_overridden(stored)
        wanted = {**stored, **self._own_training_options()}
        if _plain(self._arguments(self.hparams)) != _plain(self._arguments(wanted)):
            components = {name: getattr(self, name) or False for name in COMPONENTS if name != "pre_processor"}
            self._become(type(self)(**wanted, **self.WITHOUT_FILES, **components))
        self._restore_components(checkpoint)

    @classmethod
    def _check_source(cls, checkpoint: Mapping[str, Any]) -> None:
        source = checkpoint.get(SOURCE, {}).get("model", cls.__name__)
        if source not in {kind.__name__ for kind in cls.__mro__}:
            msg = (
                f"the checkpoint is of the model {source}, not of {cls.__name__}: pass --model anomalib_logic.{source}"
            )
            raise ValueError(msg)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load tensors, as ``torch.nn.Module`` does.

        Raises:
            RuntimeError: If they are of another model or version; the message is one sentence.
        """
        try:
            return super().load_state_dict(*args, **kwargs)
        except RuntimeError as error:
            if not str(error).startswith("Error(s) in loading state_dict"):
                raise
            difference = " ".join(str(error).partition("\n")[2].split())
            msg = (
                f"the checkpoint does not fit {type(self).__name__}: it is of another model or version of this "
                f"package; pass that model, install that version or train again ({textwrap.shorten(difference, 200)})"
            )
            raise RuntimeError(msg) from error

    def _arguments(self, hyper_parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Constructor arguments of a model with these hyper-parameters, but for files and components.

        Groups are dictionaries; fields that stand by themselves count.
        """
        arguments = {}
        for name, default in self._defaults().items():
            value = hyper_parameters.get(name, default)
            if is_dataclass(default):
                own = {f.name: hyper_parameters[f.name] for f in fields(default) if f.name in hyper_parameters}
                value = {**plain(default), **plain(value), **own}
            arguments[name] = value
        return arguments

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        """Default of each constructor argument, but for files and components."""
        parameters = inspect.signature(cls.__init__).parameters.values()
        left_out = {"self", *COMPONENTS, *cls.WITHOUT_FILES}
        named = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and p.name not in left_out]
        return {parameter.name: parameter.default for parameter in named}

    def _single(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments with each field of a group by itself."""
        single: dict[str, Any] = {}
        for name, default in self._defaults().items():
            single |= arguments[name] if is_dataclass(default) else {name: arguments[name]}
        return single

    def _given(self) -> dict[str, Any]:
        """Constructor arguments and fields of groups that are not the default, as they are in use."""
        given: tuple[Mapping[str, Any], ...] = (self.hparams, self.hparams_initial, {})
        used, first, default = (self._single(self._arguments(values)) for values in given)
        return {name: used[name] for name in used if _plain(first[name]) != _plain(default[name])}

    def _own_training_options(self) -> dict[str, Any]:
        defaults = self._arguments({})
        names = {name for group in self.TRAINING_OPTIONS for name in defaults[group]}
        return {name: value for name, value in self._given().items() if name in names}

    def _warn_of_overridden(self, stored: Mapping[str, Any]) -> None:
        """Name the arguments that the caller gave and the checkpoint overrides."""
        stored, training = self._single(stored), self._own_training_options()
        differing = [
            f"{name}={value!r} (checkpoint: {stored[name]!r})"
            for name, value in self._given().items()
            if name not in training and _plain(value) != _plain(stored[name])
        ]
        if differing:
            logger.warning(
                "a checkpoint is used with the options that it was trained with; ignored: %s. Leave them out, or train "
                "with them",
                ", ".join(differing),
            )

    def _become(self, other: "CheckpointOptions") -> None:
        """Take over networks, pre-processor, plain attributes and hyper-parameters of a model of the same class."""
        for name, module in other.named_children():
            if name not in COMPONENTS:
                setattr(self, name, module.to(self.device))
        for name, value in vars(other).items():
            if not name.startswith("_") and name != "training":
                setattr(self, name, value)
        self.hparams.clear()
        self.hparams.update(other.hparams)
        if self.pre_processor is not None and other.pre_processor is not None:
            self.pre_processor.load_checkpoint_config(other.pre_processor.checkpoint_config())

    def _restore_components(self, checkpoint: dict[str, Any]) -> None:
        """Restore the components as Anomalib does, and let trainer and data module use what they became."""
        before = [getattr(self, name) for name in COMPONENTS]
        if before[0] is None and checkpoint.get(ENABLED, {}).get("pre_processor"):
            logger.warning(
                "the checkpoint's model has a pre-processor and this one has none (pre_processor=False): images must "
                "be resized and normalised as that one does"
            )
        super().on_load_checkpoint(checkpoint)
        trainer = getattr(self, "_trainer", None)
        if trainer is None:
            return
        gone = [component for component, name in zip(before, COMPONENTS, strict=True) if getattr(self, name) is None]
        trainer.callbacks = [c for c in trainer.callbacks if not any(c is component for component in gone)]
        datamodule = getattr(trainer, "datamodule", None)
        if isinstance(datamodule, AnomalibDataModule):
            datamodule._update_augmentations()  # images are resized to the pre-processor's size when they are read


def _model_to_export(frame: FrameType | None) -> Any:
    """The model that Anomalib's ``Engine.export`` was given, where that loads a checkpoint in its place."""
    caller = frame.f_back if frame is not None else None
    if caller is None or caller.f_code.co_name != "export" or caller.f_globals.get("__name__") != ENGINE:
        return None
    return caller.f_locals.get("model")


def _plain(value: Any) -> Any:
    """Value of an argument as a checkpoint could hold it, to compare."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value

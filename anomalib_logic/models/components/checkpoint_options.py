# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""A checkpoint is of one model: whoever loads it gets the options that it was trained with."""

import inspect
import logging
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

import torch
from anomalib.data import AnomalibDataModule
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_logic._host import BeforeAnomalibModule
from anomalib_logic._version import __version__

from .options import single_options
from .post_processing import RATES

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
            options = {**cls.WITHOUT_FILES, **single_options(kwargs, cls._groups())}
            model = super().load_from_checkpoint(checkpoint_path, *args, **options)
        except (TypeError, ValueError):  # perhaps the other model has other arguments
            cls._check_source(torch.load(checkpoint_path, map_location="cpu", weights_only=True))
            raise
        replaced = _model_to_export(inspect.currentframe())
        if isinstance(replaced, cls):
            replaced._warn_of_overridden(model._options(model.hparams))
            replaced._warn_of_pre_processor(_configuration(model.pre_processor))
            model._given_components = replaced._given_components
            model._use_given_post_processing()
        model._measure_given_rates()
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
        stored = self._options(checkpoint.get(HYPER_PARAMETERS, {}))
        self._warn_of_overridden(stored)
        wanted = {**stored, **self._own_training_options()}
        if _plain(self._options(self.hparams)) != _plain(wanted):
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

    @classmethod
    def _groups(cls) -> list[str]:
        """Names of the constructor's arguments that are groups of options."""
        parameters = inspect.signature(cls.__init__).parameters.values()
        return [parameter.name for parameter in parameters if is_dataclass(parameter.default)]

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        """Default of each option, but for files and components."""
        parameters = inspect.signature(cls.__init__).parameters.values()
        left_out = {"self", *COMPONENTS, *cls.WITHOUT_FILES}
        named = {p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD and p.name not in left_out}
        return single_options(named, cls._groups())

    @classmethod
    def _options(cls, hyper_parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Value of each option, but for files and components, of a model with these hyper-parameters."""
        values = single_options(hyper_parameters, cls._groups())
        return {name: values.get(name, default) for name, default in cls._defaults().items()}

    def store_options(self, **used: Any) -> None:
        """Keep the options as plain values, each by itself: for checkpoints, loggers and :meth:`_warn_of_overridden`.

        Args:
            **used: Options whose value in use is another one than the argument.
        """
        given, defaults = self._options(self.hparams), self._defaults()
        values = {**single_options(self.hparams, self._groups()), **used}
        self.hparams.clear()
        self.hparams.update(values)
        self._hparams_initial = self._to_hparams_dict(dict(values))  # what Lightning gives to loggers
        self._given = {name: values[name] for name in given if _plain(given[name]) != _plain(defaults[name])}

    def _own_training_options(self) -> dict[str, Any]:
        """Options on how to train that the caller gave."""
        parameters = inspect.signature(type(self).__init__).parameters
        names = {name for group in self.TRAINING_OPTIONS for name in asdict(parameters[group].default)}
        return {name: value for name, value in self._given.items() if name in names}

    def _warn_of_overridden(self, stored: Mapping[str, Any]) -> None:
        """Name the arguments that the caller gave and the checkpoint overrides."""
        training = self._own_training_options()
        differing = [
            f"{name}={value!r} (checkpoint: {stored[name]!r})"
            for name, value in self._given.items()
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
        self._hparams_initial = self._to_hparams_dict(dict(other.hparams))
        if self.pre_processor is not None and other.pre_processor is not None:
            self.pre_processor.load_checkpoint_config(other.pre_processor.checkpoint_config())

    def keep_given_components(self, **components: Any) -> None:
        """Remember the components that the caller gave, as far as a checkpoint would replace them.

        Args:
            **components: Arguments of the constructor; a boolean is no component.
        """
        self._given_components = {
            name: _settings(component) for name, component in components.items() if not isinstance(component, bool)
        }
        self._given_pre_processing = _configuration(self.pre_processor)
        self._given_rates: dict[str, tuple[float, float]] = {}  # and the checkpoint's

    def _restore_components(self, checkpoint: dict[str, Any]) -> None:
        """Restore the components as Anomalib does, keep the caller's, and let trainer and data module use them."""
        before = {name: getattr(self, name) for name in COMPONENTS}
        if before["pre_processor"] is None and checkpoint.get(ENABLED, {}).get("pre_processor"):
            logger.warning(
                "the checkpoint's model has a pre-processor and this one has none (pre_processor=False): images must "
                "be resized and normalised as that one does"
            )
        super().on_load_checkpoint(checkpoint)
        for name in self._given_components.keys() - {"pre_processor"}:
            setattr(self, name, before[name])
        self._warn_of_pre_processor(_configuration(self.pre_processor))
        self._use_given_post_processing()
        trainer = getattr(self, "_trainer", None)
        if trainer is None:
            return
        gone = [component for name, component in before.items() if getattr(self, name) is None]
        trainer.callbacks = [c for c in trainer.callbacks if not any(c is component for component in gone)]
        datamodule = getattr(trainer, "datamodule", None)
        if isinstance(datamodule, AnomalibDataModule):
            datamodule._update_augmentations()  # images are resized to the pre-processor's size when they are read

    def _warn_of_pre_processor(self, stored: str | None) -> None:
        """Say that a pre-processor that the caller gave is replaced by another one."""
        if "pre_processor" in self._given_components and stored != self._given_pre_processing:
            logger.warning(
                "a checkpoint is used with the pre-processing that it was trained with; ignored: pre_processor. Leave "
                "it out, or train with it"
            )

    def _use_given_post_processing(self) -> None:
        """Set what the caller gave of the post-processor's settings and is not the default."""
        given = self._given_components.get("post_processor", {}) if self.post_processor is not None else {}
        stored: dict[str, Any] = {name: getattr(self.post_processor, name, None) for name in given}
        for name, value in given.items():
            setattr(self.post_processor, name, value)
        rates = [name for name in RATES if name in given and given[name] != stored[name]]
        self._given_rates = {name: (given[name], stored[name]) for name in rates}

    def _measure_given_rates(self) -> None:
        """Measure thresholds for the caller's false alarm rates where no data is needed, or say what is."""
        rates, self._given_rates = self._given_rates, {}
        if not rates:
            return
        names = ", ".join(f"{name}={given} (checkpoint: {stored})" for name, (given, stored) in rates.items())
        if self.post_processor.measure_held_out(self):  # type: ignore[union-attr]  # rates are of one
            logger.info("thresholds are measured anew for %s", names)
            return
        for name, (_, stored) in rates.items():
            setattr(self.post_processor, name, stored)
        logger.warning(
            "thresholds for another rate need normal images, and are the checkpoint's; ignored: %s. Run validate with "
            "the same arguments and the data, and use the checkpoint that it writes",
            names,
        )

    def on_fit_start(self) -> None:
        """Leave the thresholds to the fit."""
        super().on_fit_start()
        self._given_rates = {}

    def on_test_start(self) -> None:
        """Measure thresholds for rates that are not the checkpoint's."""
        super().on_test_start()
        self._measure_given_rates()

    def on_predict_start(self) -> None:
        """Measure thresholds for rates that are not the checkpoint's."""
        super().on_predict_start()
        self._measure_given_rates()

    def on_validation_end(self) -> None:
        """Write a checkpoint if thresholds were measured for rates that are not those of the one that was validated."""
        super().on_validation_end()
        trainer = self.trainer
        rates, self._given_rates = self._given_rates, {}
        if trainer.state.fn != TrainerFn.VALIDATING or not rates or trainer.ckpt_path is None:
            return
        path = Path(trainer.ckpt_path)
        path = path.with_name(f"{path.stem}_validated{path.suffix}")
        trainer.save_checkpoint(path, weights_only=True)
        named = ", ".join(f"{name}={given}" for name, (given, _) in rates.items())
        logger.info("the model with thresholds for %s is in %s", named, path)


def _configuration(component: Any) -> str | None:
    """What Anomalib keeps of a component in a checkpoint, to compare."""
    return str(component.checkpoint_config()) if hasattr(component, "checkpoint_config") else None


def _settings(component: Any) -> dict[str, Any]:
    """Settings of a component that are not the defaults of its class; all of them if it has no defaults."""
    if not hasattr(component, "checkpoint_config"):
        return {}
    settings = component.checkpoint_config()
    try:
        defaults = type(component)().checkpoint_config()
    except TypeError:  # arguments are missing
        defaults = {}
    return {name: value for name, value in settings.items() if name not in defaults or value != defaults[name]}


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

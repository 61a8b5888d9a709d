# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The models that are compared, each with one setting for all data, or as a configuration file says.

Ours are those of ``configs/recommended/``. Where a model takes a backbone, all have the same with the same
weights. Models whose parts are downloads (EfficientAd, Dinomaly, Draem) need them in Anomalib's usual places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import timm
import yaml
from anomalib.models import (
    AnomalibModule,
    Cflow,
    Dinomaly,
    Draem,
    EfficientAd,
    Fastflow,
    Ganomaly,
    Padim,
    Patchcore,
    ReverseDistillation,
    get_model,
)
from anomalib.models.components.feature_extractors import TimmFeatureExtractor
from jsonargparse import ArgumentParser
from timm.models import FeatureInfo
from torch import nn
from torchvision.transforms.v2 import Compose, RandomCrop, Resize, Transform

from anomalib_logic import Glcf, Lgfdr, SamLad
from anomalib_logic.models.components.backbone import create_timm_model, describe_backbone, load_weights

from .jobs import is_configuration

QUIET = {"evaluator": False, "visualizer": False, "post_processor": False}  # scores stay raw
NARROW = {"depth": 2, "decoder_depths": (1, 1, 1, 1), "decoder_widths": (32, 64, 96, 160)}
GLCF = {
    **NARROW,
    "feature_noise": 0.25,
    "image_score": "max",
    "statistics": "validation",
    "optimizer": "muon",
    "learning_rate": 3e-3,
}
SAM_LAD = {"objects": "cluster"}
RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "wide_resnet50_2", "wide_resnet101_2")
FLOW_BACKBONES = ("resnet18", "wide_resnet50_2")


class Backbone(NamedTuple):
    """A backbone of timm and where its weights come from.

    Attributes:
        name: timm's name.
        weights: ``"packaged"``, ``"timm"`` (downloads them), ``"none"`` (random), or a file.
    """

    name: str
    weights: str = "packaged"

    def ours(self) -> dict[str, Any]:
        """Arguments of this package's models."""
        file = None if self.weights in ("timm", "none") else self.weights
        return {"backbone": self.name, "pre_trained": self.weights == "timm", "backbone_weights": file}

    def put_into(self, extractor: TimmFeatureExtractor, arguments: Mapping[str, Any]) -> None:
        """Give the extractor of one of Anomalib's models the weights, and more of timm's arguments, if any."""
        if arguments:
            network = timm.create_model(self.name, features_only=True, out_indices=extractor.idx, **arguments)
            extractor.feature_extractor = network.eval()
        self.load(extractor.feature_extractor)

    def load(self, network: nn.Module) -> None:
        """Load the weights into a pyramid that one of Anomalib's models made without."""
        if self.weights == "timm":
            network.load_state_dict(create_timm_model(self.name, True, features_only=True).state_dict(), strict=False)
        elif self.weights != "none":
            load_weights(network, self.weights, describe_backbone(self.name))

    def layers(self, *strides: int) -> list[int]:
        """Indices of the pyramid's maps with the given strides."""
        reductions = self.info().reduction()
        return [reductions.index(stride) for stride in strides]

    def info(self) -> FeatureInfo:
        """Description of the pyramid by timm."""
        return timm.create_model(self.name, features_only=True).feature_info


@dataclass(frozen=True)
class Recipe:
    """How to make and train a model.

    Attributes:
        make: Makes the model of a backbone, a side of the images and more arguments.
        trainer: Arguments of the trainer.
        batch: Images in a training batch.
        shift: Training images are shifted by up to so many 256ths of their side, with reflected borders.
        augmentations: Other augmentations of training images.
    """

    make: Callable[[Backbone, int, Mapping[str, Any]], AnomalibModule]
    trainer: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 8
    shift: int = 0
    augmentations: Transform | None = None

    def train_augmentations(self, image_size: int) -> Transform | None:
        """Augmentations of training images."""
        if not self.shift:
            return self.augmentations
        size, padding = (image_size, image_size), round(self.shift * image_size / 256)
        return Compose([Resize(size, antialias=True), RandomCrop(size, padding=padding, padding_mode="reflect")])


def _ours(model: type[AnomalibModule], settings: Mapping[str, Any]) -> Callable[..., AnomalibModule]:
    def make(backbone: Backbone, image_size: int, options: Mapping[str, Any]) -> AnomalibModule:
        return model(**{**settings, **backbone.ours(), "image_size": image_size, **QUIET, **options})

    return make


def _padim(backbone: Backbone, image_size: int, options: Mapping[str, Any]) -> AnomalibModule:
    layers = backbone.layers(4, 8, 16)
    features = min(60, sum(backbone.info().channels(i) for i in layers))
    options, of_backbone = _split(options)
    arguments = {"layers": layers, "n_features": features, **_peer(backbone, image_size), **options}
    model = Padim(backbone.name, **arguments)
    backbone.put_into(model.model.feature_extractor, of_backbone)
    return model


def _patchcore(backbone: Backbone, image_size: int, options: Mapping[str, Any]) -> AnomalibModule:
    coreset = {"coreset_sampling_ratio": 0.02}  # with 10%, as by default, minutes and gigabytes more
    options, of_backbone = _split(options)
    arguments = {"layers": backbone.layers(8, 16), **coreset, **_peer(backbone, image_size), **options}
    model = Patchcore(backbone.name, **arguments)
    backbone.put_into(model.model.feature_extractor, of_backbone)
    return model


def _cflow(backbone: Backbone, image_size: int, options: Mapping[str, Any]) -> AnomalibModule:
    options, of_backbone = _split(options)
    arguments = {"layers": backbone.layers(8, 16, 32), **_peer(backbone, image_size), **options}
    model = Cflow(backbone.name, **arguments)
    backbone.put_into(model.model.encoder, of_backbone)
    return model


def _reverse_distillation(backbone: Backbone, image_size: int, options: Mapping[str, Any]) -> AnomalibModule:
    _require(backbone, RESNETS, "reverse_distillation")
    model = ReverseDistillation(backbone.name, **{**_peer(backbone, image_size), **options})
    backbone.load(model.model.encoder.feature_extractor)
    return model


def _fastflow(backbone: Backbone, image_size: int, options: Mapping[str, Any]) -> AnomalibModule:
    _require(backbone, FLOW_BACKBONES, "fastflow")
    model = Fastflow(backbone.name, **{**_peer(backbone, image_size), **options})
    backbone.load(model.model.feature_extractor)
    return model


def _require(backbone: Backbone, possible: tuple[str, ...], model: str) -> None:
    if backbone.name not in possible:
        msg = f"{model} works with no backbone but {', '.join(possible)}; pass one as --backbone, got {backbone.name}"
        raise ValueError(msg)


def _split(options: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Options of a model without ``backbone_args``, which Anomalib's have not, and these."""
    rest = dict(options)
    return rest, rest.pop("backbone_args", {})


def _peer(backbone: Backbone, image_size: int) -> dict[str, Any]:
    pre_processor = Glcf.configure_pre_processor((image_size, image_size), backbone.name)
    return {"pre_trained": False, "pre_processor": pre_processor, **QUIET}


def _without_backbone(model: type[AnomalibModule], least_size: int = 0) -> Callable[..., AnomalibModule]:
    def make(backbone: Backbone, image_size: int, options: Mapping[str, Any]) -> AnomalibModule:
        size = (max(image_size, least_size),) * 2
        return model(**{"pre_processor": model.configure_pre_processor(size), **QUIET, **options})

    return make


def _dinomaly(backbone: Backbone, image_size: int, options: Mapping[str, Any]) -> AnomalibModule:
    return Dinomaly(**{**QUIET, **options})  # its own sizes


def for_epochs(number: int) -> dict[str, Any]:
    """Arguments of a trainer that validates once, at the end."""
    return {"max_epochs": number, "check_val_every_n_epoch": number}


def _for_steps(number: int) -> dict[str, Any]:
    return {"max_epochs": -1, "max_steps": number, "val_check_interval": number, "check_val_every_n_epoch": None}


# Lengths of the peers' trainings are those that are usual for them.
MODELS: dict[str, Recipe] = {
    "glcf": Recipe(_ours(Glcf, GLCF), for_epochs(90), shift=7),
    "lgfdr": Recipe(_ours(Lgfdr, {}), for_epochs(32)),
    "sam_lad": Recipe(_ours(SamLad, {**SAM_LAD, "seed": 0})),
    "patchcore": Recipe(_patchcore),
    "padim": Recipe(_padim),
    "efficient_ad": Recipe(_without_backbone(EfficientAd, least_size=256), _for_steps(70_000), batch=1),
    "reverse_distillation": Recipe(_reverse_distillation, for_epochs(200)),
    "dinomaly": Recipe(_dinomaly, _for_steps(5_000)),
    "fastflow": Recipe(_fastflow, for_epochs(500), batch=32),
    "draem": Recipe(_without_backbone(Draem), for_epochs(700)),
    "cflow": Recipe(_cflow, for_epochs(50)),
    "ganomaly": Recipe(_without_backbone(Ganomaly), for_epochs(100), batch=32),
}


def recipe_of(model: str) -> Recipe:
    """Recipe of a name or of a configuration file of Anomalib's command line.

    Of a file, ``model``, ``trainer``, and of ``data`` the training batch and its augmentations count; which data it is
    says the suite.

    Raises:
        ValueError: If there is no such name.
        FileNotFoundError: If there is no such file.
    """
    if not is_configuration(model):
        if model not in MODELS:
            msg = f"model must be one of {', '.join(MODELS)} or a configuration file (.yaml), got '{model}'"
            raise ValueError(msg)
        return MODELS[model]
    config = yaml.safe_load(Path(model).read_text(encoding="utf-8"))

    def make(backbone: Backbone, image_size: int, options: Mapping[str, Any]) -> AnomalibModule:
        arguments = {**config["model"].get("init_args", {}), **options, **QUIET}
        return get_model({"class_path": config["model"]["class_path"], "init_args": arguments})

    loading = config.get("data", {}).get("init_args", {})
    return Recipe(
        make,
        config.get("trainer", {}),
        loading.get("train_batch_size", 8),
        augmentations=_transform(loading.get("train_augmentations")),
    )


def _transform(config: Mapping[str, Any] | None) -> Transform | None:
    if config is None:
        return None
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--transform", type=Transform)
    return parser.instantiate_classes(parser.parse_object({"transform": config})).transform

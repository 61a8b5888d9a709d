# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Files of weights: reading them, and finding published ones."""

import hashlib
import logging
from functools import cache
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

import torch
from anomalib.utils.path import get_pretrained_weights_dir
from safetensors.torch import load_file
from torch import nn
from torch.hub import download_url_to_file

logger = logging.getLogger(__name__)


class PublishedFile(NamedTuple):
    """A file of weights that its authors published.

    Attributes:
        url: Its address.
        sha256: Its digest; ``None`` where it is not known: then that of the downloaded file is only printed.
    """

    url: str
    sha256: str | None = None


_SAM = "https://dl.fbaipublicfiles.com/segment_anything"
_FEATUP = "https://marhamilresearch4.blob.core.windows.net/feature-upsampling-public/pretrained"
PUBLISHED = {
    "sam_vit_h": PublishedFile(
        f"{_SAM}/sam_vit_h_4b8939.pth",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
    "sam_vit_l": PublishedFile(
        f"{_SAM}/sam_vit_l_0b3195.pth",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    "sam_vit_b": PublishedFile(
        f"{_SAM}/sam_vit_b_01ec64.pth",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    "mobile_sam": PublishedFile(
        "https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt",
        "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
    ),
    "featup_dinov2": PublishedFile(
        f"{_FEATUP}/dinov2_jbu_stack_cocostuff.ckpt",
        "438dad4dedb3c3ba4b7fa13d1c8eb465dafd323dadc039afd04b15178ea7b38c",
    ),
    "featup_dinov2_no_norm": PublishedFile(f"{_FEATUP}/no_norm/dinov2_jbu_stack_cocostuff.ckpt"),
}


def published_weights(name: str) -> Path:
    """Find published weights in Anomalib's cache of weights, or download them into it, and check them.

    Args:
        name: One of ``PUBLISHED``.

    Returns:
        Path of the file.

    Raises:
        RuntimeError: If the download fails, or the digest is another one than the published one.
    """
    file = PUBLISHED[name]
    path = get_pretrained_weights_dir() / name / file.url.rsplit("/", 1)[-1]
    if not path.is_file():
        _download(name, file, path)
    elif file.sha256 is not None and (digest := digest_of(path)) != file.sha256:
        msg = (
            f"{path} is not the published file '{name}' (SHA-256 {digest}, expected {file.sha256}): "
            "delete it to download it anew"
        )
        raise RuntimeError(msg)
    return path


def _download(name: str, file: PublishedFile, path: Path) -> None:
    """Download a file; what is incomplete or another file does not get to the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    logger.info("downloading %s to %s", file.url, path)
    remedy = f"download the file on another machine and put it at {path}, or pass its path as an argument"
    try:
        download_url_to_file(file.url, str(path), file.sha256)
    except (OSError, HTTPException, RuntimeError) as error:
        msg = f"could not download the weights '{name}' from {file.url} ({error}): {remedy}"
        raise RuntimeError(msg) from error
    if file.sha256 is None:
        logger.warning("no digest is published for '%s'; this file's SHA-256 is %s", name, digest_of(path))


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; computed once in a process while the file's size and time stay the same."""
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns)


@cache
def _digest(path: Path, size: int, time: int) -> str:
    hasher = hashlib.sha256()
    with path.open("rb") as content:
        while block := content.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()


def read_state_dict(path: str | Path, argument: str) -> dict[str, torch.Tensor]:
    """Read a file of weights without running code from it.

    Args:
        path: ``.safetensors`` file, or PyTorch file with a state dict, bare or under ``state_dict`` or ``model``.
        argument: Name of the constructor argument that the path was given as, for error messages.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        msg = f"{argument} file {path} does not exist"
        raise FileNotFoundError(msg)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        kind = "safetensors" if path.suffix == ".safetensors" else "a PyTorch state dict"
        reason = str(error).splitlines()[0]
        if "weights_only" in reason:  # torch advises to run the code in the file
            reason = "it is no such file, or holds code, which is not run"
        msg = f"{argument} file {path} cannot be read as {kind}: {reason}"
        raise ValueError(msg) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        msg = f"{argument} file {path} holds no state dict (names and tensors)"
        raise ValueError(msg)
    return content


def watch_loading(module: nn.Module) -> None:
    """Give a module the attribute ``loaded``, which becomes true with any state dict that is loaded into it."""
    module.loaded = False
    module.register_load_state_dict_post_hook(_mark_loaded)


def _mark_loaded(module: nn.Module, incompatible_keys: object) -> None:
    del incompatible_keys
    module.loaded = True


def shorten(names: list[str], most: int = 8) -> str:
    """Join names for a message, not more than ``most`` of them."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")

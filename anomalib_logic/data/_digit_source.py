# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Handwritten digits for :class:`~.digit_anatomy.DigitAnatomy`: scikit-learn's own or MNIST IDX files, in pools."""

from __future__ import annotations

import gzip
import hashlib
import re
import struct
import zlib
from pathlib import Path

import numpy as np

BUNDLED_SOURCE = "sklearn"
POOL_SPLITS = ("train", "val", "test")

# glyphs by digit (0 to 9), each uint8 of shape (h, w), ink high
DigitPool = list[list[np.ndarray]]

_IDX_NAME = re.compile(r"(?P<prefix>.*)(?P<part>images|labels)[-.]idx[13]-ubyte(?:\.gz)?")
_IDX_IMAGES_MAGIC = 2051
_IDX_LABELS_MAGIC = 2049


def find_idx_pairs(folder: str | Path) -> list[tuple[Path, Path]]:
    """Find the pairs of IDX image and label files in a folder.

    Names are ``<prefix>images-idx3-ubyte`` and ``<prefix>labels-idx1-ubyte`` with any prefix, with ``.`` instead of the
    first ``-`` and with ``.gz`` if wanted.

    Args:
        folder: Folder that holds the files.

    Returns:
        Image file and label file of each prefix, sorted by prefix; an unpacked file goes before its ``.gz``.

    Raises:
        ValueError: If there is no such folder, no such file, or a file has no partner.
    """
    folder = Path(folder)
    if not folder.is_dir():
        msg = f"source must be {BUNDLED_SOURCE!r} or a folder of MNIST IDX files, got {str(folder)!r}: no such folder"
        raise ValueError(msg)
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        match = _IDX_NAME.fullmatch(path.name)
        if match and not path.name.startswith(".") and path.is_file():
            found.setdefault(match["prefix"], {}).setdefault(match["part"], path)
    if not found:
        msg = (
            f"source folder {folder} holds no MNIST IDX files; put pairs such as train-images-idx3-ubyte.gz and "
            "train-labels-idx1-ubyte.gz there"
        )
        raise ValueError(msg)
    for prefix, pair in found.items():
        if len(pair) != 2:
            (part, path) = next(iter(pair.items()))
            partner = f"{prefix}labels-idx1-ubyte" if part == "images" else f"{prefix}images-idx3-ubyte"
            msg = f"{path} has no partner; put {partner} or {partner}.gz into {folder}"
            raise ValueError(msg)
    return [(pair["images"], pair["labels"]) for _, pair in sorted(found.items())]


def fingerprint_source(source: str | Path) -> str:
    """Return a text that changes with the content of the source, and does not with the place of its files."""
    if str(source) == BUNDLED_SOURCE:
        return BUNDLED_SOURCE
    digest = hashlib.sha256()
    for pair in find_idx_pairs(source):
        for path in pair:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return f"idx-{digest.hexdigest()}"


def load_source(source: str | Path) -> tuple[list[np.ndarray], list[int]]:
    """Load all digit images of a source.

    Args:
        source: ``"sklearn"`` or a folder of IDX files.

    Returns:
        Images, uint8 of shape ``(h, w)`` with ink high, and their digits.

    Raises:
        ValueError: If a file is broken or has no partner, naming it.
    """
    if str(source) == BUNDLED_SOURCE:
        from sklearn.datasets import load_digits

        bundled = load_digits()
        pixels = np.round(bundled.images * (255 / 16)).astype(np.uint8)
        return list(pixels), bundled.target.tolist()
    images: list[np.ndarray] = []
    labels: list[int] = []
    for image_path, label_path in find_idx_pairs(source):
        pixels = _read_idx(image_path, _IDX_IMAGES_MAGIC, dimensions=3)
        digits = _read_idx(label_path, _IDX_LABELS_MAGIC, dimensions=1)
        if len(pixels) != len(digits):
            msg = (
                f"{image_path} has {len(pixels)} images but {label_path} has {len(digits)} labels; "
                "take both files from the same data set"
            )
            raise ValueError(msg)
        if digits.size and digits.max() > 9:
            msg = f"{label_path} must hold digits from 0 to 9, got {digits.max()}; take MNIST's label file"
            raise ValueError(msg)
        images += list(pixels)
        labels += digits.tolist()
    return images, labels


def _read_idx(path: Path, magic: int, dimensions: int) -> np.ndarray:
    """Read one IDX file of unsigned bytes with the given magic number."""
    remedy = "download the file again"
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        msg = f"{path} cannot be unpacked ({error}); {remedy}"
        raise ValueError(msg) from error
    header = 4 * (1 + dimensions)
    if len(content) < header:
        msg = f"{path} is truncated: an IDX header has {header} bytes, got {len(content)}; {remedy}"
        raise ValueError(msg)
    found, *shape = struct.unpack_from(f">{1 + dimensions}I", content)
    if found != magic:
        msg = f"{path} must start with the IDX magic number {magic}, got {found}; {remedy} or correct its name"
        raise ValueError(msg)
    expected = header + int(np.prod(shape, dtype=np.int64))
    if len(content) != expected:
        fault = "is truncated" if len(content) < expected else "is too long"
        msg = f"{path} {fault}: its header {tuple(shape)} needs {expected} bytes, got {len(content)}; {remedy}"
        raise ValueError(msg)
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def split_pools(images: list[np.ndarray], labels: list[int], seed: int) -> dict[str, DigitPool]:
    """Share the digit images out to disjoint pools: a fifth each to ``val`` and ``test``, the rest to ``train``.

    Identical images count once, so that no two pools hold the same image.

    Args:
        images: Digit images, uint8 of shape ``(h, w)``.
        labels: Digit, 0 to 9, of each image.
        seed: Seed of the shuffle.

    Returns:
        For each of ``POOL_SPLITS`` the glyphs by digit.

    Raises:
        ValueError: If a digit has fewer than three different images with ink, one for each pool.
    """
    unique: dict[tuple[tuple[int, ...], bytes], int] = {}
    for index, image in enumerate(images):
        if image.any():
            unique.setdefault((image.shape, image.tobytes()), index)
    by_digit: DigitPool = [[] for _ in range(10)]
    for index in unique.values():
        by_digit[labels[index]].append(images[index])

    pools: dict[str, DigitPool] = {split: [] for split in POOL_SPLITS}
    for digit, glyphs in enumerate(by_digit):
        if len(glyphs) < len(POOL_SPLITS):
            msg = (
                f"source must hold at least {len(POOL_SPLITS)} different images of each digit, got {len(glyphs)} of "
                f"digit {digit}; add more IDX files or use source={BUNDLED_SOURCE!r}"
            )
            raise ValueError(msg)
        order = np.random.default_rng([seed, digit]).permutation(len(glyphs))
        fifth = max(1, len(glyphs) // 5)
        shares = {"val": order[:fifth], "test": order[fifth : 2 * fifth], "train": order[2 * fifth :]}
        for split in POOL_SPLITS:
            pools[split].append([glyphs[index] for index in shares[split]])
    return pools

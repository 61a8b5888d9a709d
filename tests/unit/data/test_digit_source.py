# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import itertools
import re

import numpy as np
import pytest

from anomalib_logic.data._digit_source import find_idx_pairs, fingerprint_source, load_source, split_pools


def content_hashes(pool) -> set[str]:
    return {hashlib.sha256(glyph.tobytes()).hexdigest() for glyphs in pool for glyph in glyphs}


@pytest.mark.parametrize(
    ("images_name", "labels_name"),
    [
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
        ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
        ("mnist-t10k-images-idx3-ubyte.gz", "mnist-t10k-labels-idx1-ubyte.gz"),
        ("train-images.idx3-ubyte", "train-labels.idx1-ubyte"),
        ("images-idx3-ubyte", "labels-idx1-ubyte.gz"),
    ],
)
def test_idx_files_are_found_by_their_usual_names(write_idx, images_name, labels_name):
    folder = write_idx(images_name, labels_name)
    assert find_idx_pairs(folder) == [(folder / images_name, folder / labels_name)]


def test_idx_file_keeps_pixels_and_labels(write_idx):
    images, labels = load_source(write_idx(per_digit=2, seed=4))
    expected = np.random.default_rng(4).integers(1, 256, size=(20, 9, 7))
    assert np.array_equal(images, expected)
    assert labels == [digit for digit in range(10) for _ in range(2)]


def test_all_pairs_of_a_folder_are_used(write_idx):
    write_idx(per_digit=2, seed=1)
    folder = write_idx("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz", per_digit=3, seed=2)
    assert len(load_source(folder)[0]) == 50


def test_bundled_digits_use_the_whole_range_of_grey(tmp_path):
    images, _ = load_source("sklearn")
    assert (len(images), max(image.max() for image in images)) == (1797, 255)


def test_missing_source_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"source must be 'sklearn' or a folder of MNIST IDX files, got '.*nowhere'"):
        find_idx_pairs(tmp_path / "nowhere")


def test_source_folder_without_idx_files_says_what_to_put_there(tmp_path):
    with pytest.raises(ValueError, match=r"holds no MNIST IDX files; put pairs such as train-images-idx3-ubyte\.gz"):
        find_idx_pairs(tmp_path)


@pytest.mark.parametrize("lost", ["train-labels-idx1-ubyte", "train-images-idx3-ubyte"])
def test_missing_partner_is_named(write_idx, lost):
    folder = write_idx()
    (folder / lost).unlink()
    with pytest.raises(ValueError, match=rf"has no partner; put {lost} or {lost}\.gz into"):
        find_idx_pairs(folder)


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
@pytest.mark.parametrize("size", [3, 25])
def test_truncated_file_is_named(write_idx, name, size):
    folder = write_idx()
    (folder / name).write_bytes((folder / name).read_bytes()[:size])
    with pytest.raises(ValueError, match=rf"{name} is truncated: .*download the file again"):
        load_source(folder)


@pytest.mark.parametrize("damage", [lambda content: content[:-30], lambda content: b"plain text"])
def test_broken_gz_file_is_named(write_idx, damage):
    folder = write_idx("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} cannot be unpacked .*download the file again"):
        load_source(folder)


def test_file_with_surplus_bytes_is_named(write_idx):
    folder = write_idx()
    path = folder / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ValueError, match="train-labels-idx1-ubyte is too long"):
        load_source(folder)


def test_wrong_magic_number_is_named(write_idx):
    folder = write_idx()
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(b"\0\0\x08\x01" + path.read_bytes()[4:])
    with pytest.raises(ValueError, match="must start with the IDX magic number 2051, got 2049"):
        load_source(folder)


def test_images_and_labels_of_different_number_are_refused(write_idx):
    folder = write_idx(per_digit=3)
    images = (folder / "train-images-idx3-ubyte").read_bytes()
    write_idx(per_digit=4)
    (folder / "train-images-idx3-ubyte").write_bytes(images)
    with pytest.raises(ValueError, match=r"has 30 images but .* has 40 labels"):
        load_source(folder)


def test_label_above_9_is_refused(write_idx):
    folder = write_idx()
    path = folder / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x0a")
    with pytest.raises(ValueError, match="must hold digits from 0 to 9, got 10"):
        load_source(folder)


@pytest.mark.parametrize("seed", [0, 1])
def test_no_digit_image_is_in_two_pools(seed):
    images, labels = load_source("sklearn")
    pools = split_pools(images + images[:500], labels + labels[:500], seed)
    for one, other in itertools.combinations(pools.values(), 2):
        assert not content_hashes(one) & content_hashes(other)


def test_pools_together_hold_every_digit_image_once():
    images, labels = load_source("sklearn")
    pools = split_pools(images, labels, seed=0)
    assert sum(len(glyphs) for pool in pools.values() for glyphs in pool) == len(images)


def test_pools_change_with_the_seed():
    images, labels = load_source("sklearn")
    first, second = (content_hashes(split_pools(images, labels, seed)["test"]) for seed in (0, 1))
    assert first != second


def test_too_few_different_images_of_a_digit_are_refused(write_idx):
    images, labels = load_source(write_idx(per_digit=3))
    images[-1] = images[-2]
    with pytest.raises(ValueError, match="at least 3 different images of each digit, got 2 of digit 9"):
        split_pools(images, labels, seed=0)


def test_fingerprint_follows_the_content_not_the_place(write_idx, tmp_path):
    before = fingerprint_source(write_idx(seed=1))
    (tmp_path / "idx").rename(tmp_path / "moved")
    assert fingerprint_source(tmp_path / "moved") == before


def test_fingerprint_changes_with_the_content(write_idx):
    assert fingerprint_source(write_idx(seed=1)) != fingerprint_source(write_idx(seed=2))

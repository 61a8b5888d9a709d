# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import struct
import warnings
import zlib

import numpy as np
import pytest
from anomalib.data.utils import read_image as anomalib_read_image
from PIL import Image

from anomalib_logic.data import check_image_files, image_files, image_limits, read_image
from anomalib_logic.data.image_files import check_files, check_header, read_size
from anomalib_logic.data.mask_files import read_mask_size, read_mask_values

SIDE = 100
PIXELS = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
READERS = [read_image, read_size, check_header, lambda path: check_image_files([path])]
MASK_READERS = [read_mask_values, read_mask_size, lambda path: check_files([path])]


@pytest.fixture
def small_limit(monkeypatch):
    """A limit of Pillow that the images here exceed."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    monkeypatch.setattr(image_files, "PILLOWS_LIMIT", 2000)


@pytest.fixture
def little_memory(monkeypatch):
    """Memory for images of half as many pixels as those here."""
    monkeypatch.setattr(image_limits, "_memory", lambda: SIDE * SIDE / 2 * image_limits.BYTES_A_PIXEL / 1e9)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def png_of_size(width: int, height: int) -> bytes:
    """A PNG file whose header claims a size that its pixels do not have."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    packed = (struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "ppm", "webp"])
@pytest.mark.parametrize("check", READERS)
def test_image_above_pillows_limit_is_read(tmp_path, small_limit, suffix, check):
    Image.fromarray(PIXELS).save(tmp_path / f"a.{suffix}")
    check(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("check", MASK_READERS)
def test_mask_above_pillows_limit_is_read(tmp_path, small_limit, check):
    Image.fromarray(PIXELS[..., 0]).save(tmp_path / "a.png")
    check(tmp_path / "a.png")


def test_checked_image_is_then_read_by_anomalib_and_a_larger_one_is_not(tmp_path, small_limit):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    Image.fromarray(PIXELS).resize((300, 300)).save(tmp_path / "unknown.png")
    check_image_files([tmp_path / "a.png"])
    assert anomalib_read_image(tmp_path / "a.png", as_tensor=True).shape == (3, SIDE, SIDE)
    with pytest.raises(Image.DecompressionBombError):
        anomalib_read_image(tmp_path / "unknown.png")


def test_limit_that_was_lifted_stays_lifted(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    check_image_files([tmp_path / "a.png"])
    assert Image.MAX_IMAGE_PIXELS is None


@pytest.mark.parametrize("check", READERS + MASK_READERS)
def test_image_for_which_memory_does_not_suffice_is_refused_with_size_and_remedy(tmp_path, little_memory, check):
    Image.fromarray(PIXELS[..., 0]).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png has 100 x 100 pixels by its header.* GB of memory.*cut"):
        check(tmp_path / "a.png")


@pytest.mark.parametrize("check", READERS + MASK_READERS)
@pytest.mark.parametrize("size", [(30000, 30000), (9000, 9000), (2**31 - 1, 2**31 - 1)])
def test_header_that_claims_more_than_the_file_can_hold_is_refused_without_decoding(tmp_path, size, check):
    (tmp_path / "a.png").write_bytes(png_of_size(*size))
    with pytest.raises(ValueError, match=rf"a\.png has {size[0]} x {size[1]} pixels.*than the file can hold.*damaged"):
        check(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["tif", "bmp", "ppm", "pgm"])
def test_damaged_header_that_claims_more_than_pillows_limit_is_refused_with_the_name(tmp_path, small_limit, suffix):
    path = tmp_path / f"a.{suffix}"
    image = Image.fromarray(PIXELS[..., 0] if suffix == "pgm" else PIXELS)
    image.save(path)
    content = path.read_bytes()
    heights = {
        "tif": (struct.pack("<HHLHH", 257, 3, 1, SIDE, 0), struct.pack("<HHLHH", 257, 3, 1, 9999, 0)),
        "bmp": (struct.pack("<ii", SIDE, SIDE), struct.pack("<ii", SIDE, 9999)),
        "ppm": (b"100 100", b"100 9999"),
        "pgm": (b"100 100", b"100 9999"),
    }
    right, wrong = heights[suffix]
    if right not in content:
        right, wrong = (struct.pack("<HHLL", 257, 4, 1, SIDE), struct.pack("<HHLL", 257, 4, 1, 9999))
    assert right in content
    path.write_bytes(content.replace(right, wrong, 1))
    with pytest.raises(ValueError, match=rf"a\.{suffix} (is not a readable image file|has .* damaged)"):
        check_image_files([path])


def test_lack_of_memory_while_decoding_is_said_with_the_name(tmp_path, small_limit, monkeypatch):
    Image.fromarray(PIXELS).save(tmp_path / "a.bmp")

    def load(image):
        raise MemoryError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(ValueError, match=r"a\.bmp is not a readable image file"):
        check_image_files([tmp_path / "a.bmp"])


@pytest.mark.slow  # a real one, 200 million pixels
def test_picture_of_a_line_camera_is_checked_and_read_as_a_mask(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # undone at the end
    image = Image.new("1", (20000, 10000))
    image.paste(1, (100, 200, 300, 400))
    image.save(tmp_path / "a.png")
    check_image_files([tmp_path / "a.png"])
    assert Image.MAX_IMAGE_PIXELS == 200_000_000
    assert (read_mask_values(tmp_path / "a.png") != 0).sum() == 200 * 200

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import re
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from anomalib.data.utils import read_image as anomalib_read_image
from PIL import Image, ImageCms
from torchvision.datasets.folder import IMG_EXTENSIONS

from anomalib_logic.data import check_image_files, image_files, read_image
from anomalib_logic.data.image_files import IMAGE_SUFFIXES, check_header, list_images, read_size

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
RGB = Image.fromarray(PIXELS)
TWELVE_BITS = np.random.default_rng(0).integers(0, 4096, (20, 30, 3)).astype(np.uint16)


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def write_16_bit_png(path: Path, pixels: np.ndarray) -> None:
    """Write a PNG of 16 bits with 1 to 4 channels, which Pillow cannot."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def lab() -> Image.Image:
    profiles = (ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"))
    return ImageCms.profileToProfile(RGB, *profiles, outputMode="LAB")


def with_alpha(alpha: int, mode: str = "RGBA") -> Image.Image:
    image = RGB.convert(mode)
    band = np.full((20, 30), 255, np.uint8)
    band[3, 4] = alpha
    image.putalpha(Image.fromarray(band))
    return image


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


READ = {
    "rgb.png": lambda path: RGB.save(path),
    "rgb.jpg": lambda path: RGB.save(path),
    "rgb.jpeg": lambda path: RGB.save(path),
    "rgb.webp": lambda path: RGB.save(path),
    "rgb.bmp": lambda path: RGB.save(path),
    "rgb.ppm": lambda path: RGB.save(path),
    "rgb.tif": lambda path: RGB.save(path),
    "rgb.tiff": lambda path: RGB.save(path, compression="tiff_lzw"),
    "grey.pgm": lambda path: RGB.convert("L").save(path),
    "grey.png": lambda path: RGB.convert("L").save(path),
    "bit.png": lambda path: RGB.convert("1").save(path),
    "palette.png": lambda path: RGB.convert("P").save(path),
    "opaque_palette.png": lambda path: RGB.convert("P").save(path, transparency=bytes([255] * 256)),
    "opaque.png": lambda path: with_alpha(255).save(path),
    "opaque_grey.png": lambda path: with_alpha(255, "LA").save(path),
    "cmyk.jpg": lambda path: RGB.convert("CMYK").save(path),
    "cmyk.tif": lambda path: RGB.convert("CMYK").save(path),
    "ycbcr.tif": lambda path: RGB.convert("YCbCr").save(path),
    "lab.tif": lambda path: lab().save(path),
    "upright.jpg": lambda path: RGB.save(path, exif=orientation(1)),
    "turned.tif": lambda path: RGB.save(path, exif=orientation(6)),
    "twelve_bits.ppm": lambda path: path.write_bytes(b"P6 30 20 4095\n" + TWELVE_BITS.astype(">u2").tobytes()),
    "five_six_five.bmp": lambda path: path.write_bytes(bmp_of_16_bits_a_pixel()),
}

HEADER_TELLS = {
    "grey.png": (lambda path: write_16_bit_png(path, TWELVE_BITS[..., :1]), r"'I;16'"),
    "grey_alpha.png": (lambda path: write_16_bit_png(path, TWELVE_BITS[..., :2]), r"'RGBA'"),
    "rgb.png": (lambda path: write_16_bit_png(path, TWELVE_BITS), r"'RGB'"),
    "grey.tif": (lambda path: tifffile.imwrite(path, TWELVE_BITS[..., 0]), r"'I;16'"),
    "big_endian.tif": (lambda path: tifffile.imwrite(path, TWELVE_BITS[..., 0], byteorder=">"), r"'I;16B'"),
    "rgb.tif": (lambda path: tifffile.imwrite(path, TWELVE_BITS, photometric="rgb"), r"'RGB'"),
    "packed.tif": (lambda path: tifffile.imwrite(path, TWELVE_BITS, photometric="rgb", compression="zlib"), r"'RGB'"),
    "grey.pgm": (
        lambda path: path.write_bytes(b"P5 30 20 4095\n" + TWELVE_BITS[..., 0].astype(">u2").tobytes()),
        "'I'",
    ),
    "integer.tif": (lambda path: Image.fromarray(TWELVE_BITS[..., 0].astype(np.int32)).save(path), r"'I'"),
    "float.tif": (lambda path: tifffile.imwrite(path, (PIXELS[..., 0] / 255).astype(np.float32)), r"'F'"),
    "turned.jpg": (lambda path: RGB.save(path, exif=orientation(6)), r"'RGB', EXIF orientation 6"),
    "turned.png": (lambda path: RGB.save(path, exif=orientation(3)), r"'RGB', EXIF orientation 3"),
    "turned.webp": (lambda path: RGB.save(path, exif=orientation(2)), r"'RGB', EXIF orientation 2"),
}
PIXELS_TELL = {
    "rgba.png": (lambda path: with_alpha(254).save(path), r"'RGBA'"),
    "grey_alpha.png": (lambda path: with_alpha(0, "LA").save(path), r"'LA'"),
    "rgba.tif": (lambda path: with_alpha(0).save(path), r"'RGBA'"),
    "palette.png": (lambda path: RGB.convert("P").save(path, transparency=int(PIXELS_P[0, 0])), r"'P'"),
    "key.png": (lambda path: RGB.save(path, transparency=tuple(PIXELS[0, 0].tolist())), r"'RGB'"),
}
PIXELS_P = np.array(RGB.convert("P"))


def bmp_of_16_bits_a_pixel() -> bytes:
    pixels = (PIXELS[..., 0].astype("<u2") * 257).tobytes()
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    info = struct.pack("<IiiHHIIiiII", 40, 30, 20, 1, 16, 3, len(pixels), 0, 0, 0, 0) + masks
    return struct.pack("<2sIHHI", b"BM", 14 + len(info) + len(pixels), 0, 0, 14 + len(info)) + info + pixels


def test_suffixes_are_anomalibs():
    assert sorted(IMAGE_SUFFIXES) == sorted(IMG_EXTENSIONS)


@pytest.mark.parametrize("name", READ)
def test_file_that_is_read_is_read_as_by_anomalib(tmp_path, name):
    path = tmp_path / name
    READ[name](path)
    assert torch.equal(read_image(path), anomalib_read_image(path, as_tensor=True))


@pytest.mark.parametrize("name", READ)
def test_good_file_passes_the_checks(tmp_path, name):
    READ[name](tmp_path / name)
    check_header(tmp_path / name)
    check_image_files([tmp_path / name])


@pytest.mark.parametrize("check", [read_image, check_header, lambda path: check_image_files([path])])
@pytest.mark.parametrize("name", HEADER_TELLS)
def test_file_whose_header_tells_that_it_would_be_misread_is_refused_with_mode_and_remedy(tmp_path, name, check):
    write, mode = HEADER_TELLS[name]
    write(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{re.escape(str(tmp_path / name))} .*mode {mode}.*; (multiply|save)"):
        check(tmp_path / name)


@pytest.mark.parametrize("check", [read_image, lambda path: check_image_files([path])])
@pytest.mark.parametrize("name", PIXELS_TELL)
def test_transparent_pixels_are_refused_with_mode_and_remedy(tmp_path, name, check):
    write, mode = PIXELS_TELL[name]
    write(tmp_path / name)
    message = rf"{re.escape(str(tmp_path / name))} has transparent pixels \(mode {mode}\).*draw it on a background"
    with pytest.raises(ValueError, match=message):
        check(tmp_path / name)


def test_orientation_that_a_png_file_has_after_its_pixels_is_refused_when_read(tmp_path):
    path = tmp_path / "turned.png"
    RGB.save(path)
    content = path.read_bytes()
    end = content.index(b"IEND") - 4
    path.write_bytes(content[:end] + png_chunk(b"eXIf", orientation(8).tobytes()[6:]) + content[end:])
    with pytest.raises(ValueError, match="EXIF orientation 8"):
        read_image(path)


def test_size_of_a_turned_tiff_file_is_that_of_the_image(tmp_path):
    RGB.save(tmp_path / "turned.tif", exif=orientation(6))
    assert read_size(tmp_path / "turned.tif") == tuple(read_image(tmp_path / "turned.tif").shape[1:]) == (30, 20)


def test_truncated_file_is_named(tmp_path):
    RGB.save(tmp_path / "image.png")
    (tmp_path / "image.png").write_bytes((tmp_path / "image.png").read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"image\.png is not a readable image file"):
        read_image(tmp_path / "image.png")


def test_two_images_of_one_stem_are_refused(tmp_path):
    for name in ("000.png", "000.JPG"):
        RGB.save(tmp_path / name)
    with pytest.raises(ValueError, match=r"000\.JPG and .*000\.png have the same stem.*rename or remove one"):
        list_images(tmp_path)


# a data set that reads its files itself


@pytest.fixture
def many(tmp_path):
    """Paths of a thousand files that are one good file."""
    RGB.save(tmp_path / "good.png")
    return [tmp_path / "good.png"] * 1000


@pytest.mark.parametrize("index", [0, 137, 999])
def test_header_is_read_of_a_file_wherever_it_lies(many, tmp_path, index):
    write_16_bit_png(tmp_path / "bad.png", TWELVE_BITS)
    many[index] = tmp_path / "bad.png"
    with pytest.raises(ValueError, match=r"bad\.png has more than 8 bits"):
        check_image_files(many)


@pytest.mark.parametrize("count", [3, 100])
def test_some_of_the_files_with_an_alpha_channel_are_decoded(tmp_path, monkeypatch, count):
    with_alpha(255).save(tmp_path / "opaque.png")
    decoded = []
    monkeypatch.setattr(image_files, "load_pixels", lambda path, image: decoded.append(image.load()))
    check_image_files([tmp_path / "opaque.png"] * count)
    assert len(decoded) == min(count, 10)


def test_pixels_of_opaque_modes_are_not_decoded(tmp_path):
    """So that the check of thousands of files takes seconds."""
    RGB.save(tmp_path / "image.png")
    content = (tmp_path / "image.png").read_bytes()
    (tmp_path / "image.png").write_bytes(content[:-300] + content[-100:])  # its end is there
    check_image_files([tmp_path / "image.png"])


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.png does not exist"):
        check_image_files([tmp_path / "gone.png"])


def make_link(path):
    path.symlink_to(path.parent / "elsewhere" / "target.png")


NO_FILES = {
    "link": (make_link, FileNotFoundError, r"is a link to .*target\.png, which does not exist; restore that file"),
    "folder": (Path.mkdir, ValueError, "has the name of an image file and is none.*rename or remove it"),
    "pipe": (lambda path: os.mkfifo(path), ValueError, "has the name of an image file and is none"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="needs links and pipes")
@pytest.mark.parametrize("check", [lambda path: check_image_files([path]), read_image, read_size])
@pytest.mark.parametrize("kind", NO_FILES)
def test_what_only_has_the_name_of_an_image_is_refused_with_the_remedy(tmp_path, kind, check):
    make, error, message = NO_FILES[kind]
    make(tmp_path / "003.png")
    with pytest.raises(error, match=rf"003\.png {message}"):
        check(tmp_path / "003.png")


@pytest.mark.skipif(sys.platform == "win32", reason="needs links")
def test_dead_link_beside_images_is_refused_and_a_live_one_listed(tmp_path):
    RGB.save(tmp_path / "target.png")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "live.png").symlink_to(tmp_path / "target.png")
    assert [path.name for path in list_images(tmp_path / "folder")] == ["live.png"]
    make_link(tmp_path / "folder" / "dead.tif")
    with pytest.raises(FileNotFoundError, match=r"dead\.tif is a link to"):
        list_images(tmp_path / "folder")


# several pictures

GREY = RGB.convert("L")
BITS = RGB.convert("1")


def write_pages(path, pages, kind=None):
    RGB.save(path, format=kind, save_all=True, append_images=[RGB.rotate(180)] * (pages - 1))


def write_stream(image, kind, pages):
    header = b"%s %d %d %s" % (kind, *image.size, b"" if kind == b"P4" else b"255\n")
    return (header + image.tobytes()) * pages


PAGES = {
    "a.tif": write_pages,
    "a.png": write_pages,
    "a.webp": write_pages,
    "mpo.jpg": lambda path, pages: write_pages(path, pages, "MPO"),
    "gif.png": lambda path, pages: write_pages(path, pages, "GIF"),
    "a.ppm": lambda path, pages: path.write_bytes(write_stream(RGB, b"P6", pages)),
    "a.pgm": lambda path, pages: path.write_bytes(write_stream(GREY, b"P5", pages)),
    "bits.pgm": lambda path, pages: path.write_bytes(write_stream(BITS, b"P4", pages)),
    "wide.ppm": lambda path, pages: path.write_bytes((b"P6 30 20 4095\n" + TWELVE_BITS.tobytes()) * pages),
}


@pytest.mark.parametrize("check", [read_image, check_header, read_size, lambda path: check_image_files([path])])
@pytest.mark.parametrize("name", PAGES)
def test_file_of_several_pictures_is_refused_and_of_one_read(tmp_path, name, check):
    PAGES[name](tmp_path / name, 1)
    check(tmp_path / name)
    PAGES[name](tmp_path / name, 3)
    with pytest.raises(ValueError, match=rf"{re.escape(name)} has several pictures.*save each as a file of its own"):
        check(tmp_path / name)


def test_file_of_several_pictures_is_refused_wherever_it_lies(many, tmp_path):
    write_pages(tmp_path / "pages.tif", 2)
    many[431] = tmp_path / "pages.tif"
    with pytest.raises(ValueError, match=r"pages\.tif has several pictures"):
        check_image_files(many)


@pytest.mark.parametrize("place", [9, 2**32 - 2])
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of tags that make no sense
def test_file_whose_second_picture_is_damaged_is_refused_with_its_name(tmp_path, place):
    path = tmp_path / "a.tif"
    write_pages(path, 2)
    content = bytearray(path.read_bytes())
    (first,) = struct.unpack_from("<L", content, 4)
    (entries,) = struct.unpack_from("<H", content, first)
    struct.pack_into("<L", content, first + 2 + 12 * entries, place)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.tif (is not a readable image file|has several pictures)"):
        check_image_files([path])


CUT = [(suffix.removeprefix("."), {}) for suffix in IMAGE_SUFFIXES]
CUT += [("tif", {"compression": name}) for name in ("tiff_lzw", "tiff_deflate", "jpeg")]


def save(path, options):
    (RGB.convert("L") if path.suffix == ".pgm" else RGB).save(path, **options)


@pytest.mark.parametrize(("suffix", "options"), CUT)
def test_file_that_is_cut_short_is_named_wherever_it_lies(suffix, options, tmp_path, monkeypatch):
    paths = [tmp_path / f"{i:03}.{suffix}" for i in range(120)]
    for path in paths:
        save(path, options)
    with monkeypatch.context() as patch:
        patch.setattr(image_files, "load_pixels", lambda path, image: pytest.fail(f"{path} was decoded"))
        check_image_files(paths)  # whole files are not decoded
    paths[77].write_bytes(paths[77].read_bytes()[:-70])
    with pytest.raises(ValueError, match=rf"077\.{suffix} is not a readable image file"):
        check_image_files(paths)


WHOLE = {
    "P6 of 100 values": b"P6 2 2 100\n" + bytes(12),
    "P6 of 16 bits": b"P6 2 2 65535\n" + bytes(24),
    "P3": b"P3 2 2 255\n" + b"10 20 30 " * 4,
}


@pytest.mark.parametrize("content", WHOLE.values(), ids=WHOLE)
def test_files_whose_header_does_not_tell_their_length_are_decoded(content, tmp_path):
    path = tmp_path / "a.ppm"
    path.write_bytes(content)
    check_image_files([path])
    path.write_bytes(content[:-5])
    with pytest.raises(ValueError, match=r"a\.ppm is not a readable image file"):
        check_image_files([path])


def test_tiff_files_of_tiles_and_without_lengths_of_strips_are_read(tmp_path):
    parts = np.random.default_rng(0).integers(0, 256, 256 * 3, np.uint8).tobytes()
    tags = {256: 16, 257: 16, 258: 8, 259: 1, 262: 1, 277: 1}
    for name, more in {"tiles": {322: 16, 323: 16, 324: 8, 325: 256}, "strips": {273: 8, 278: 16}}.items():
        entries = sorted({**tags, **more}.items())
        directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHLL", t, 4, 1, v) for t, v in entries)
        path = tmp_path / f"{name}.tif"
        path.write_bytes(b"II*\0" + struct.pack("<L", 264) + parts[:256] + directory + bytes(4))
        check_image_files([path])
        assert read_image(path).shape == (3, 16, 16)


def test_file_of_another_format_than_its_suffix_says_is_decoded(tmp_path):
    RGB.save(tmp_path / "a.webp")
    (tmp_path / "a.webp").rename(tmp_path / "a.tif")
    check_image_files([tmp_path / "a.tif"])


def test_file_with_more_after_its_end_is_taken(tmp_path):
    RGB.save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes() + bytes(1000))
    check_image_files([tmp_path / "a.jpg"])

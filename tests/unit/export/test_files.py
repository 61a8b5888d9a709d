# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch
from anomalib.data.utils import read_image
from PIL import Image
from torchvision.transforms.v2.functional import resize

from anomalib_logic.export.files import fit, read
from anomalib_logic.export.images import NamedImage


def rgba(alpha: int) -> Image.Image:
    image = Image.new("RGBA", (5, 4), (200, 100, 50, 255))
    image.putpixel((1, 1), (200, 100, 50, alpha))
    return image


def palette(transparent: bool) -> Image.Image:
    image = Image.new("P", (5, 4), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    if transparent:
        image.info["transparency"] = 1
    return image


def turned(path, orientation: int):
    image = Image.new("RGB", (5, 4), (200, 100, 50))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)


READABLE = {
    "colours": lambda path: Image.new("RGB", (5, 4), (200, 100, 50)).save(path),
    "grey": lambda path: Image.new("L", (5, 4), 77).save(path),
    "one bit": lambda path: Image.new("1", (5, 4), 1).save(path),
    "opaque": lambda path: rgba(255).save(path),
    "palette": lambda path: palette(False).save(path),
    "upright": lambda path: turned(path, 1),
}
MISREAD = {
    "16 bits": (
        lambda path: Image.fromarray(np.full((4, 5), 4095, np.uint16)).save(path),
        "more than 8 bits a channel",
    ),
    "transparent": (lambda path: rgba(0).save(path), "has transparent pixels .mode 'RGBA'"),
    "transparent palette": (lambda path: palette(True).save(path), "has transparent pixels .mode 'P'"),
    "turned": (lambda path: turned(path, 6), "EXIF orientation 6.*save it upright"),
}


@pytest.mark.parametrize("kind", READABLE)
def test_file_is_read_as_anomalib_reads_it(kind, tmp_path):
    path = tmp_path / "image.png"
    READABLE[kind](path)
    assert torch.equal(read(path).image, read_image(path, as_tensor=True))


@pytest.mark.parametrize("kind", MISREAD)
def test_file_that_anomalib_misreads_is_refused_with_its_name_and_the_remedy(kind, tmp_path):
    write, message = MISREAD[kind]
    path = tmp_path / "image.png"
    write(path)
    with pytest.raises(ValueError, match=rf"image\.png .*{message}"):
        read(path)


def test_float_file_is_refused(tmp_path):
    Image.fromarray(np.full((4, 5), 0.5, np.float32)).save(tmp_path / "image.tif")
    with pytest.raises(ValueError, match=r"image\.tif has more than 8 bits a channel \(mode 'F'\)"):
        read(tmp_path / "image.tif")


IMAGE = NamedImage("good/0.png", torch.rand(3, 30, 40))


@pytest.mark.parametrize("input_size", [None, (30, 40)], ids=str)
def test_image_is_not_resized_for_a_file_that_takes_its_size(input_size):
    assert np.array_equal(fit(IMAGE, input_size, (8, 9)), IMAGE.image[None].numpy())


def test_image_is_resized_as_the_engine_does_for_a_file_of_the_models_size():
    expected = resize(IMAGE.image, [8, 9], antialias=True)[None].numpy()
    assert np.array_equal(fit(IMAGE, (8, 9), (8, 9)), expected)


@pytest.mark.parametrize("image_size", [None, (8, 10)], ids=str)
def test_image_is_refused_for_a_file_that_cannot_give_the_engines_answer(image_size):
    with pytest.raises(ValueError, match=r"good/0\.png has 30 x 40 pixels, and the exported file takes 8 x 9 only"):
        fit(IMAGE, (8, 9), image_size)

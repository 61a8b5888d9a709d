# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from anomalib_logic.data import DefectConfig, read_defect_channels

DEFECT = np.zeros((40, 48), bool)
DEFECT[3:7, 5:9] = True


def grey(value: int, outside: int = 0) -> np.ndarray:
    return np.where(DEFECT, value, outside).astype(np.uint8)


def stack(*bands: np.ndarray | int) -> Image.Image:
    """Image of two to four bands, each an array or one value."""
    return Image.fromarray(np.stack([np.broadcast_to(np.uint8(band), DEFECT.shape) for band in bands], axis=-1))


def palette(indices: np.ndarray, *colours: tuple[int, int, int]) -> Image.Image:
    image = Image.fromarray(indices).convert("L")
    image = Image.frombytes("P", image.size, indices.tobytes())
    image.putpalette([value for colour in colours for value in colour])
    return image


BLACK, WHITE, RED = (0, 0, 0), (255, 255, 255), (200, 0, 0)

# image, how it is saved, and the value of the defect's pixels
RIGHT = {
    "grey": (Image.fromarray(grey(7)), {}, 7),
    "one bit": (Image.fromarray(DEFECT), {}, 255),
    "palette index 1 in red": (palette(grey(1), BLACK, RED), {}, 1),
    "palette index 1 in white": (palette(grey(1), BLACK, WHITE), {}, 1),
    "palette index 1 in black beside black": (palette(grey(1), BLACK, BLACK), {}, 1),
    "palette index 3 on a white background": (palette(grey(3), WHITE, RED, RED, RED), {}, 3),
    "palette with a transparent background": (palette(grey(1), BLACK, RED), {"transparency": 0}, 1),
    "palette with alpha for each index": (palette(grey(2), BLACK, RED, RED), {"transparency": b"\0\0\x80"}, 2),
    "RGB": (stack(grey(254), grey(254), grey(254)), {}, 254),
    "RGB in red": (stack(grey(255), 0, 0), {}, 255),
    "white with the mask in alpha": (stack(255, 255, 255, grey(255)), {}, 255),
    "black with the mask in alpha": (stack(0, 0, 0, grey(255)), {}, 255),
    "red with the mask in alpha": (stack(200, 10, 0, grey(254)), {}, 254),
    "grey with the mask in alpha": (stack(255, grey(255)), {}, 255),
    "opaque alpha": (stack(grey(254), grey(254), grey(254), 255), {}, 254),
    "opaque grey alpha": (stack(grey(254), 255), {}, 254),
    "drawn on transparent ground": (stack(grey(254), grey(254), grey(254), grey(255)), {}, 254),
    "drawn in red on transparent ground": (stack(grey(255), 0, 0, grey(255)), {}, 255),
    "grey with a transparent value": (Image.fromarray(grey(9)), {"transparency": 0}, 9),
}
REFUSED = {
    "16 bits": (Image.fromarray(grey(255).astype(np.uint16)), {}, "got mode 'I;16'"),
    "alpha and colours that differ": (stack(grey(0, 90), grey(0, 90), grey(0, 90), grey(255)), {}, r"\(mode 'RGBA'\)"),
    "several colours": (stack(grey(255), grey(0, 255), 0), {}, r"several colours .*\(mode 'RGB'\)"),
    "colour of unequal channels": (stack(grey(255), grey(100), 0), {}, r"unequal channels .*\(mode 'RGB'\)"),
    "photograph cut out by alpha": (
        Image.fromarray(np.dstack([np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8), grey(255)])),
        {},
        r"\(mode 'RGB'\)",
    ),
    "transparent everywhere": (stack(255, 255, 255, 0), {}, "exactly one non-zero pixel value, got "),
    "palette with a transparent defect": (palette(grey(1), BLACK, RED), {"transparency": 1}, r"\(mode 'P'\)"),
    "palette of white background and black defect": (palette(grey(1), WHITE, BLACK), {}, r"\(mode 'P'\)"),
    "two indices": (palette(grey(1, 2), BLACK, RED, RED), {}, r"non-zero pixel value, got \[1, 2\]"),
}


def save(tmp_path, image, options, name="000.png"):
    folder = tmp_path / "masks"
    folder.mkdir(exist_ok=True)
    image.save(folder / name, **options)
    return folder


@pytest.mark.parametrize("case", RIGHT)
def test_mask_of_any_mode_marks_the_defect_with_its_value(tmp_path, case):
    image, options, value = RIGHT[case]
    (channel,) = read_defect_channels(save(tmp_path, image, options), [DefectConfig("dent", value, 1.0, True)])
    assert channel.mask.numpy().tolist() == DEFECT.tolist()


@pytest.mark.parametrize("case", REFUSED)
def test_mask_with_no_or_several_readings_is_refused_with_file_and_mode(tmp_path, case):
    image, options, message = REFUSED[case]
    with pytest.raises(ValueError, match=rf"mask .*000\.png .*{message}"):
        read_defect_channels(save(tmp_path, image, options))


@pytest.mark.parametrize("suffix", ["bmp", "tif", "tiff", "pgm"])
def test_mask_may_have_any_lossless_format(tmp_path, suffix):
    folder = save(tmp_path, Image.fromarray(grey(7)), {}, f"000.{suffix}")
    assert [channel.pixel_value for channel in read_defect_channels(folder)] == [7]


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [("000.jpg", {}, "JPEG"), ("000.webp", {}, "WEBP"), ("000.tif", {"compression": "jpeg"}, "TIFF")],
)
def test_mask_with_lossy_compression_is_refused(tmp_path, name, options, kind):
    with pytest.raises(ValueError, match=rf"mask .*{name} is a file with lossy compression \({kind}\).*save it as PNG"):
        read_defect_channels(save(tmp_path, Image.fromarray(grey(255)), options, name))


def test_two_masks_of_one_stem_are_refused(tmp_path):
    for name in ("000.png", "000.bmp"):
        folder = save(tmp_path, Image.fromarray(grey(255)), {}, name)
    with pytest.raises(ValueError, match="have the same stem"):
        read_defect_channels(folder)


@pytest.mark.parametrize("name", ["000.png", "000.tif"])
def test_mask_of_several_pictures_is_refused_because_only_the_first_would_be_used(tmp_path, name):
    options = {"save_all": True, "append_images": [Image.fromarray(grey(255)).rotate(90)]}
    with pytest.raises(ValueError, match=rf"{name} has several pictures.*save each as a file of its own"):
        read_defect_channels(save(tmp_path, Image.fromarray(grey(255)), options, name))


@pytest.mark.skipif(sys.platform == "win32", reason="needs links")
def test_dead_link_among_masks_is_refused(tmp_path):
    folder = save(tmp_path, Image.fromarray(grey(255)), {})
    (folder / "001.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(FileNotFoundError, match=r"001\.png is a link to .*gone\.png, which does not exist"):
        read_defect_channels(folder)

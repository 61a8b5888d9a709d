# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import to_dtype

from anomalib_logic.export.arrays import as_images, as_predictions

IMAGES = np.random.default_rng(0).random((2, 3, 6, 5), dtype=np.float32)
BYTES = (IMAGES * 255).round().astype(np.uint8)
READ_ONLY = IMAGES.copy()
READ_ONLY.flags.writeable = False

SAME = {
    "single": IMAGES,
    "double": IMAGES.astype(np.float64),
    "longdouble": IMAGES.astype(np.longdouble),
    "big endian": IMAGES.astype(">f4"),
    "other order": np.asfortranarray(IMAGES),
    "view": np.ascontiguousarray(IMAGES.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    "mirrored twice": np.ascontiguousarray(IMAGES[..., ::-1])[..., ::-1],
    "read only": READ_ONLY,
    "tensor": torch.from_numpy(IMAGES),
    "tensor with gradient": torch.from_numpy(IMAGES).requires_grad_(),
    "double tensor": torch.from_numpy(IMAGES).double(),
    "lists": IMAGES.tolist(),
    "list of arrays": list(IMAGES),
    "list of tensors": list(torch.from_numpy(IMAGES)),
}


@pytest.mark.parametrize("kind", SAME)
def test_floating_point_is_taken_in_any_width_and_layout(kind):
    found = as_images(SAME[kind])
    assert found.dtype == np.dtype(np.float32)
    assert found.dtype.isnative
    assert found.flags.c_contiguous
    assert found.flags.writeable
    np.testing.assert_array_equal(found, IMAGES)


@pytest.mark.parametrize("images", [IMAGES.astype(np.float16), torch.from_numpy(IMAGES).bfloat16()], ids=str)
def test_half_precision_is_taken(images):
    np.testing.assert_allclose(as_images(images), IMAGES, atol=1 / 256)


@pytest.mark.parametrize("images", [BYTES, np.asfortranarray(BYTES), torch.from_numpy(BYTES), list(BYTES)], ids=type)
def test_bytes_are_divided_by_255_as_torchvision_does(images):
    np.testing.assert_array_equal(as_images(images), to_dtype(torch.from_numpy(BYTES), scale=True).numpy())


@pytest.mark.parametrize("value", [-1e-6, 1 + 1e-6, 1.0005, np.nextafter(1, 2)])
def test_rounding_beyond_the_range_is_clipped(value):
    images = np.full((1, 3, 2, 2), 0.5)
    images[0, 1, 1, 1] = value
    assert as_images(images)[0, 1, 1, 1] == np.clip(value, 0, 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.01, 1.01, 255, 1e300, -2.1])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_one_value_outside_the_range_is_refused_with_the_remedy(value, dtype):
    images = np.full((2, 3, 4, 4), 0.5)
    images[1, 2, 3, 0] = value
    with np.errstate(over="ignore"):
        images = images.astype(dtype)
    with pytest.raises(ValueError, match=r"values in \[0, 1\], got (values that are NaN|-?\d).*give them as uint8"):
        as_images(images)


TYPES = ["int8", "uint16", "int16", "int32", "int64", "uint64", "bool", "complex64"]


@pytest.mark.parametrize("dtype", TYPES)
def test_other_type_is_refused_with_the_remedy(dtype):
    with pytest.raises(ValueError, match=rf"uint8 or of floating point.*, got {dtype}: give .*astype\('uint8'\)"):
        as_images(np.ones((1, 3, 2, 2), dtype))


@pytest.mark.parametrize("images", [None, "part.png", {"image": 1}, np.full((1, 3, 2, 2), "a"), IMAGES.astype(object)])
def test_what_is_no_numbers_is_refused(images):
    with pytest.raises(ValueError, match=rf"got {type(images).__name__}: .*path of an image file to predict\(\)"):
        as_images(images)


@pytest.mark.parametrize(
    "images",
    [
        [IMAGES[0], IMAGES[0, :, 1:]],
        torch.from_numpy(IMAGES).to_sparse(),
        np.ma.masked_less(IMAGES, 0.5),
    ],
    ids=["two sizes", "sparse", "masked"],
)
def test_what_is_no_single_array_is_refused(images):
    with pytest.raises(ValueError, match=r"must be one array .*; images of several sizes go one by one"):
        as_images(images)


LAYOUTS = [(2, 6, 5, 3), (3, 6, 5), (6, 5, 3), (2, 1, 6, 5), (2, 4, 6, 5), (6, 5)]
LAYOUTS += [(2, 6, 5, 1), (2, 6, 5, 4), (1, 6, 5), (4, 6, 5), (6, 5, 1), (6, 5, 4)]
REMEDIES = ["images[None]", "images[:, :3]", "numpy.repeat(images, 3, axis=1)", "numpy.stack([images] * 3)[None]"]
REMEDIES += ["numpy.moveaxis(images, -1, 1)", "numpy.moveaxis(images, -1, 0)[None]"]


@pytest.mark.parametrize("shape", LAYOUTS, ids=str)
def test_other_layout_is_refused_and_its_remedies_lead_to_the_right_one(shape):
    images, remedies = np.zeros(shape, np.float32), []
    while images.shape[1:] != (3, 6, 5):
        with pytest.raises(ValueError, match=r"must have the shape \(N, 3, H, W\)") as error:
            as_images(images)
        remedies += [remedy for remedy in REMEDIES if remedy in str(error.value)]
        images = eval(remedies[-1], {"numpy": np, "images": images})
    assert len(as_images(images)) == (2 if len(shape) == 4 else 1)
    assert len(remedies) <= 2  # colours last and another number of them


@pytest.mark.parametrize(
    "shape", [(), (3,), (0, 3, 6, 5), (1, 3, 0, 5), (1, 3, 6, 0), (1, 2, 6, 5), (1, 1, 3, 6, 5), (1, 0, 6, 5)], ids=str
)
def test_other_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"must have the shape \(N, 3, H, W\), none of them 0, got \("):
        as_images(np.zeros(shape, np.float32))


def test_image_of_pillow_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"got \(6, 5, 3\): .* numpy\.moveaxis"):
        as_images(Image.fromarray(BYTES[0].transpose(1, 2, 0)))


def test_other_size_than_the_files_is_refused():
    with pytest.raises(ValueError, match="must have 8 x 9 pixels, all that the exported file takes, got 6 x 5: give"):
        as_images(IMAGES, (8, 9))
    assert as_images(IMAGES, (6, 5)) is not None


@pytest.mark.parametrize("name", ["pred_score", "anomaly_map"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_answer_that_is_no_number_is_an_error_and_never_normal(name, value):
    answer = {"pred_score": np.zeros((2, 1)), "pred_label": np.zeros(2, bool), "anomaly_map": np.zeros((2, 4, 4))}
    assert {key: array.shape for key, array in as_predictions(answer).items()} == {
        "pred_score": (2,),
        "pred_label": (2,),
        "anomaly_map": (2, 1, 4, 4),
    }
    answer[name].flat[-1] = value
    with pytest.raises(ValueError, match=f"the model's own answer has NaN or infinite values in {name}: .*f32"):
        as_predictions(answer)

# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch

from anomalib_logic.export import ExportVerificationError, Runner, Tolerance, verify
from anomalib_logic.export.images import NamedImage

IMAGES = [NamedImage(f"good/{i}.png", torch.full((3, 8, 10), (i + 2) / 10)) for i in range(3)]


class Brightness(Runner):
    """Predicts an image's brightness, with errors of our choosing in the image of index ``wrong``."""

    device = "CPU"

    def __init__(self, score=0.0, anomaly_map=0.0, wrong=1, only_batch=None, flip=None, without=None):
        self.errors = (score, anomaly_map)
        self.wrong = (wrong + 2) / 10
        self.only_batch = only_batch
        self.flip = flip
        self.without = without

    def _run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        if self.only_batch not in (None, len(images)):
            msg = f"Got: {len(images)} Expected: {self.only_batch}"
            raise RuntimeError(msg)
        scores = images.mean(axis=(1, 2, 3))
        maps = images[:, :1] * np.linspace(0, 1, 10, dtype=np.float32)
        affected = np.isclose(scores, self.wrong)
        scores = scores + np.where(affected, self.errors[0], 0)
        maps[affected, 0, 3, 4] += self.errors[1]
        result = {"pred_score": scores, "pred_label": scores > 0.35, "anomaly_map": maps, "pred_mask": maps > 0.2}
        if self.flip:
            result[self.flip][affected] ^= True
        result.pop(self.without, None)
        return result


def test_equal_predictions_have_no_difference_at_any_batch_size():
    rows = verify(Brightness(), Brightness(), IMAGES)
    assert [tuple(row) for row in rows] == [(1, 0.0, 0.0, False), (3, 0.0, 0.0, False)]


def test_differences_within_the_tolerance_are_measured():
    rows = verify(Brightness(), Brightness(score=0.0003 * 0.9, anomaly_map=0.004 * 0.9), IMAGES)
    assert rows[0].score == pytest.approx(0.0009, rel=1e-3)
    assert rows[0].anomaly_map == pytest.approx(0.009, rel=1e-3)  # the maps range from 0 to 0.4


@pytest.mark.parametrize("error", [{"score": 0.0004}, {"anomaly_map": 0.0045}], ids=str)
def test_difference_beyond_the_tolerance_names_the_image(error):
    with pytest.raises(ExportVerificationError, match=r"image 'good/1.png' in a batch of 1 differs by"):
        verify(Brightness(), Brightness(**error), IMAGES)


@pytest.mark.parametrize("error", [{"score": np.nan}, {"anomaly_map": np.nan}], ids=str)
def test_answer_that_is_no_number_names_the_image(error):
    with pytest.raises(
        ExportVerificationError, match=r"batch of 1 image\(s\) .*'good/1\.png'.*the model's own answer has"
    ):
        verify(Brightness(), Brightness(**error), IMAGES)


def test_message_tells_both_scores_and_what_is_allowed():
    with pytest.raises(ExportVerificationError, match=r"score 0\.3[1-3]\S* instead of 0\.3\).*allowed 1e-03"):
        verify(Brightness(), Brightness(score=0.02), IMAGES)


def test_without_tolerance_differences_are_only_measured():
    assert verify(Brightness(), Brightness(score=0.3), IMAGES, tolerance=None)[0].score == pytest.approx(1.0)


def test_file_that_takes_one_batch_size_only_is_refused():
    with pytest.raises(ExportVerificationError, match=r"a batch of 1 image.*Got: 1 Expected: 3"):
        verify(Brightness(), Brightness(only_batch=3), IMAGES)


@pytest.mark.parametrize(("flip", "what"), [("pred_label", "the label"), ("pred_mask", "80 positions of the mask")])
def test_decision_that_does_not_follow_its_value_is_refused(flip, what):
    with pytest.raises(ExportVerificationError, match=what):
        verify(Brightness(), Brightness(flip=flip), IMAGES)


def test_label_may_flip_where_the_threshold_is_between_the_scores():
    close = [NamedImage("good/0.png", torch.full((3, 8, 10), 0.34995))]
    rows = verify(Brightness(), Brightness(score=1e-4, wrong=1.4995), close)
    assert 0 < rows[0].score < 1e-3


def test_missing_output_is_refused_by_name():
    with pytest.raises(ExportVerificationError, match="no output 'pred_mask'"):
        verify(Brightness(), Brightness(without="pred_mask"), IMAGES)


def test_tolerance_can_be_wider():
    verify(Brightness(), Brightness(score=0.02), IMAGES, Tolerance(score=0.1))


def test_scores_at_their_limits_are_noticed():
    images = [NamedImage("white", torch.ones(3, 8, 10)), NamedImage("black", torch.zeros(3, 8, 10))]
    assert [row.clamped for row in verify(Brightness(), Brightness(), images)] == [True, True]

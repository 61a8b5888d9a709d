# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from anomalib_logic import LocoAUROC
from anomalib_logic.metrics.functional import auroc

from .conftest import batches

scores = st.lists(st.integers(-3, 3).map(float) | st.floats(-1e30, 1e30), min_size=1, max_size=12)


@settings(max_examples=100, deadline=None)
@given(scores, scores)
def test_auroc_is_scikit_learns(normal, anomalous):
    expected = roc_auc_score(np.repeat([0, 1], [len(normal), len(anomalous)]), normal + anomalous)
    double = [torch.tensor(part, dtype=torch.float64) for part in (normal, anomalous)]
    assert auroc(*double).item() == pytest.approx(expected, abs=1e-12)


def test_large_scores_do_not_tie():
    assert auroc(torch.tensor([1e6]), torch.tensor([1e6 + 1])) == 1


def test_auroc_without_scores_of_one_class_is_refused():
    with pytest.raises(ValueError, match="got 0 normal and 2 anomalous"):
        auroc(torch.zeros(0), torch.zeros(2))


def filled(metric, test_set):
    for batch in batches(test_set, 4):
        metric.update(batch)
    return metric


def test_each_kind_is_compared_with_the_good_images_and_the_mean_is_of_the_two(test_set):
    def expected(kind):
        chosen = [i for i, k in enumerate(test_set.kinds) if k in ("good", kind)]
        return roc_auc_score([test_set.kinds[i] != "good" for i in chosen], test_set.scores[chosen])

    metrics = {kind: filled(LocoAUROC(kind), test_set).compute().item() for kind in ("logical", "structural", "mean")}
    assert metrics["logical"] == pytest.approx(expected("logical_anomalies"))
    assert metrics["structural"] == pytest.approx(expected("structural_anomalies"))
    assert metrics["mean"] == pytest.approx((metrics["logical"] + metrics["structural"]) / 2)


def test_kind_without_images_is_named(test_set):
    metric = LocoAUROC("mean")
    metric.update(next(batches(test_set, 7)))
    with pytest.raises(ValueError, match=r"none in \['structural_anomalies'\]"):
        metric.compute()


def test_score_that_is_not_finite_is_refused(test_set):
    test_set.scores[0] = float("nan")
    with pytest.raises(ValueError, match="must be finite"):
        LocoAUROC().update(next(batches(test_set, 2)))


@pytest.mark.parametrize("kind", ["", "test/broken", r"test\broken", None])
def test_kind_that_is_no_name_is_refused(kind):
    with pytest.raises(ValueError, match=r"kind must be one of \('logical', 'structural', 'mean'\) or the name of a"):
        LocoAUROC(kind)


def test_kind_without_a_folder_is_refused_with_the_images(test_set):
    with pytest.raises(ValueError, match=r"the both metric needs .*, but there are none in \['both'\]"):
        LocoAUROC("both").check_images(test_set.paths)


def test_kinds_of_autovi_are_its_defect_folders_and_the_mean_is_over_them(test_set, request):
    expected = {kind: filled(LocoAUROC(kind), test_set).compute().item() for kind in ("logical", "structural", "mean")}
    autovi = request.getfixturevalue("autovi_set")
    metrics = [filled(LocoAUROC(kind), autovi).compute().item() for kind in ("no clip", "scratch", "mean")]
    assert metrics == list(expected.values())


def test_name_of_a_folder_has_only_letters_digits_and_underscores_in_the_metrics_name():
    assert LocoAUROC("no clip-50%", prefix="image_").name == "image_AUROC_no_clip_50_"

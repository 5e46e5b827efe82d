from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from perturbflow.metrics import DifferentialExpression, jaccard_of_significant_genes, relative_error_of_log_fold_changes


def expression(change, adjusted):
    change, adjusted = np.asarray(change, dtype=float), np.asarray(adjusted, dtype=float)
    return DifferentialExpression(change, adjusted / 2, adjusted)


def test_jaccard_by_hand():
    predicted = expression([1, 1, 1, 1, 1], [0.01, 0.01, 0.2, 0.9, 0.04])
    observed = expression([1, -1, 1, 1, 1], [0.01, 0.04, 0.01, 0.9, 0.05])  # at the level is not below it
    assert jaccard_of_significant_genes(predicted, observed) == 2 / 4
    assert jaccard_of_significant_genes(predicted, observed, fdr=0.02) == 1 / 3
    assert jaccard_of_significant_genes(predicted, observed, targets=np.arange(5) == 2) == 2 / 3


@settings(max_examples=50, deadline=None)
@given(*[arrays(np.float64, 6, elements=st.sampled_from([0.001, 0.2])) for _ in range(2)])
def test_jaccard_is_symmetric_and_in_range(a, b):
    a, b = expression(np.ones(6), a), expression(np.ones(6), b)
    value = jaccard_of_significant_genes(a, b)
    assert value == jaccard_of_significant_genes(b, a)
    assert 0 <= value <= 1
    assert jaccard_of_significant_genes(a, a) == 1


def test_two_empty_sets_agree():
    nothing = expression([1, 1], [0.5, 1])
    assert jaccard_of_significant_genes(nothing, nothing) == 1
    assert jaccard_of_significant_genes(nothing, expression([1, 1], [0.01, 1])) == 0


def test_error_by_hand():
    observed = expression([2, -1, 3, 100], [0.01, 0.01, 0.01, 0.5])
    predicted = expression([1, 1, 3, 0], [1, 1, 1, 1])  # its own significance does not matter
    assert relative_error_of_log_fold_changes(predicted, observed, minimum=3) == pytest.approx((1 + 2 + 0) / 6)


@given(st.floats(-3, 3))
def test_error_of_scaled_changes(scale):
    observed = expression(np.linspace(-2, 3, 12), np.full(12, 0.001))
    predicted = replace(observed, log_fold_change=scale * observed.log_fold_change)
    assert relative_error_of_log_fold_changes(predicted, observed) == pytest.approx(abs(scale - 1), abs=1e-12)


@pytest.mark.parametrize("nothing", [np.inf, -np.inf])
def test_a_prediction_cannot_choose_the_genes(nothing):
    observed = expression(np.arange(1, 11), np.full(10, 0.001))
    predicted = expression(np.full(10, nothing), np.ones(10))
    assert relative_error_of_log_fold_changes(predicted, observed) == 1


def test_undefined_errors_depend_on_the_reference_alone():
    observed = expression(np.ones(10), np.full(10, 0.001))
    assert relative_error_of_log_fold_changes(observed, observed) == 0
    assert np.isnan(relative_error_of_log_fold_changes(observed, observed, minimum=11))
    assert np.isnan(relative_error_of_log_fold_changes(observed, observed, targets=np.arange(10) == 0))
    infinite = replace(observed, log_fold_change=np.where(np.arange(10) == 0, np.inf, 1.0))
    assert np.isnan(relative_error_of_log_fold_changes(observed, infinite))
    flat = replace(observed, log_fold_change=np.zeros(10))
    assert np.isnan(relative_error_of_log_fold_changes(observed, flat))


@pytest.mark.parametrize("metric", [jaccard_of_significant_genes, relative_error_of_log_fold_changes])
def test_bad_input(metric):
    three, two = expression(np.ones(3), np.ones(3)), expression(np.ones(2), np.ones(2))
    with pytest.raises(ValueError, match="same genes, found 2 predicted and 3 observed"):
        metric(two, three)
    with pytest.raises(ValueError, match=r"some of 3 genes, found bool of shape \(2,\)"):
        metric(three, three, targets=np.zeros(2, dtype=bool))
    with pytest.raises(ValueError, match="boolean `targets` that mark some of 3 genes, found int64"):
        metric(three, three, targets=np.array([0, 0, 1]))
    with pytest.raises(ValueError, match="with 3 marked"):
        metric(three, three, targets=np.ones(3, dtype=bool))
    with pytest.raises(ValueError, match="`fdr` above 0 and at most 1, found 0"):
        metric(three, three, fdr=0)


def test_bad_minimum():
    one = expression(np.ones(1), np.ones(1))
    with pytest.raises(ValueError, match="`minimum` to be at least 1, found 0"):
        relative_error_of_log_fold_changes(one, one, minimum=0)

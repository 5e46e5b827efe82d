from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from perturbflow.metrics import (
    DifferentialExpression,
    WilcoxonAgainst,
    agreement_of_direction,
    auroc_of_significant_genes,
    average_precision_of_significant_genes,
    overlap_of_top_genes,
    precision_of_top_genes,
    recall_of_significant_genes,
    spearman_of_log_fold_changes,
)

CERTAIN, ABSENT = 1e-6, 0.9
BY_SIGNIFICANCE = [
    agreement_of_direction,
    auroc_of_significant_genes,
    average_precision_of_significant_genes,
    overlap_of_top_genes,
    precision_of_top_genes,
    recall_of_significant_genes,
    spearman_of_log_fold_changes,
]
SCORES = BY_SIGNIFICANCE


def found(changes, significant):
    """Differential expression with these significant genes."""
    is_significant = np.isin(np.arange(len(changes)), significant)
    p = np.where(is_significant, CERTAIN, ABSENT)
    return DifferentialExpression(np.array(changes, dtype=float), p, p)


OBSERVED = found([5, -4, 3, -2, 1, 0.5, 0.4, 0.3], [0, 1, 2, 3])


@pytest.fixture(scope="module")
def simulated():
    """Two samples of one strong perturbation, and one without effect, by the test against the same controls."""
    rng = np.random.default_rng(0)
    mean = rng.gamma(1.0, size=200)
    effect = np.exp(rng.normal(size=200) * (rng.random(200) < 0.4))
    control = np.log1p(rng.poisson(mean, size=(300, 200)).astype(float))
    cells = [np.log1p(rng.poisson(m, size=(100, 200)).astype(float)) for m in (mean * effect, mean * effect, mean)]
    return control, cells, [WilcoxonAgainst(control)(c) for c in cells]


# Every metric


@pytest.mark.parametrize("metric", SCORES)
def test_a_perfect_prediction_is_best(metric, simulated):
    _, _, (first, again, nothing) = simulated
    assert metric(first, first) == pytest.approx(1, abs=1e-12)
    assert metric(again, first) > max(metric(nothing, first), 0.6)


@pytest.mark.parametrize("metric", SCORES)
def test_nothing_to_find_has_no_value(metric):
    nothing = found([1, -1, 2], [])
    assert math.isnan(metric(nothing, nothing))
    if metric is not precision_of_top_genes:
        assert math.isnan(metric(found([1, -1, 2], [0, 1, 2]), nothing))


@pytest.mark.parametrize("metric", SCORES)
@settings(max_examples=25, deadline=None)
@given(
    changes=arrays(np.float64, (2, 7), elements=st.sampled_from([-2.0, -1.0, 0.0, 1.0, 2.0, np.inf])),
    p=arrays(np.float64, (2, 7), elements=st.floats(0, 1)),
)
def test_range_whatever_the_ties(metric, changes, p):
    sides = [DifferentialExpression(c, q, q) for c, q in zip(changes, p, strict=True)]
    value = metric(*sides, fdr=0.5)
    assert math.isnan(value) or (-1 if metric is spearman_of_log_fold_changes else 0) - 1e-12 <= value <= 1 + 1e-12
    order = np.random.default_rng(0).permutation(7)
    distinct = [len(set(zip(np.abs(c), q, strict=True))) for c, q in zip(changes, p, strict=True)]
    if distinct == [7, 7]:  # otherwise the place decides
        moved = [DifferentialExpression(s.log_fold_change[order], s.p_value[order], s.adjusted[order]) for s in sides]
        assert metric(*moved, fdr=0.5) == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize("metric", BY_SIGNIFICANCE)
def test_other_genes_and_bad_rates_are_refused(metric):
    with pytest.raises(ValueError, match="same genes, found 3 predicted and 8 observed"):
        metric(found([1, 2, 3], [0]), OBSERVED)
    with pytest.raises(ValueError, match="`fdr` above 0"):
        metric(OBSERVED, OBSERVED, fdr=0)


# Top genes


def test_overlap_counts_the_observed_list():
    predicted = found([9, 0, -8, 0, 7, 6, 0, 0], [0, 2, 4, 5])
    assert overlap_of_top_genes(predicted, OBSERVED) == 2 / 4
    assert overlap_of_top_genes(predicted, OBSERVED, n_top=1) == 1  # gene 0 on both sides
    assert overlap_of_top_genes(predicted, OBSERVED, n_top=2) == 1 / 2  # 0, 2 and 0, 1
    assert overlap_of_top_genes(predicted, OBSERVED, n_top=500) == 2 / 4


def test_lists_of_different_length():
    predicted = found([9, 0, -8, 0, 7, 6, 5, 4], [0, 2, 4, 5, 6, 7])
    assert overlap_of_top_genes(predicted, OBSERVED) == 2 / 4  # the first four of the prediction
    assert precision_of_top_genes(predicted, OBSERVED) == 2 / 6
    assert precision_of_top_genes(predicted, OBSERVED, n_top=2) == 1 / 2
    few = found([9, 0, 0, 0, 0, 0, 0, 0], [0])
    assert overlap_of_top_genes(few, OBSERVED) == 1 / 4
    assert precision_of_top_genes(few, OBSERVED) == 1


def test_only_significant_genes_are_on_top():
    predicted = found([0.1, 0.1, 0.1, 0.1, 99, 99, 99, 99], [0, 1])
    assert overlap_of_top_genes(predicted, OBSERVED, n_top=2) == 1
    assert precision_of_top_genes(predicted, OBSERVED) == 1


def test_one_side_without_significant_genes():
    nothing = found(np.ones(8), [])
    assert overlap_of_top_genes(nothing, OBSERVED) == 0
    assert precision_of_top_genes(nothing, OBSERVED) == 0
    assert precision_of_top_genes(OBSERVED, nothing) == 0


def test_equal_changes_are_ordered_by_p_value():
    changes = np.full(4, np.inf)
    low, high = np.array([1e-9, 1e-9, 1e-3, 1e-3]), np.array([1e-3, 1e-3, 1e-9, 1e-9])
    first, last = DifferentialExpression.of(changes, low), DifferentialExpression.of(changes, high)
    assert overlap_of_top_genes(first, last, n_top=2) == 0
    assert overlap_of_top_genes(first, last, n_top=4) == 1


@pytest.mark.parametrize("metric", [overlap_of_top_genes, precision_of_top_genes])
@pytest.mark.parametrize("n_top", [0, -3])
def test_bad_number_is_refused(metric, n_top):
    with pytest.raises(ValueError, match="`n_top` to be at least 1, found"):
        metric(OBSERVED, OBSERVED, n_top=n_top)


# Significant genes


def test_recall():
    predicted = found(np.ones(8), [0, 3, 6])
    assert recall_of_significant_genes(predicted, OBSERVED) == 2 / 4


def test_everything_significant_is_caught_by_precision_alone():
    everything = found(np.arange(8.0), range(8))
    assert recall_of_significant_genes(everything, OBSERVED) == 1
    assert precision_of_top_genes(everything, OBSERVED) == 0.5


def test_direction_of_significant_genes():
    assert agreement_of_direction(found([1, -1, -1, 0, -1, -1, -1, -1], []), OBSERVED) == 2 / 4
    assert agreement_of_direction(found(-OBSERVED.log_fold_change, []), OBSERVED) == 0


def test_order_of_significant_genes():
    predicted = found([4, -1, -1, 0, 99, -99, 99, -99], [])
    expected = stats.spearmanr([4, -1, -1, 0], [5, -4, 3, -2]).statistic
    assert spearman_of_log_fold_changes(predicted, OBSERVED) == pytest.approx(expected)
    assert spearman_of_log_fold_changes(found(-OBSERVED.log_fold_change, []), OBSERVED) == pytest.approx(-1)
    with_infinity = found([np.inf, -np.inf, 1, 0, 0, 0, 0, 0], [])
    assert spearman_of_log_fold_changes(with_infinity, OBSERVED) == pytest.approx(1)


def test_orders_that_do_not_exist():
    assert spearman_of_log_fold_changes(found(np.zeros(8), []), OBSERVED) == 0
    assert math.isnan(spearman_of_log_fold_changes(OBSERVED, found(np.ones(8), [0, 1, 2])))
    assert math.isnan(spearman_of_log_fold_changes(OBSERVED, found(np.arange(8), [3])))


# p-values as a classifier


def with_adjusted(adjusted):
    adjusted = np.array(adjusted)
    return DifferentialExpression(np.ones(len(adjusted)), adjusted, adjusted)


def test_areas_by_hand():
    predicted = with_adjusted([1e-9, 1e-8, 0.2, 0.5, 1e-7, 0.5, 0.9, 0.9])
    # Significant are 0 to 3. Above them 0, 0, 1 and 1 others, with half of a tie for the last.
    assert auroc_of_significant_genes(predicted, OBSERVED) == (4 + 4 + 3 + 2.5) / 16
    # Precision where the recall rises: 1/1, 2/2, 3/4, and 4/6 at the tie.
    assert average_precision_of_significant_genes(predicted, OBSERVED) == pytest.approx((1 + 1 + 3 / 4 + 4 / 6) / 4)


def test_a_prediction_without_change_is_chance():
    nothing = with_adjusted(np.ones(8))
    assert auroc_of_significant_genes(nothing, OBSERVED) == 0.5
    assert average_precision_of_significant_genes(nothing, OBSERVED) == 0.5  # the share of significant genes


def test_smallest_p_values_are_equal():
    predicted = with_adjusted([1e-12, 1e-12, 1e-12, 1e-12, 1e-30, 1e-30, 1.0, 1.0])
    assert auroc_of_significant_genes(predicted, OBSERVED) == (2 + 1) / 4
    assert auroc_of_significant_genes(predicted, OBSERVED, smallest=0) == 2 / 4
    assert average_precision_of_significant_genes(predicted, OBSERVED) == pytest.approx(4 / 6)
    assert average_precision_of_significant_genes(predicted, OBSERVED, smallest=0) == pytest.approx(4 / 6)


@pytest.mark.parametrize("metric", [auroc_of_significant_genes, average_precision_of_significant_genes])
def test_classifier_edge_cases(metric):
    assert math.isnan(metric(OBSERVED, found(np.ones(8), range(8))))
    with pytest.raises(ValueError, match="`smallest` from 0 to 1, found"):
        metric(OBSERVED, OBSERVED, smallest=-1e-3)

from __future__ import annotations

import numpy as np
import pytest

from perturbflow.metrics import Moments, recall_of_top_genes


def cells(rng, means, n=40):
    return rng.normal(means, 1.0, size=(n, len(means)))


def test_counts_the_genes_that_are_right():
    rng = np.random.default_rng(0)
    control = cells(rng, np.full(10, 5.0), n=400)
    real = cells(rng, 5 + 9.0 * np.isin(np.arange(10), [0, 1, 2, 3]))
    predicted = cells(rng, 5 - 9.0 * np.isin(np.arange(10), [2, 3, 4, 5]))  # the direction does not count
    assert recall_of_top_genes(predicted, real, control, n_top=4) == 0.5


def test_scores_are_those_of_the_overestimated_variance():
    rng = np.random.default_rng(1)
    control, real = rng.gamma(1.0, size=(30, 50)), rng.gamma(1.2, size=(20, 50))
    score = (real.mean(0) - control.mean(0)) / np.sqrt((real.var(0, ddof=1) + control.var(0, ddof=1)) / 20)
    order = np.argsort(-np.abs(score))
    # A prediction in which only the k genes of the largest scores move has them on top.
    for k in (1, 5, 20):
        predicted = np.tile(control, (4, 1)) + 50.0 * np.isin(np.arange(50), order[:k])
        assert recall_of_top_genes(predicted, real, control, n_top=k) == 1.0
        assert recall_of_top_genes(predicted, real, control, n_top=2 * k) >= 0.5


def test_equal_scores_are_in_the_order_of_the_genes():
    flat, number = np.ones(300), np.arange(300.0)
    control = Moments(9, np.zeros(300), flat)
    real = Moments(9, np.where(number < 50, 5.0, 1.0), flat)
    assert recall_of_top_genes(Moments(9, flat, flat), real, control) == 1
    two_levels = Moments(9, flat + number % 2, flat)
    assert recall_of_top_genes(two_levels, real, control) == 0.5  # 1, 3, ..., 99


def test_genes_without_variance_are_no_top_genes():
    control = np.column_stack([np.zeros(4), np.array([0.0, 1.0, 0.0, 1.0])])
    real = control + [3.0, 3.0]
    assert recall_of_top_genes(control + [0.0, 3.0], real, control, n_top=1) == 1.0


@pytest.mark.parametrize("n_top", [0, -1])
def test_bad_number_is_refused(n_top):
    x = np.ones((3, 2))
    with pytest.raises(ValueError, match="`n_top` to be at least 1, found"):
        recall_of_top_genes(x, x, x, n_top=n_top)


def test_single_cells_are_refused():
    with pytest.raises(ValueError, match="at least 2 cells"):
        recall_of_top_genes(np.ones((1, 2)), np.ones((3, 2)), np.ones((3, 2)))

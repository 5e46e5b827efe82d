from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from perturbflow.metrics import Strengths, pearson_of_energy_distances, spearman_of_numbers_of_significant_genes

METRICS = [spearman_of_numbers_of_significant_genes, pearson_of_energy_distances]


def strengths(values):
    return Strengths(np.asarray(values, dtype=float), np.asarray(values, dtype=float))


@pytest.mark.parametrize(
    ("metric", "reference"), list(zip(METRICS, (stats.spearmanr, stats.pearsonr), strict=True)), ids=["rank", "size"]
)
def test_correlations_are_those_of_scipy(metric, reference):
    predicted, observed = [0, 4, 4, 7, 1], [0, 2, 3, 9, 2]
    assert metric(strengths(predicted), strengths(observed)) == pytest.approx(reference(predicted, observed).statistic)


def test_a_factor_does_not_count():
    observed = np.array([1.0, 2.0, 5.0])
    assert pearson_of_energy_distances(strengths(9 * observed), strengths(observed)) == pytest.approx(1)


@pytest.mark.parametrize("metric", METRICS)
def test_strengths_without_order(metric):
    assert metric(strengths([3, 3, 3]), strengths([1, 2, 3])) == 0
    assert math.isnan(metric(strengths([1, 2, 3]), strengths([3, 3, 3])))
    assert math.isnan(metric(strengths([1]), strengths([1])))
    assert math.isnan(metric(strengths([]), strengths([])))


@pytest.mark.parametrize("metric", METRICS)
def test_other_conditions_are_refused(metric):
    with pytest.raises(
        ValueError, match=r"the same number of predicted and observed conditions, found \(1,\) and \(2,\)"
    ):
        metric(strengths([1]), strengths([1, 2]))

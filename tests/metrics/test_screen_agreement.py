from __future__ import annotations

import math
from importlib.util import find_spec

import numpy as np
import pytest
from scipy import sparse, stats

from perturbflow.metrics import _clustering_agreement, energy_distance
from perturbflow.metrics._clustering_agreement import clustering_agreement
from perturbflow.metrics._differential_expression import DifferentialExpression
from perturbflow.metrics._screen_agreement import (
    pearson_of_energy_distances,
    spearman_of_numbers_of_significant_genes,
)


def with_significant(n, n_genes=10):
    p = np.where(np.arange(n_genes) < n, 1e-9, 1.0)
    return DifferentialExpression(np.ones(n_genes), p, p)


def conditions(numbers):
    return [with_significant(n) for n in numbers]


# Numbers of significant genes


def test_order_of_numbers():
    predicted, observed = [0, 4, 4, 7, 1], [0, 2, 3, 9, 2]
    expected = stats.spearmanr(predicted, observed).statistic
    assert spearman_of_numbers_of_significant_genes(conditions(predicted), conditions(observed)) == pytest.approx(
        expected
    )


def test_false_effects_cost_something_unless_silent_conditions_are_left_out():
    predicted, observed = conditions([1, 2, 3, 10]), conditions([1, 2, 3, 0])
    assert spearman_of_numbers_of_significant_genes(predicted, observed) == pytest.approx(-0.2)
    assert spearman_of_numbers_of_significant_genes(predicted, observed, keep_silent=False) == pytest.approx(1)


def test_orders_of_conditions_that_do_not_exist():
    spearman = spearman_of_numbers_of_significant_genes
    assert spearman(conditions([3, 3, 3]), conditions([1, 2, 3])) == 0
    assert math.isnan(spearman(conditions([1, 2, 3]), conditions([3, 3, 3])))
    assert math.isnan(spearman(conditions([1]), conditions([1])))
    assert math.isnan(spearman([], []))
    assert math.isnan(spearman(conditions([1, 2]), conditions([0, 0]), keep_silent=False))


def test_other_conditions_are_refused():
    with pytest.raises(ValueError, match="as many predicted as observed conditions, found 1 and 2"):
        spearman_of_numbers_of_significant_genes(conditions([1]), conditions([1, 2]))
    with pytest.raises(ValueError, match="same genes"):
        spearman_of_numbers_of_significant_genes([with_significant(1, 5)], [with_significant(1, 6)])


# Energy distances


@pytest.mark.parametrize("unbiased", [True, False])
def test_correlation_of_energy_distances(unbiased):
    rng = np.random.default_rng(0)
    control = rng.poisson(1.0, size=(20, 6)).astype(float)
    observed = [rng.poisson(1.0 + 0.5 * i, size=(10 + i, 6)).astype(float) for i in range(5)]
    predicted = [rng.poisson(1.0 + 0.3 * i, size=(9, 6)).astype(float) for i in range(5)]
    distances = [[energy_distance(c, control, unbiased=unbiased) for c in side] for side in (predicted, observed)]
    value = pearson_of_energy_distances(map(sparse.csr_matrix, predicted), iter(observed), control, unbiased=unbiased)
    assert value == pytest.approx(stats.pearsonr(*distances).statistic, abs=1e-9)


def test_a_factor_and_the_direction_do_not_count():
    control = np.zeros((3, 2))
    observed = [control + [size, 0] for size in (1.0, 2.0, 5.0)]
    assert pearson_of_energy_distances([-3 * c for c in observed], observed, control) == pytest.approx(1)


def test_energy_distances_without_order():
    control = np.zeros((3, 2))
    near, far = control + 1.0, control + 2.0
    assert pearson_of_energy_distances([near, near], [near, far], control) == 0
    assert math.isnan(pearson_of_energy_distances([near, far], [near, near], control))
    assert math.isnan(pearson_of_energy_distances([near], [near], control))


def test_other_cells_are_refused():
    control = np.zeros((3, 2))
    with pytest.raises(ValueError, match="same conditions in `predicted` and `observed`, found one more"):
        pearson_of_energy_distances([control], [control, control], control)
    with pytest.raises(ValueError, match="found one more"):
        pearson_of_energy_distances([control, control], [control], control)
    with pytest.raises(ValueError, match="same genes"):
        pearson_of_energy_distances([np.zeros((3, 4))], [control], control)
    with pytest.raises(ValueError, match="at least 2 cells"):
        pearson_of_energy_distances([control[:1]], [control], control)


# Clusters


def test_clusters_of_conditions():
    if find_spec("igraph") is None:
        pytest.skip("clusters need igraph")
    rng = np.random.default_rng(0)
    centres = 10 * rng.normal(size=(4, 10))[np.arange(40) % 4]
    observed = centres + rng.normal(size=(40, 10))
    assert clustering_agreement(centres + rng.normal(size=(40, 10)), observed) == 1
    assert clustering_agreement(rng.normal(size=(40, 10)), observed) < 0.3


def test_too_few_conditions_to_cluster():
    with pytest.raises(ValueError, match="at least 3 conditions to cluster, found 2"):
        clustering_agreement(np.ones((2, 4)), np.ones((2, 4)))
    with pytest.raises(ValueError, match="at least one resolution"):
        clustering_agreement(np.ones((3, 4)), np.ones((3, 4)), predicted_resolutions=())
    with pytest.raises(ValueError, match="same conditions and genes"):
        clustering_agreement(np.ones((3, 4)), np.ones((3, 5)))


def test_igraph_is_named(monkeypatch):
    monkeypatch.setattr(_clustering_agreement, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install igraph"):
        clustering_agreement(np.eye(4), np.eye(4))

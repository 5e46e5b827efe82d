"""Metrics of a panel of conditions are those of its means, effects and components."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from perturbflow.metrics import (
    METRICS,
    Moments,
    Panel,
    differential_weights,
    discrimination_score,
    energy_distance,
    normalised_rank,
    pearson_against_reference,
    weighted_mse,
    weighted_r2,
)

P, G = 6, 8
RNG = np.random.default_rng(0)
LEVEL = RNG.gamma(2.0, size=G)
EFFECT = 0.6 * RNG.normal(size=(P, G))
SIZES = (4, 9, 30, 7, 12, 5)  # no mean over conditions is that over cells


def cells(level, n):
    return np.log1p(RNG.poisson(np.maximum(level, 0.05), (n, G)).astype(float))


OBSERVED = [cells(LEVEL * np.exp(effect), n) for effect, n in zip(EFFECT, SIZES, strict=True)]
PREDICTED = [cells(LEVEL * np.exp(effect + 0.5 * RNG.normal(size=G)), 10) for effect in EFFECT]
CONTROL = cells(LEVEL, 40)
PREDICTED[2] = PREDICTED[1] + 0.01 * RNG.normal(size=PREDICTED[1].shape)  # not all ranks are 0
PREDICTED[4] = OBSERVED[5][:4] + 0.1
X, Y = (np.array([one.mean(axis=0) for one in side]) for side in (PREDICTED, OBSERVED))
C = CONTROL.mean(axis=0)
PANEL = Panel(
    list(map(Moments.of, PREDICTED)),
    list(map(Moments.of, OBSERVED)),
    Moments.of(CONTROL),
    components=(PREDICTED, OBSERVED),  # in the place of components: some other space
)


def value(name, panel=PANEL):
    return METRICS[name].value(panel)


def cosines(a, b):
    return 1 - cdist(a, b, "cosine")


def test_ranks_are_those_of_all_pairs_of_conditions():
    ranks = {
        "normalised_rank": normalised_rank(cdist(X, Y), higher_is_better=False),
        "rank_of_cosine_in_components": normalised_rank(cosines(X, Y), higher_is_better=True),
        "rank_of_energy_in_components": normalised_rank(
            [[energy_distance(x, y, unbiased=False) for y in OBSERVED] for x in PREDICTED], higher_is_better=False
        ),
        "rank_of_log_fold_changes": normalised_rank(
            cosines(*(np.log2((mean + 0.1) / (C + 0.1)) for mean in (X, Y))), higher_is_better=True
        ),
    }
    for name, expected in ranks.items():
        assert 0 < expected.max()
        np.testing.assert_array_equal(value(name), expected, err_msg=name)


@pytest.mark.parametrize("base", [2, 10])
def test_ranks_of_log_fold_changes_are_those_of_natural_logarithms(base):
    sides = [*PANEL.predicted, *PANEL.observed, PANEL.control]
    *cells, control = (replace(one, mean=one.mean / np.log(base)) for one in sides)
    other = Panel(cells[:P], cells[P:], control)
    found = METRICS["rank_of_log_fold_changes"].function(other, base=base)
    np.testing.assert_array_equal(found, value("rank_of_log_fold_changes"))


def test_errors_are_weighted_by_what_is_specific():
    weights = differential_weights(OBSERVED)
    np.testing.assert_allclose(value("weighted_mse"), weighted_mse(X, Y, weights), rtol=1e-9)
    mean_of_cells = np.concatenate(OBSERVED).mean(axis=0)
    np.testing.assert_allclose(value("weighted_r2"), weighted_r2(X, Y, weights, mean_of_cells), rtol=1e-9)
    of_conditions = pearson_against_reference(X, Y, Y.mean(axis=0))
    np.testing.assert_allclose(value("pearson_against_centroids"), of_conditions, rtol=1e-9)


@pytest.mark.parametrize("distance", ["l1", "l2", "cosine"])
def test_effects_are_told_apart_as_in_cell_eval(distance):
    targets = RNG.random((P, G)) < 0.2
    found = value(f"discrimination_score_{distance}", replace(PANEL, targets=targets))
    expected = discrimination_score(X - C, Y - C, distance=distance, convention="cell_eval", targets=targets)
    np.testing.assert_array_equal(found, expected)


def test_effects_are_told_apart_as_in_cell_eval2():
    targets = np.eye(P, G, dtype=bool)
    expected = discrimination_score(X - C, Y - C, distance="cosine", convention="cell_eval2", targets=targets)
    np.testing.assert_array_equal(value("discrimination_score", replace(PANEL, targets=targets)), expected)
    distances = cdist(X, Y)
    farther = (distances > np.diagonal(distances)[:, None]).sum(axis=1) / (P - 1)
    np.testing.assert_array_equal(value("centroid_accuracy"), farther)


def test_means_of_components_are_compared_by_their_direction():
    x, y = PREDICTED[0], OBSERVED[0]
    assert METRICS["cosine_in_components"].function(x, y) == pytest.approx(cosines(X[:1], Y[:1])[0, 0])


@pytest.mark.parametrize(
    "name",
    [
        *("normalised_rank", "rank_of_log_fold_changes", "rank_of_cosine_in_components", "centroid_accuracy"),
        *("rank_of_energy_in_components", "weighted_mse", "weighted_r2", "pearson_against_centroids"),
        *("discrimination_score", "discrimination_score_l1", "discrimination_score_cosine"),
    ],
)
def test_a_single_condition_has_nothing_beside_it(name):
    alone = Panel(PANEL.predicted[:1], PANEL.observed[:1], PANEL.control, components=(PREDICTED[:1], OBSERVED[:1]))
    found = value(name, alone)
    assert found.shape == (1,)
    assert np.isnan(found).all()


def test_where_a_condition_has_one_cell_nothing_is_weighted():
    one = replace(PANEL, observed=[Moments.of(OBSERVED[0][:1]), *PANEL.observed[1:]])
    assert np.isnan(value("weighted_mse", one)).all()
    assert np.isnan(value("weighted_r2", one)).all()
    assert np.isfinite(value("pearson_against_centroids", one)).all()

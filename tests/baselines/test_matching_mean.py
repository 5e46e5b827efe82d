from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from perturbflow.baselines import CovariateMean, MatchingMean
from perturbflow.flow import CellData

RNG = np.random.default_rng(0)
N_GENES, CONTROL = 3, 20.0
A, B, B_ELSEWHERE, AB = np.random.default_rng(1).normal(0, 1, (4, N_GENES))
GROUPS = {((1, 0, 0), 0): A, ((0, 1, 0), 0): B, ((0, 1, 0), 1): B_ELSEWHERE, ((1, 1, 0), 0): AB}


def training(groups, *, container=np.asarray):
    """Two identical cells per group and per context, which differ in their controls."""
    rows = [((0, 0, 0), context, np.zeros(N_GENES)) for context in sorted({context for _, context in groups})]
    rows += [(doses, context, effect) for (doses, context), effect in groups.items()]
    x = np.repeat([CONTROL + 5 * context + effect for _, context, effect in rows], 2, axis=0)
    covariates = np.repeat([[context] for _, context, _ in rows], 2, axis=0)
    return CellData(container(x), np.repeat([doses for doses, *_ in rows], 2, axis=0), covariates)


def shift_of(doses, context=0, *, cells=None, baseline=MatchingMean):
    controls = np.full((1, N_GENES), CONTROL, dtype=np.float32)
    fitted = baseline().fit(training(GROUPS) if cells is None else cells)
    return fitted.sample(controls, np.array(doses, dtype=np.float32), np.array([context]), rng=RNG)[0] - CONTROL


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix])
def test_a_combination_is_the_mean_of_its_components_not_their_sum(container):
    cells = training(GROUPS, container=container)
    np.testing.assert_allclose(shift_of((1, 1, 0), cells=cells), (A + B) / 2, atol=1e-5)


def test_one_context_gives_the_mean_of_centroids():
    cells = training({key: effect for key, effect in GROUPS.items() if key[1] == 0})
    centroids = [cells.x[(cells.perturbations.toarray() == doses).all(axis=1)].mean(axis=0) for doses in np.eye(3)[:2]]
    np.testing.assert_allclose(CONTROL + shift_of((1, 1, 0), cells=cells), np.mean(centroids, axis=0), atol=1e-5)


def test_a_component_of_another_context_brings_its_effect():
    np.testing.assert_allclose(shift_of((1, 1, 0), 1), (A + B_ELSEWHERE) / 2, atol=1e-5)
    np.testing.assert_allclose(shift_of((1, 1, 0), 7), (A + (B + B_ELSEWHERE) / 2) / 2, atol=1e-5)


def test_a_component_never_seen_alone_has_the_mean_of_the_context():
    np.testing.assert_allclose(shift_of((1, 0, 1)), (A + (A + B + AB) / 3) / 2, atol=1e-5)
    np.testing.assert_allclose(shift_of((0, 1, 1), 1), B_ELSEWHERE, atol=1e-5)


@pytest.mark.parametrize("context", [0, 1, 7])
def test_singles_have_the_mean_effect_even_where_they_were_seen(context):
    for doses in np.eye(3):
        expected = shift_of(doses, context, baseline=CovariateMean)
        np.testing.assert_array_equal(shift_of(doses, context), expected)


def test_the_nearest_dose_counts():
    effects = np.diag([1.0, 2.0, 4.0])
    cells = training({((1, 0, 0), 0): effects[0], ((10, 0, 0), 0): effects[1], ((0, 1, 0), 0): effects[2]})
    for dose, expected in ((0.1, effects[0]), (3, effects[0]), (4, effects[1]), (99, effects[1])):
        np.testing.assert_allclose(shift_of((dose, 5, 0), cells=cells), (expected + effects[2]) / 2, atol=1e-5)

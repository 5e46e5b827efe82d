from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy import sparse

from perturbflow.flow._context_interactions import tell_contexts

from .effects import carry_between, measurements, of_levels, table_of

P, C, G, K = 40, 5, 60, 2
NOISE = 0.2
VARIANCES = np.full(G, 0.5)


class Screen(NamedTuple):
    """Measured effects, effects as they are known and carried, and true ones (P, C, G)."""

    measured: Any
    effects: np.ndarray
    carry: Any
    truth: np.ndarray

    def told(self, levels=None):
        """Effects and told variances."""
        effects, found = self.all_told(levels)
        return effects, found.variances

    def all_told(self, levels=None):
        """Effects and everything that is told."""
        effects = self.effects.copy()
        table = table_of(self.measured, self.carry.n_contexts, levels)
        found = tell_contexts(table, effects, self.carry, VARIANCES, np.zeros((len(effects), G)))
        return effects, found

    def error(self, effects, pairs):
        return np.square(effects[pairs] - self.truth[pairs]).mean()


def screen(is_measured, *, interaction=0.6, combinations=0, seed=0):
    """Conserved effects and interactions of two factors; single perturbations, and pairs of them in the first context."""
    rng = np.random.default_rng(seed)
    n_levels, n_contexts = is_measured.shape
    factors = [rng.normal(size=shape) for shape in ((n_levels, K), (n_contexts, K), (K, G))]
    truth = rng.normal(0, 0.5, (n_levels, 1, G)) + interaction * np.einsum("pk,ck,kg->pcg", *factors) / np.sqrt(K)
    levels, which = np.nonzero(is_measured)
    rows = [of_levels(levels, n_levels)]
    means = [truth[levels, which]]
    for place in range(combinations):
        pair = np.array([place, place + 1])
        rows.append(sparse.csr_matrix((np.ones(2), (np.zeros(2, dtype=int), pair)), shape=(1, n_levels)))
        means.append(truth[pair, 0].sum(axis=0, keepdims=True))
        which = np.append(which, 0)
    mean = np.concatenate(means)
    changes = mean + NOISE * rng.normal(size=mean.shape)
    design = sparse.csr_matrix(sparse.vstack(rows))
    measured = measurements(changes, which, design, variance=NOISE**2, n_contexts=n_contexts)
    carry = carry_between(1 - np.eye(n_contexts), np.zeros((n_contexts, G)))
    effects = np.zeros((n_levels, n_contexts, G), dtype=np.float32)
    for level in range(n_levels):
        own = np.flatnonzero(levels == level)
        if len(own):
            effects[level] = carry.everywhere(which[own], changes[own])
    return Screen(measured, effects, carry, truth)


def few_shot(few=10, n_contexts=C, n_levels=P):
    """All perturbations in all contexts but the last, which has a few."""
    is_measured = np.ones((n_levels, n_contexts), dtype=bool)
    is_measured[few:, -1] = False
    return is_measured


@pytest.mark.parametrize(("few", "least"), [(4, 0.4), (12, 0.8), (20, 0.85)])
def test_interactions_of_a_context_are_learned_from_a_few_perturbations(few, least):
    is_measured = few_shot(few)
    given = screen(is_measured)
    effects, told = given.told()
    missing = ~is_measured
    assert given.error(effects, missing) < (1 - least) * given.error(given.effects, missing)
    assert given.error(effects, is_measured) < given.error(given.effects, is_measured)
    assert (told[-1] > 0).mean() > 0.9
    assert not told[:-1].any()


def test_some_levels_are_enough_to_learn_the_factors(monkeypatch):
    is_measured = few_shot(12)
    given = screen(is_measured)
    monkeypatch.setattr("perturbflow.flow._interaction_factors._MOST_LEVELS", 25)
    monkeypatch.setattr("perturbflow.flow._interaction_factors._VALUES_AT_ONCE", 7 * G)
    effects, told = given.told()
    missing = ~is_measured
    assert told.any()
    assert (effects[missing] != given.effects[missing]).all()
    assert given.error(effects, missing) < 0.3 * given.error(given.effects, missing)


def test_any_pattern_of_missing_pairs_with_combinations():
    is_measured = np.random.default_rng(1).random((P, C)) < 0.6
    given = screen(is_measured, combinations=10)
    effects, told = given.told()
    missing = ~is_measured
    assert given.error(effects, missing) < 0.5 * given.error(given.effects, missing)
    assert given.error(effects, is_measured) < given.error(given.effects, is_measured)
    assert (told > 0).any(axis=1).all()


def test_measured_effects_of_levels_with_combinations_stay():
    """Their groups of one level are not all that is known of them."""
    is_measured = few_shot(20)
    given = screen(is_measured, combinations=10)
    effects, found = given.all_told()
    with_combinations = np.arange(len(effects)) < 11
    for level in range(len(effects)):
        same = effects[level, is_measured[level]] == given.effects[level, is_measured[level]]
        assert same.all() if with_combinations[level] else not same.any()
    assert sorted(found.spreads) == np.flatnonzero(~with_combinations).tolist()
    changed = given.measured.design[found.groups].indices
    assert set(changed) == set(found.spreads)
    assert (given.measured.amount[found.groups] == 1).all()


def test_variances_of_measured_effects_are_those_of_their_errors():
    is_measured = few_shot(20)
    given = screen(is_measured)
    effects, found = given.all_told()
    errors = np.array([np.square(effects[level] - given.truth[level])[is_measured[level]].mean() for level in range(P)])
    stated = np.array([found.spreads[level].mean() for level in range(P)])
    assert errors.mean() < 0.9 * NOISE**2
    assert errors.mean() < stated.mean() < 1.4 * errors.mean()


def test_a_perturbation_that_was_measured_nowhere_stays():
    is_measured = few_shot()
    is_measured[-1] = False
    given = screen(is_measured)
    effects, told = given.told()
    assert told.any()
    np.testing.assert_array_equal(effects[-1], given.effects[-1])


def test_only_effects_that_are_known_change():
    given = screen(few_shot())
    effects, told = given.told(np.arange(30))
    assert told.any()
    np.testing.assert_array_equal(effects[30:], given.effects[30:])
    assert (effects[10:30, -1] != given.effects[10:30, -1]).all()


@pytest.mark.parametrize(
    "is_measured",
    [
        pytest.param(few_shot(n_contexts=2), id="two contexts"),
        pytest.param(few_shot(0), id="nothing measured in the context"),
        pytest.param(few_shot(2), id="two perturbations measured in the context"),
        pytest.param(few_shot(5, n_levels=7), id="few perturbations"),
        pytest.param(few_shot(P), id="nothing is missing"),
        pytest.param(np.eye(P, C, dtype=bool), id="every perturbation in one context"),
    ],
)
def test_where_there_is_nothing_to_learn_all_stays_as_it_is(is_measured):
    given = screen(is_measured)
    effects, told = given.told()
    np.testing.assert_array_equal(effects, given.effects)
    assert not told.any()


def test_interactions_that_no_other_condition_tells_are_not_learned():
    for seed in range(5):
        given = screen(few_shot(), interaction=0.0, seed=seed)
        own = np.random.default_rng(seed).normal(0, 0.6, given.measured.effects.shape).astype(np.float32)
        given.measured.effects[:] += own
        effects, told = given.told()
        np.testing.assert_array_equal(effects, given.effects)
        assert not told.any()


def test_told_variances_are_part_of_those_between_contexts():
    _, told = screen(few_shot(20)).told()
    assert (told >= 0).all()
    assert (told <= 0.9 * VARIANCES).all()


def test_order_of_contexts_makes_no_difference():
    given = screen(few_shot(15))
    effects, _ = given.told()
    order = np.array([3, 0, 4, 2, 1])  # new place of every context
    measured, back = given.measured, np.argsort(order)
    rows = np.lexsort((order[measured.which], measured.design.indices))
    moved = replace(
        measured,
        design=measured.design[rows],
        which=order[measured.which][rows],
        effects=measured.effects[rows],
        variances=measured.variances[rows],
    )
    again, _ = Screen(moved, given.effects[:, back], given.carry, given.truth).told()
    np.testing.assert_allclose(again[:, order], effects, atol=1e-5)

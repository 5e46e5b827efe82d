from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perturbflow.flow._carry import Way, mean_weights
from perturbflow.flow._control_factors import ControlFactors, _learn, _ridge_weights, read_controls

from .effects import carry_between, measurements, of_levels, table_of

P, G, K = 30, 60, 2
NOISE = 0.2
WAYS = (Way(1e3),)
VARIANCES = np.full(G, 0.5)


def squared(positions, others=None):
    others = positions if others is None else others
    return np.square(positions[:, None] - others).sum(axis=-1)


def test_a_ridge_regression_follows_from_distances():
    """The same as with an intercept that is not penalised, and centred positions."""
    rng = np.random.default_rng(0)
    positions, new, factors = rng.normal(size=(7, 3)), rng.normal(size=3), rng.normal(size=(7, 2))
    centre = positions.mean(axis=0)
    x = positions - centre
    penalty = 0.1 * np.trace(x @ x.T) / 6
    slopes = np.linalg.solve(x.T @ x + penalty * np.eye(3), x.T @ factors)
    weights = _ridge_weights(squared(positions), squared(positions, new[None])[:, 0])
    np.testing.assert_allclose(weights @ factors, (new - centre) @ slopes, rtol=1e-6)
    assert weights.sum() == pytest.approx(0, abs=1e-12)


def test_factors_are_those_of_the_mean_context_in_its_place():
    rng = np.random.default_rng(0)
    positions, factors = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
    known = ControlFactors(np.zeros((1, 2)), factors, np.zeros((2, G)), np.ones(1), np.zeros(G))
    middle = squared(positions, positions.mean(axis=0, keepdims=True))[:, 0]
    np.testing.assert_allclose(known.place(squared(positions), middle), factors.mean(axis=0), rtol=1e-9)


def test_controls_that_tell_everything_are_read_and_others_are_not():
    rng = np.random.default_rng(0)
    positions = rng.normal(size=(12, 3))
    factors = positions @ rng.normal(size=(3, 2))
    learned = _learn(factors, squared(positions), WAYS)
    assert learned is not None
    assert 1 < learned.slope < 1.3  # what the penalty takes is given back
    assert learned.weight > 0.9
    assert learned.told > 0.9
    weights = [getattr(_learn(rng.normal(size=(12, 2)), squared(positions), WAYS), "weight", 0) for _ in range(100)]
    assert np.mean(weights) < 0.05


def test_what_controls_tell_counts_more_the_surer_it_is():
    rng = np.random.default_rng(0)
    positions = rng.normal(size=(8, 3))
    told, noise = positions[:, :2], rng.normal(size=(8, 2))
    learned = [_learn(told + size * noise, squared(positions), WAYS) for size in (0.1, 0.5, 1.0)]
    weights = [0 if each is None else each.weight for each in learned]
    assert weights == sorted(weights, reverse=True)
    assert weights[0] > weights[-1]


def test_nothing_is_read_where_controls_tell_the_mean_alone():
    """Factors that repel each other: their mean is nearer than any other context, and no direction of the controls tells it."""
    positions = np.array([0.0, 0.1, 1.0, 1.1, 2.0, 2.1])[:, None]
    factors = np.tile([1.0, -1.0], 3)[:, None]
    assert _learn(factors, squared(positions), (Way(0.01),)) is None


def test_nothing_is_read_where_all_contexts_are_alike():
    assert _learn(np.ones((6, 2)), np.zeros((6, 6)), WAYS) is None


def test_what_is_added_is_beyond_what_is_carried():
    rng = np.random.default_rng(0)
    found = ControlFactors(
        rng.normal(size=(3, K)), rng.normal(size=(5, K)), rng.normal(size=(K, G)), np.ones(1), np.zeros(G)
    )
    observed, distances = np.array([0, 3, 4]), rng.random(3)
    ways = (Way(0.3, share=0.5), Way(1.0, 0.5, 0.0, share=0.5))
    usual = mean_weights(distances, ways) @ found.context_factors[observed]
    np.testing.assert_array_equal(found.added(1, usual, observed, distances, ways), 0)
    one_more = found.added(1, usual + np.array([1.0, 0.0]), observed, distances, ways)
    np.testing.assert_allclose(one_more, found.level_factors[1, 0] * found.gene_factors[0], rtol=1e-9)


class Screen:
    """Effects with interactions of two factors, of which the first perturbed contexts are known and the last ones only by controls."""

    def __init__(self, n_contexts=9, n_bare=1, *, readable=True, n_levels=P, seed=0):
        rng = np.random.default_rng(seed)
        known = n_contexts - n_bare
        factors = rng.normal(size=(n_contexts, K))
        positions = np.concatenate(
            [factors if readable else rng.normal(size=factors.shape), np.zeros((n_contexts, 2))], axis=1
        )
        genes = rng.normal(size=(K, G))
        interactions = 0.5 * np.einsum("pk,ck,kg->pcg", rng.normal(size=(n_levels, K)), factors, genes)
        self.truth = rng.normal(0, 0.5, (n_levels, 1, G)) + interactions
        levels, self.which = np.nonzero(np.ones((n_levels, known)))
        changes = self.truth[levels, self.which] + NOISE * rng.normal(size=(len(levels), G))
        design = of_levels(levels, n_levels)
        self.measured = measurements(changes, self.which, design, variance=NOISE**2, n_contexts=n_contexts)
        carry = carry_between(squared(positions), np.zeros((n_contexts, G)), n_perturbed=known)
        self.carry = replace(carry, ways=(Way(1e3, ends=0.0),))
        self.effects = np.stack(
            [self.carry.everywhere(np.arange(known), changes[levels == level]) for level in range(n_levels)]
        ).astype(np.float32)

    def read(self):
        """Effects after reading, and what was read."""
        effects = self.effects.copy()
        table = table_of(self.measured, self.carry.n_contexts)
        return effects, read_controls(table, effects, self.carry, VARIANCES)

    def error(self, effects, context=-1):
        return np.square(effects[:, context] - self.truth[:, context]).mean()


def test_effects_in_a_context_known_by_its_controls_follow_from_these():
    screen = Screen()
    effects, found = screen.read()
    assert found.is_read
    assert screen.error(effects) < 0.3 * screen.error(screen.effects)
    np.testing.assert_array_equal(effects[:, :-1], screen.effects[:, :-1])
    assert (found.read_variances > 0).all()
    assert (found.read_variances <= 0.9 * VARIANCES).all()
    assert not found.context_factors[-1].any()


def test_contexts_are_read_the_same_whichever_others_are_there():
    both, alone = Screen(10, 2), Screen(10, 2)
    effects, found = both.read()
    place = found.place(alone.carry.distances, alone.carry.distances[-1])
    observed = np.arange(8)
    for level in (0, 7):
        added = found.added(level, place, observed, both.carry.distances[-1, observed], both.carry.ways)
        np.testing.assert_allclose(effects[level, -1], both.effects[level, -1] + added, atol=1e-6)


@pytest.mark.parametrize(
    "screen",
    [Screen(readable=False), Screen(5, 1), Screen(n_levels=7)],
    ids=["controls tell nothing", "few contexts", "few perturbations"],
)
def test_nothing_changes_without_evidence(screen):
    effects, found = screen.read()
    assert not found.is_read
    assert not found.level_factors.any()
    np.testing.assert_array_equal(effects, screen.effects)

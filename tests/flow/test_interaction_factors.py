from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from perturbflow.flow._interaction_factors import InteractionFactors, PerturbationFactors, Rows, gene_directions

P, C, G, K = 60, 6, 80, 2
NOISE = 0.3


class Planted(NamedTuple):
    """Rows of effects, and the interactions of all pairs that are among them."""

    values: np.ndarray
    which: np.ndarray
    contexts: np.ndarray
    truth: np.ndarray


def planted(*, noise=NOISE, size=1.0, few=8, seed=0):
    """Two factors, and effects that are the same everywhere; the last context has a few of the perturbations."""
    rng = np.random.default_rng(seed)
    perturbations, contexts, genes = (rng.normal(size=shape) for shape in ((P, K), (C, K), (K, G)))
    interactions = size * np.einsum("pk,ck,kg->pcg", perturbations, contexts, genes) / np.sqrt(K)
    is_measured = np.ones((P, C), dtype=bool)
    is_measured[few:, -1] = False
    which, places = np.nonzero(is_measured)
    values = rng.normal(size=(P, 1, G)) + interactions
    return Planted(values[which, places] + noise * rng.normal(size=(len(which), G)), which, places, interactions)


def in_directions(screen, noise=NOISE):
    variances = np.full(len(screen.which), noise**2)
    directions = gene_directions(screen.values, screen.which, variances)
    return Rows(screen.values @ directions, variances, screen.which, screen.contexts, (P, C)), directions


def told(screen, rows, directions, context=-1):
    """Interactions in a context beyond their mean over the contexts of each perturbation (P, G)."""
    factors = InteractionFactors.fit(rows)
    known = PerturbationFactors.of(factors, rows)
    return (known.factors * (factors.contexts[context] - known.centre)) @ factors.loadings @ directions.T


def beyond_mean(screen):
    return screen.truth[:, -1] - screen.truth[:, :-1].mean(axis=1)


def test_planted_interactions_of_unmeasured_pairs_are_found():
    screen = planted()
    rows, directions = in_directions(screen)
    found, truth = told(screen, rows, directions)[8:], beyond_mean(screen)[8:]
    assert np.square(found - truth).sum() < 0.1 * np.square(truth).sum()


def test_without_noise_they_are_exact():
    screen = planted(noise=1e-3)
    rows, directions = in_directions(screen, noise=1e-3)
    found, truth = told(screen, rows, directions)[8:], beyond_mean(screen)[8:]
    assert np.square(found - truth).sum() < 0.01 * np.square(truth).sum()


def test_directions_are_those_of_the_planted_genes():
    screen = planted(noise=1e-6)
    _, directions = in_directions(screen, noise=1e-6)
    np.testing.assert_allclose(directions.T @ directions, np.eye(directions.shape[1]), atol=1e-9)
    genes = np.linalg.svd(screen.truth.reshape(-1, G), full_matrices=False)[2][:K]
    np.testing.assert_allclose(np.linalg.norm(genes @ directions[:, :K], axis=1), 1, atol=1e-6)


def test_effects_that_are_everywhere_the_same_are_no_factor():
    """Their size makes no difference: every perturbation has a mean of its own."""
    screen = planted()
    rows, directions = in_directions(screen)
    moved = rows.values + np.random.default_rng(1).normal(0, 5, (P, rows.values.shape[1]))[rows.which]
    other = Rows(moved, rows.noise, rows.which, rows.contexts, rows.shape)
    np.testing.assert_allclose(told(screen, other, directions), told(screen, rows, directions), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("part", ["perturbations", "contexts"])
def test_order_makes_no_difference(part):
    screen = planted()
    rng = np.random.default_rng(2)
    order = rng.permutation(P if part == "perturbations" else C - 1)
    order = order if part == "perturbations" else np.append(order, C - 1)
    which = order[screen.which] if part == "perturbations" else screen.which
    contexts = order[screen.contexts] if part == "contexts" else screen.contexts
    shuffled = rng.permutation(len(which))
    other = Planted(screen.values[shuffled], which[shuffled], contexts[shuffled], screen.truth)
    found, again = told(screen, *in_directions(screen)), told(other, *in_directions(other))
    np.testing.assert_allclose(again[order] if part == "perturbations" else again, found, atol=1e-6)


def test_what_is_not_known_grows_where_fewer_were_measured():
    """And factors of a context without any measured effect are 0, with the variance of all."""
    spreads = []
    for few in (0, 3, 30):
        rows, _ = in_directions(planted(few=few))
        factors = InteractionFactors.fit(rows)
        spreads.append(np.trace(factors.context_covariances[-1]))
        if few == 0:
            np.testing.assert_allclose(factors.contexts[-1], 0, atol=1e-12)
            np.testing.assert_allclose(np.diag(factors.context_covariances[-1]), before(rows), rtol=0.05)
    assert spreads[0] > spreads[1] > spreads[2]


def before(rows):
    """Variances of context factors, which change little from one step to the next."""
    return InteractionFactors.fit(rows).context_variances


def test_a_perturbation_of_one_context_tells_nothing_of_its_factors():
    screen = planted()
    keep = (screen.which > 0) | (screen.contexts == 0)
    rows = in_directions(screen)[0].take(keep)
    factors = InteractionFactors.fit(rows)
    known = PerturbationFactors.of(factors, rows)
    np.testing.assert_allclose(known.factors[0], 0, atol=1e-9)
    np.testing.assert_allclose(known.apart[rows.which == 0], 0, atol=1e-12)


def test_factors_of_a_new_context_are_those_of_its_rows_but_one():
    screen = planted(few=12)
    rows = in_directions(screen)[0]
    others, own = rows.take(rows.contexts < C - 1), rows.take(rows.contexts == C - 1)
    factors = InteractionFactors.fit(others)
    known = PerturbationFactors.of(factors, others)
    found = factors.of_new_context(own, known, others)
    kept = np.arange(len(own.which)) != 4
    conserved = known.conserved(others, factors.loadings, known.centre)[own.which]
    left, right = np.diag(1 / factors.context_variances), np.zeros(len(factors.loadings))
    for row in np.flatnonzero(kept):
        weight = 1 / (own.noise[row] + factors.rest + 1 / known.total[own.which[row]])
        a = known.factors[own.which[row]]
        products = np.outer(a, a) + known.covariances[own.which[row]]
        left = left + weight * products * (factors.loadings @ factors.loadings.T)
        right = right + weight * a * (factors.loadings @ (own.values[row] - conserved[row]))
    np.testing.assert_allclose(found[4], np.linalg.solve(left, right), rtol=1e-9)

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from perturbflow.flow._context_interactions import Interactions, ToldEffects, quadratic

from .effects import measurements, of_levels, table_of

P, C, G, K = 50, 6, 40, 2
NOISE = 0.2


class Given(NamedTuple):
    """Effects of perturbations in contexts, all measured but some of the last, and their conserved part (P, G)."""

    told: ToldEffects
    truth: np.ndarray
    conserved: np.ndarray

    def effects(self, numbers, expected=None):
        numbers = np.asarray(numbers)
        return list(self.told.effects(numbers, np.zeros((len(numbers), G)) if expected is None else expected))


def given(*, rest=0.0, offset=0.0, few=15, noise=NOISE, seed=0):
    rng = np.random.default_rng(seed)
    conserved = rng.normal(0, 0.5, (P, G)) * (rng.random((P, G)) < 0.3)
    factors = [rng.normal(size=shape) for shape in ((P, K), (C, K), (K, G))]
    truth = conserved[:, None] + 0.5 * np.einsum("pk,ck,kg->pcg", *factors)
    truth += rest * rng.normal(size=truth.shape)
    truth += offset * rng.normal(size=(C, G))
    is_measured = np.ones((P, C), dtype=bool)
    is_measured[few:, -1] = False
    which, contexts = np.nonzero(is_measured)
    changes = truth[which, contexts] + noise * rng.normal(size=(len(which), G))
    table = table_of(measurements(changes, contexts, of_levels(which, P), variance=noise**2), C)
    assert table is not None
    found, known, rows = table.known()
    told = ToldEffects.fit(table, rows, Interactions(found, known, table.genes(found)))
    return Given(told, truth, conserved)


@pytest.mark.parametrize("rest", [0.0, 0.2, 0.4])
def test_variance_of_the_rest_is_found(rest):
    found = given(rest=rest).told.rest.mean()
    assert found == pytest.approx(rest**2, rel=0.2, abs=0.005)


@pytest.mark.parametrize("offset", [0.1, 0.5])
def test_offsets_are_found_from_few_effects(offset):
    """As offsets, or as a factor that all perturbations have: together they are what a context has on average."""
    told, truth, _ = given(offset=offset)
    found = told.offsets + np.mean([told.interactions.of(number) for number in range(P)], axis=0)
    true = truth.mean(axis=0)
    apart = (found - found.mean(axis=0)) - (true - true.mean(axis=0))
    assert np.sqrt(np.square(apart[:-1]).mean()) < 1.5 * NOISE / np.sqrt(P)
    assert np.sqrt(np.square(apart[-1]).mean()) < 2 * NOISE / np.sqrt(15)


def test_without_enough_effects_a_context_has_no_offset():
    assert not given(offset=0.5, few=2).told.offsets[-1].any()
    assert given(offset=0.5, few=3).told.offsets[-1].any()


def test_effects_that_were_not_measured_are_those_of_the_other_contexts_with_interactions():
    screen = given(few=25)
    missing = np.arange(25, P)
    found = np.array([each.everywhere[-1] for each in screen.effects(missing)])
    error = np.square(found - screen.truth[missing, -1]).mean()
    assert error < 0.25 * np.square(screen.truth[missing, -1] - screen.conserved[missing]).mean()
    assert error < NOISE**2


def test_without_noise_measured_effects_are_kept():
    screen = given(noise=1e-3, rest=0.3)
    for number, each in enumerate(screen.effects(np.arange(P))):
        np.testing.assert_array_equal(each.observed, np.arange(C if number < 15 else C - 1))
        np.testing.assert_allclose(each.everywhere[each.observed], screen.truth[number, each.observed], atol=0.01)


def test_stated_variances_are_those_of_errors():
    screen = given(rest=0.1)
    found = screen.effects(np.arange(P))
    errors = [np.square(each.everywhere - screen.truth[i])[each.observed].mean() for i, each in enumerate(found)]
    assert np.mean([each.variance.mean() for each in found]) == pytest.approx(np.mean(errors), rel=0.15)


def test_effects_are_shrunken_towards_what_is_expected():
    screen = given(noise=2.0)
    numbers = np.arange(20, 24)
    expected = screen.conserved[numbers]
    errors = [
        np.mean([np.square(each.everywhere[-1] - screen.truth[n, -1]) for n, each in zip(numbers, found, strict=True)])
        for found in (screen.effects(numbers, expected), screen.effects(numbers))
    ]
    assert errors[0] < errors[1]


def test_blocks_make_no_difference(monkeypatch):
    screen = given()
    together = screen.effects(np.arange(20))
    monkeypatch.setattr("perturbflow.flow._context_interactions._PERTURBATIONS_AT_ONCE", 3)
    for first, second in zip(together, screen.effects(np.arange(20)), strict=True):
        np.testing.assert_allclose(first.everywhere, second.everywhere, rtol=1e-10, atol=1e-12)


def test_quadratic_form_of_every_gene():
    rng = np.random.default_rng(0)
    half, genes = rng.normal(size=(3, 3)), rng.normal(size=(3, 7))
    matrix = half @ half.T
    np.testing.assert_allclose(quadratic(matrix, genes), [g @ matrix @ g for g in genes.T])

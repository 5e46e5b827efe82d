from __future__ import annotations

import itertools

import numpy as np
import pytest

from perturbflow.dynamics._deviations import Covariances

TIME = np.arange(0.0, 20.0, 0.4)
STATE = np.column_stack([np.cos(TIME), np.sin(TIME)])
NOW, LATER = slice(0, 30), slice(30, 50)


def deviations(residual, time, state, later, state_later, unit, **options):
    return Covariances(time, state, later, state_later, **options).deviation(residual, unit)


def predicted(residual):
    return deviations(residual[NOW], TIME[NOW], STATE[NOW], TIME[LATER], STATE[LATER], np.ones(residual.shape[1]))


def test_no_deviation_remains_none():
    found = predicted(np.zeros((50, 3)))
    np.testing.assert_array_equal(found.mean, 0)


def test_an_offset_stays():
    residual = np.tile([3.0, -1.0, 0.5], (50, 1)) + np.random.default_rng(0).normal(0, 0.1, (50, 3))
    np.testing.assert_allclose(predicted(residual).mean, np.tile([3.0, -1.0, 0.5], (20, 1)), atol=0.25)


def test_a_cycle_of_its_own_is_repeated_where_the_state_recurs():
    residual = np.column_stack([np.cos(2 * TIME), np.sin(TIME) + 1])
    np.testing.assert_allclose(predicted(residual).mean, residual[LATER], atol=0.2)


def test_noise_is_not_repeated():
    residual = np.random.default_rng(1).normal(0, 1, (50, 20))
    found = predicted(residual).mean
    assert (found**2).mean() < 0.3


def test_what_moves_at_another_state_follows_the_autocorrelation():
    rng = np.random.default_rng(0)
    state = rng.normal(size=(50, 6))  # never recurs
    residual = np.cos(TIME[:, None] + rng.uniform(0, 2 * np.pi, 20)) + rng.normal(0, 0.1, (50, 20))
    arguments = (residual[NOW], TIME[NOW], state[NOW], TIME[LATER], state[LATER], np.ones(20))
    follows, fades = deviations(*arguments, correlation=np.cos), deviations(*arguments)
    errors = [np.abs(found.mean - residual[LATER])[:8].mean() for found in (follows, fades)]  # half a period
    assert errors[0] < 0.5 * errors[1]
    assert follows.evidence > fades.evidence


def test_units_of_genes_do_not_matter():
    residual = np.column_stack([np.cos(TIME), np.sin(TIME)])
    unit = np.array([1.0, 1e4])
    scaled = deviations(residual[NOW] * np.sqrt(unit), TIME[NOW], STATE[NOW], TIME[LATER], STATE[LATER], unit)
    np.testing.assert_allclose(scaled.mean / np.sqrt(unit), predicted(residual).mean, rtol=1e-6, atol=1e-9)


def test_mean_and_evidence_are_those_of_a_gaussian_process():
    residual = np.column_stack([np.cos(2 * TIME), np.sin(TIME) + 1, 0.3 * TIME])
    n, d, unit = 30, 3, np.array([0.5, 2.0, 40.0])
    found = deviations(residual[NOW], TIME[NOW], STATE[NOW], TIME[LATER], STATE[LATER], unit)
    apart = np.abs(TIME[:, None] - TIME[NOW])
    distance = ((STATE[:, None] - STATE[NOW]) ** 2).sum(axis=2) / STATE[NOW].var(axis=0).sum()
    passing = [(0.0, 1.0)] + [(c, w) for c in (0.1, 1.0) for w in (1.0, 4.0, 4.0, 16.0)]
    readouts = [(0.0, 1.0)] + [(b, length) for b in (0.1, 1.0, 10.0) for length in (0.25, 0.5)]
    tried = []
    for a, (b, length), (c, w) in itertools.product((0.1, 1.0, 10.0), readouts, passing):
        whole = a + b * np.exp(-distance / (2 * length**2)) + c * np.exp(-apart / w)
        solved = np.linalg.solve(whole[NOW] + 0.1 * np.eye(n), residual[NOW])
        size = (residual[NOW] * solved / unit).sum() / (n * d)
        evidence = -0.5 * d * (n * np.log(size) + np.linalg.slogdet(whole[NOW] + 0.1 * np.eye(n))[1])
        tried.append((evidence, whole[LATER] @ solved))
    most, mean = max(tried, key=lambda one: one[0])
    assert found.evidence == pytest.approx(most, rel=1e-8)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-7, atol=1e-9)


def test_covariances_serve_several_residuals():
    along = Covariances(TIME[NOW], STATE[NOW], TIME[LATER], STATE[LATER])
    for residual in (STATE + 1, np.cos(2 * TIME)[:, None], STATE):
        found = along.deviation(residual[NOW], np.ones(residual.shape[1]))
        np.testing.assert_array_equal(found.mean, predicted(residual).mean)

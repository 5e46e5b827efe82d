from __future__ import annotations

import numpy as np
import pytest

from perturbflow.datasets._counts import BurstyGenes

GENES = BurstyGenes(expression=np.array([1.0, 4.0, 0.5]), burst_frequency=np.array([2.0, 5.0, 8.0]))


def draw(levels, *, depth=3.0, dropout=0.0, n=40_000):
    levels = np.broadcast_to(np.array(levels, dtype=np.float32), (n, 3))
    return GENES.counts(levels, depth=np.full(n, depth), dropout=dropout, rng=np.random.default_rng(0)).toarray()


def test_moments_are_those_of_the_negative_binomial():
    levels = np.array([0.2, 0.5, 1.0])
    counts = draw(levels)
    mean = 3.0 * GENES.expression * levels
    variance = mean + mean**2 / (GENES.burst_frequency * levels)  # shape: bursts a lifetime
    # 40,000 cells: standard errors below 1 % of the mean and about 2 % of the variance.
    np.testing.assert_allclose(counts.mean(axis=0), mean, rtol=0.04)
    np.testing.assert_allclose(counts.var(axis=0), variance, rtol=0.1)


def test_no_production_gives_no_counts():
    counts = draw([0.0, 0.5, 0.0])
    assert (counts[:, [0, 2]] == 0).all()
    assert counts[:, 1].any()


def test_dropout_removes_entries_and_leaves_the_rest():
    levels = [0.5, 0.5, 1.0]
    complete, kept = draw(levels), draw(levels, dropout=0.3)
    assert ((kept == complete) | (kept == 0)).all()
    expressed = complete > 0
    assert (kept[expressed] > 0).mean() == pytest.approx(0.7, abs=0.01)


def test_counts_are_whole_and_single_precision():
    counts = draw([0.5, 0.5, 0.5], n=100)
    assert counts.dtype == np.float32
    assert (counts == np.round(counts)).all()
    assert (counts >= 0).all()

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from perturbflow.metrics import energy_distance
from perturbflow.metrics._clouds import EnergyTest, energy_test_of


def samples(seed, *, shift=0.0, n=15, m=12):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 5)), rng.normal(shift, size=(m, 5)), rng


def energy_test(x, y, *, rng, n_permutations=200):
    both = np.concatenate([x, y])
    return energy_test_of(cdist(both, both), len(x), n_permutations=n_permutations, rng=rng)


def test_the_statistic_is_the_energy_distance():
    x, y, rng = samples(0, shift=0.3)
    assert energy_test(x, y, rng=rng).energy_distance == pytest.approx(energy_distance(x, y), abs=1e-12)


def test_p_values_are_uniform_for_equal_laws_and_small_for_different_ones():
    p = np.array(
        [energy_test(*samples(seed)[:2], rng=samples(seed)[2], n_permutations=39).p_value for seed in range(120)]
    )
    # At most 5 % in truth: of 120, more than 13 have a probability below 0.5 %.
    assert (p <= 0.05).sum() <= 13
    assert 0.4 < p.mean() < 0.6
    x, y, rng = samples(1, shift=2.0)
    assert energy_test(x, y, rng=rng).p_value == pytest.approx(1 / 201)


def test_equal_cells_give_no_evidence():
    x = np.ones((6, 3))
    found = energy_test(x, x, rng=np.random.default_rng(0))
    assert found == EnergyTest(0.0, 1.0, 0.0)
    assert found.cells_needed(6) == np.inf


def test_permutations_have_the_spread_of_new_samples():
    x, y, rng = samples(0, n=40, m=40)
    distances = [energy_distance(*samples(seed, n=40, m=40)[:2]) for seed in range(300)]
    assert energy_test(x, y, rng=rng, n_permutations=500).null_sd == pytest.approx(np.std(distances), rel=0.25)


def test_cells_needed_are_inversely_proportional_to_the_distance():
    assert EnergyTest(0.1, 0.2, 0.1).cells_needed(100) == 165
    assert EnergyTest(0.2, 0.2, 0.1).cells_needed(100) == 83
    assert EnergyTest(-0.1, 0.9, 0.1).cells_needed(100) == np.inf

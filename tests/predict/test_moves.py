from __future__ import annotations

import numpy as np
import pytest

from perturbflow.predict._moves import Profile, Way

N_GENES = 12


def way(rng, *, noise=0.0):
    direction, weights = rng.normal(0, 1, N_GENES), rng.uniform(0.5, 2, N_GENES)
    return Way(direction, weights, noise, float(weights @ direction**2) - noise)


def draws(rng, effect, variance, n=4000):
    """Effects with independent errors of their stated variance."""
    return effect + np.sqrt(variance) * rng.standard_normal((n, N_GENES))


def test_sd_of_the_distance_is_that_of_uncertain_effects():
    rng = np.random.default_rng(0)
    there, effect, variance = way(rng), rng.normal(0, 1, N_GENES), rng.uniform(0.01, 0.4, N_GENES)
    scores = [there.reached(one, 0 * variance, 1.0).score for one in draws(rng, effect, variance)]
    found = there.reached(effect, variance, 1.0)
    assert found.sd == pytest.approx(np.std(scores), rel=0.05)
    assert found.score == pytest.approx(1 - there.weights @ (effect - there.direction) ** 2 / there.squared_length)


def test_sd_along_a_direction_is_that_of_uncertain_effects():
    rng = np.random.default_rng(1)
    there, effect, variance = way(rng), rng.normal(0, 1, N_GENES), rng.uniform(0.01, 0.4, N_GENES)
    scores = [there.followed(one, variance, 1.0).score for one in draws(rng, effect, variance)]
    found = there.followed(effect, variance, 1.0)
    assert found.sd == pytest.approx(np.std(scores), rel=0.05)
    assert found.score == pytest.approx(np.mean(scores), abs=0.02)
    assert there.followed(effect, variance, 4.0).sd == pytest.approx(2 * found.sd)  # genes that go together


def test_the_whole_direction_scores_one_and_no_effect_zero():
    there = way(np.random.default_rng(2))
    none, whole = np.zeros(N_GENES), there.direction
    assert there.reached(none, none, 1.0).score == pytest.approx(0)
    assert there.reached(whole, none, 1.0).score == pytest.approx(1)
    assert there.followed(whole, none, 1.0).score == pytest.approx(1)
    assert there.reached(whole, none, 1.0).cosine == pytest.approx(1)
    assert there.followed(-whole, none, 1.0).cosine == pytest.approx(-1)


def test_what_sampling_adds_to_a_distance_is_taken_out():
    rng = np.random.default_rng(3)
    there = way(rng, noise=0.5)
    assert there.reached(np.zeros(N_GENES), np.zeros(N_GENES), 1.0).score == pytest.approx(0)
    at_the_end = there.reached(there.direction, np.zeros(N_GENES), 1.0)
    assert (at_the_end.score, at_the_end.distance) == (1, 0)
    assert at_the_end.order == -0.5  # which of two is nearer counts below zero, too


def test_a_target_within_sampling_is_refused():
    mean, variance = np.ones(N_GENES), np.full(N_GENES, 0.5)
    start, near = Profile(mean, variance, variance / 10), Profile(mean + 0.1, variance, variance / 10)
    with pytest.raises(ValueError, match=r"differs from the control cells by more than sampling noise, found none"):
        Way.between(start, near, "euclidean")
    assert Way.between(start, Profile.exactly(mean + 2), "standardised").weights == pytest.approx(np.full(N_GENES, 2))

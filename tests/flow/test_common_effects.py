"""What perturbations have in common does not hang on which of them a context has."""

from __future__ import annotations

import numpy as np
import pytest

from perturbflow.flow._effect_split import RidgeSplit, common_effects

from .effects import measurements, of_levels


def common(effects, levels, contexts, *, noise=0.01):
    measured = measurements(effects, contexts, of_levels(levels, max(levels) + 1), variance=noise)
    return common_effects(measured, RidgeSplit(measured.design, 1e-9))


def test_one_context_has_the_mean_and_its_standard_error():
    effects = np.random.default_rng(0).normal(size=(6, 3))
    observed, mean, variance = common(effects, range(6), [0] * 6)
    assert list(observed) == [0]
    np.testing.assert_allclose(mean[0], effects.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(variance[0], effects.var(axis=0, ddof=1) / 6, rtol=1e-5)


def test_equal_effects_have_the_error_of_sampling():
    _, mean, variance = common(np.ones((4, 2)), [0, 1, 0, 1], [0, 0, 1, 1])
    np.testing.assert_allclose(mean, 1, rtol=1e-6)
    np.testing.assert_allclose(variance, 0.005, rtol=1e-5)


@pytest.mark.parametrize("only", [0, 1])
def test_a_context_with_one_perturbation_does_not_take_it_for_what_all_do(only):
    """Two perturbations add up with contexts; of the last context one is missing."""
    rng = np.random.default_rng(1)
    of_level, of_context = rng.normal(0, 3, (2, 4)), rng.normal(0, 0.5, (5, 4))
    pairs = [(level, context) for context in range(5) for level in range(2) if (context, level) != (4, 1 - only)]
    effects = np.array([of_level[level] + of_context[context] for level, context in pairs])
    observed, mean, variance = common(effects, *map(list, zip(*pairs, strict=True)), noise=1e-6)
    assert list(observed) == list(range(5))
    differences = mean - mean[0]
    np.testing.assert_allclose(differences, of_context - of_context[0], atol=0.05)
    np.testing.assert_allclose(variance[4], 2 * variance[0], rtol=1e-4)  # one group where the others have two


def test_contexts_that_have_the_same_perturbations_have_their_own_means():
    effects = np.random.default_rng(2).normal(size=(6, 3))
    _, mean, _ = common(effects, [0, 1, 2] * 2, [0, 0, 0, 1, 1, 1])
    np.testing.assert_allclose(mean, effects.reshape(2, 3, 3).mean(axis=1), rtol=1e-5)

from __future__ import annotations

import numpy as np
import pytest

from perturbflow.flow import KINDS, AdditiveHurdlePrior, condition_kind, mean_expression


def angle(share):
    return 2 * np.arcsin(np.sqrt(share))


@pytest.fixture(scope="module")
def prior():
    from perturbflow.flow import CellData

    rng = np.random.default_rng(0)
    doses = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (1, 1, 0, 0), (0, 0, 1, 0)]
    groups = [(d, c) for d in doses for c in (0, 1) if not (d[2] and c == 1)]
    x = rng.poisson(1.0, (40 * len(groups), 6)).astype(np.float32)
    perturbations = np.repeat([d for d, _ in groups], 40, axis=0)
    covariates = np.repeat([[c] for _, c in groups], 40, axis=0)
    return AdditiveHurdlePrior.fit(CellData(x, perturbations, covariates))


@pytest.mark.parametrize(
    ("doses", "context", "kind"),
    [
        pytest.param((1, 1, 0, 0), 0, "seen", id="training_condition"),
        pytest.param((0, 0, 0, 0), 0, "seen", id="controls"),
        pytest.param((2, 0, 0, 0), 0, "new dose", id="dose_beyond_the_largest"),
        pytest.param((1, 0, 1, 0), 0, "combination", id="combination"),
        pytest.param((0.5, 0, 0, 0), 0, "new dose", id="new_dose"),
        pytest.param((1, 0.5, 0, 0), 0, "new dose", id="measured_together_at_other_doses"),
        pytest.param((0.5, 0, 1, 0), 0, "combination", id="combination_at_a_new_dose"),
        pytest.param((0, 0, 1, 0), 1, "new context", id="component_not_in_this_context"),
        pytest.param((1, 0, 1, 0), 1, "new context", id="one_of_two_not_in_this_context"),
        pytest.param((0, 0, 0, 1), 0, "unseen", id="unseen"),
        pytest.param((1, 0, 0, 1), 1, "unseen", id="one_of_two_unseen"),
        pytest.param((1, 0, 0, 0), 2, "new context", id="new_context"),
    ],
)
def test_kinds(prior, doses, context, kind):
    controls = np.ones((5, 6), dtype=np.float32) if context == 2 else None
    where = prior.context(np.array([context]), controls)
    assert condition_kind(prior, np.array(doses, dtype=np.float32), where) == kind
    assert kind in KINDS


def test_mean_expression_is_the_law_s_and_its_sd_that_of_both_parts(prior):
    doses, context = np.array([1, 0, 0, 0]), prior.context(np.array([0]))
    distribution, sd = prior.distribution(doses, context), prior.distribution_sd(doses, context)
    mean, sd_mean = mean_expression(prior, doses, context)
    np.testing.assert_allclose(mean, distribution.expressed * distribution.mean, rtol=1e-6)
    # Numerically: errors of the share under normal errors of its angle, and of the mean, one after the other.
    rng = np.random.default_rng(1)
    shares = np.sin((angle(distribution.expressed) + sd.angle * rng.standard_normal((200_000, 6))) / 2) ** 2
    of_share = np.sqrt(np.mean((shares - distribution.expressed) ** 2, axis=0))
    parts = distribution.mean * of_share, distribution.expressed * sd.mean
    expected = np.sqrt(parts[0] ** 2 + parts[1] ** 2 + 2 * sd.correlation * parts[0] * parts[1])
    np.testing.assert_allclose(expected, sd_mean, rtol=0.01)

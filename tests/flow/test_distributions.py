"""Distributions of many conditions at once, and conditions found without a search."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from perturbflow.flow import AdditiveHurdlePrior, condition_kind
from perturbflow.flow import _prior as prior_module

DOSES = np.array([[0, 0, 0], [1, 0, 0], [5, 0, 0], [0, 2, 0], [1, 2, 0], [0, 0, 1]], dtype=float)


@pytest.fixture
def prior(hurdle_screen):
    screen = hurdle_screen(20)
    for code in (0, 1, 2):
        for row in DOSES[: 6 - code]:
            screen.add(40, row, [code], angle=0.1 * code + 0.2 * row[0], mean=0.1 * row[1])
    return AdditiveHurdlePrior.fit(screen.data())


ASKED = np.array(
    [
        *DOSES,
        [3, 0, 0],
        [0.5, 1, 0],
        [50, 2, 0],
        [0, 0, 0.5],
        [1, 0, 1],
    ]  # measured ones, others, and beyond the largest
)


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("values_at_once", [1, 4_000_000])
def test_laws_at_once_are_those_of_each(prior, monkeypatch, container, values_at_once):
    monkeypatch.setattr(prior_module, "_VALUES_AT_ONCE", values_at_once)
    codes = np.repeat([[0], [2], [1]], len(ASKED), axis=0)
    asked = np.tile(ASKED, (3, 1))
    distributions = prior.distributions(container(asked), codes)
    for i, (doses, code) in enumerate(zip(asked, codes, strict=True)):
        distribution = prior.distribution(doses, prior.context(code))
        np.testing.assert_array_equal(distributions.expressed[i], distribution.expressed)
        np.testing.assert_array_equal(distributions.mean[i], distribution.mean)
    np.testing.assert_array_equal(distributions.variance, prior.variance)


def test_laws_of_no_conditions_and_of_new_contexts(prior):
    assert prior.distributions(np.zeros((0, 3)), np.zeros((0, 1), dtype=int)).expressed.shape == (0, 20)
    with pytest.raises(ValueError, match=r"new context with covariate codes \[9\]"):
        prior.distributions(DOSES[:1], np.array([[9]]))


def test_every_training_group_is_found(prior):
    groups = prior.groups
    np.testing.assert_array_equal(groups.find(groups.doses, prior.group_contexts), np.arange(len(prior.group_cells)))
    np.testing.assert_array_equal(groups.find(groups.doses, prior.group_contexts + 7), -1)
    doses = groups.doses.toarray()
    assert doses.shape == (5 + 4 + 3, 3)
    for j in range(3):
        np.testing.assert_array_equal(groups.with_component(j), np.flatnonzero(doses[:, j]))
    assert len(groups.here(2, 1)) == len(groups.here(2, None)) == 0
    assert groups.has_components(np.array([0, 1]), 1)
    assert not groups.has_components(np.array([0, 2]), 1)


@pytest.mark.parametrize(
    ("doses", "code", "kind"),
    [
        ([1, 2, 0], 0, "seen"),
        ([5, 2, 0], 0, "new dose"),
        ([1, 0, 1], 0, "combination"),
        ([0, 0, 1], 1, "new context"),
        ([0, 0, 0], 1, "seen"),
    ],
)
def test_kinds(prior, doses, code, kind):
    assert condition_kind(prior, np.array(doses), prior.context(np.array([code]))) == kind

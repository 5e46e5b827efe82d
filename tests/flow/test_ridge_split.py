"""Ridge regression in blocks of levels that occur together."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from perturbflow.flow._effect_split import RidgeSplit

PENALTY = 0.03
# Levels 0 and 3 together, 1 and 4 through 2, 5 alone.
DESIGN = np.array(
    [
        [1, 0, 0, 0.5, 0, 0],
        [1, 0, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0],
        [0, 0, 1, 0, 1, 0],
        [0, 0, 0, 0, 0.25, 0],
        [0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 1],
    ]
)


def test_solution_and_leverages_are_those_of_the_full_equations():
    split = RidgeSplit(sparse.csr_matrix(DESIGN), PENALTY)
    gram = DESIGN.T @ DESIGN + PENALTY * np.eye(6)
    effects = np.random.default_rng(0).normal(size=(7, 4))
    np.testing.assert_allclose(split.solve(effects), np.linalg.solve(gram, DESIGN.T @ effects), rtol=1e-12)
    expected = np.diag(DESIGN @ np.linalg.solve(gram, DESIGN.T))
    np.testing.assert_allclose(split.leverages(), expected, rtol=1e-12)


@pytest.mark.parametrize("n_groups", [1, 4])
def test_a_level_alone_is_an_average(n_groups):
    design = sparse.csr_matrix(np.ones((n_groups, 1)))
    split = RidgeSplit(design, PENALTY)
    assert split.solve(np.full((n_groups, 1), 2.0)).item() == pytest.approx(2 * n_groups / (n_groups + PENALTY))
    np.testing.assert_allclose(split.leverages(), 1 / (n_groups + PENALTY))


def test_groups_without_levels_have_no_leverage():
    split = RidgeSplit(sparse.csr_matrix(np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0]])), PENALTY)
    assert split.leverages()[0] == 0
    assert (split.leverages()[1:] > 0.5).all()

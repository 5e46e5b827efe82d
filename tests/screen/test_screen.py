from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from perturbflow.screen._fields import read_screen


def dense(x):
    return x.toarray() if sparse.issparse(x) else x


@pytest.mark.parametrize("rows", [np.array([5, 3, 8]), np.arange(600) % 3 == 0, np.zeros(600, dtype=bool)])
def test_a_part_is_what_reading_these_cells_gives(registered, rows):
    whole = read_screen(registered)
    part, again = whole.part(rows), read_screen(registered, rows=rows)
    assert len(part) == len(again)
    np.testing.assert_array_equal(part.perturbations.toarray(), again.perturbations.toarray())
    np.testing.assert_array_equal(part.covariates, again.covariates)
    np.testing.assert_array_equal(part.is_control, again.is_control)
    np.testing.assert_array_equal(dense(part.subset().x), registered.X.toarray()[rows])
    assert len(whole) == 600  # as before


def test_a_part_of_a_part(registered):
    part = read_screen(registered).part(np.arange(10, 40)).part(np.array([2, 1]))
    np.testing.assert_array_equal(dense(part.subset().x), registered.X.toarray()[[12, 11]])
    assert part.grouping().n_cells.sum() == 2

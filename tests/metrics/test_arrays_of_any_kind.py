"""Whatever holds the numbers of profiles and scores is read, or refused with what to do."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from perturbflow import metrics
from perturbflow.screen._named_arrays import real_numbers, without_names

X = np.array([[0.0, 1.0, 2.0], [2.0, 0.0, 1.0]])
CALLS = {
    "normalised_rank": lambda x: metrics.normalised_rank(x[:, :2], higher_is_better=True),
    "weighted_mse": lambda x: metrics.weighted_mse(x, X + 1, np.ones(3)),
}


@pytest.mark.parametrize("container", [sparse.csr_matrix, sparse.csc_array, np.ma.masked_array, np.float16])
def test_containers_do_not_matter(subtests, container):
    for name in CALLS:
        with subtests.test(name):
            np.testing.assert_allclose(CALLS[name](container(X)), CALLS[name](X))


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_numpy_matrix_is_an_array():
    assert type(without_names(np.matrix(X), name="x")) is np.ndarray
    np.testing.assert_array_equal(CALLS["weighted_mse"](np.matrix(X)), CALLS["weighted_mse"](X))


def test_masked_values_are_refused(subtests):
    for name in CALLS:
        with subtests.test(name):
            with pytest.raises(ValueError, match="Expected all values of .* found 2 of . masked"):
                CALLS[name](np.ma.masked_less(X, 0.5))


@pytest.mark.parametrize("wrong", [X + 1j, X.astype(str), [[1.0], [1.0, 2.0]], [object()]])
def test_what_is_no_array_of_numbers_is_refused(wrong):
    with pytest.raises(TypeError, match="Expected `scores` to .* real numbers, found"):
        real_numbers(wrong, name="scores")

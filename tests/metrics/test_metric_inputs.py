from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from perturbflow.metrics import METRICS, Moments

X = np.array([[0.0, 1.0], [2.0, 0.0], [1.0, 3.0]])
FUNCTIONS = {
    name: metric
    for name, metric in METRICS.items()
    if metric.kind in {"distribution", "effect", "response"} and not metric.function.__name__.startswith("_")
}


def call(metric, x, y=X + 1, control=X + 2):
    return metric.function(x, y) if metric.kind == "distribution" else metric.function(x, y, control)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        pytest.param(X[0], r"Expected `x` to have shape \(cells, genes\), found \(2,\)", id="one_dimension"),
        pytest.param(X[:, :1], r"Expected the same genes in .*'x': 1", id="genes"),
        pytest.param(X[:0], r"Expected at least . cells and 1 gene in `x`, found shape \(0, 2\)", id="no_cells"),
        pytest.param(np.where(X == 3, np.nan, X), "finite values in `x`, found NaN .* column 1", id="nan"),
        pytest.param(np.where(X == 2, np.inf, X), "finite values in `x`, found NaN or infinity in 1 genes", id="inf"),
        pytest.param(np.where(X == 2, np.inf, -np.inf), "found NaN or infinity in 2 genes", id="opposite_infinities"),
        pytest.param(sparse.csr_matrix(np.where(X == 3, np.nan, X)), "finite values in `x`", id="sparse_nan"),
    ],
)
def test_bad_cells_are_refused(subtests, x, message):
    for name in FUNCTIONS:
        with subtests.test(name):
            with pytest.raises(ValueError, match=message):
                call(FUNCTIONS[name], x)


def test_bad_reference_is_named(subtests):
    for name in FUNCTIONS:
        with subtests.test(name):
            with pytest.raises(ValueError, match="finite values in `y`"):
                call(FUNCTIONS[name], X, np.where(X == 3, np.nan, X))


def test_text_is_refused(subtests):
    for name in FUNCTIONS:
        with subtests.test(name):
            with pytest.raises(TypeError, match="Expected `x` to hold real numbers, found dtype <U"):
                call(FUNCTIONS[name], X.astype(str))


@pytest.mark.parametrize(
    "container",
    [
        pytest.param(sparse.csr_matrix, id="csr_matrix"),
        pytest.param(sparse.csc_matrix, id="csc_matrix"),
        pytest.param(sparse.csr_array, id="csr_array"),
        pytest.param(sparse.csc_array, id="csc_array"),
        pytest.param(sparse.coo_array, id="coo_array"),
        pytest.param(np.asfortranarray, id="fortran_order"),
    ],
)
def test_containers_agree(subtests, container):
    for name in FUNCTIONS:
        with subtests.test(name):
            rng = np.random.default_rng(0)
            x, y, control = (rng.poisson(0.3, (n, 5)).astype(np.float32) for n in (8, 7, 9))
            expected = call(FUNCTIONS[name], x, y, control)
            assert np.isfinite(expected)
            assert call(FUNCTIONS[name], container(x), container(y), container(control)) == pytest.approx(
                expected, abs=1e-12
            )
            assert call(FUNCTIONS[name], container(x), y, control) == pytest.approx(expected, abs=1e-12)


def test_order_of_cells_and_genes_does_not_matter(subtests):
    for name in FUNCTIONS:
        with subtests.test(name):
            rng = np.random.default_rng(1)
            x, y, control = (rng.gamma(1.0, size=(n, 5)) for n in (8, 7, 9))
            # Projections are drawn by the place of a gene.
            genes = np.arange(5) if name == "sliced_wasserstein" else rng.permutation(5)
            shuffled = [cells[rng.permutation(len(cells))][:, genes] for cells in (x, y, control)]
            assert call(FUNCTIONS[name], *shuffled) == pytest.approx(call(FUNCTIONS[name], x, y, control), abs=1e-12)


def test_inputs_are_unchanged(subtests):
    for name in FUNCTIONS:
        with subtests.test(name):
            arrays = [X.copy(), X + 1, X + 2]
            call(FUNCTIONS[name], *arrays)
            assert all((a == b).all() for a, b in zip(arrays, (X, X + 1, X + 2), strict=True))


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix, sparse.csr_array])
def test_means_of_float32_are_summed_in_float64(container):
    # 2^24 + 1 is not a float32, so a float32 sum forgets the small values.
    cells = np.concatenate([np.full((1, 1), 2.0**24), np.ones((100, 1))]).astype(np.float32)
    assert Moments.of(container(cells)).mean[0] == (2.0**24 + 100) / 101

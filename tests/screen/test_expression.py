"""Reading rows of expression, wherever it is stored."""

from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

from perturbflow._checks import check_matrix
from perturbflow.screen import Expression, _expression
from perturbflow.screen._fields import read_cells, read_expression, read_screen
from perturbflow.screen._modality import read_annotations

N_CELLS, N_GENES = 500, 7
X = sparse.random(N_CELLS, N_GENES, density=0.4, format="csr", dtype=np.float32, random_state=0)


def dense(block):
    return block.toarray() if sparse.issparse(block) else block


@pytest.fixture(scope="module")
def elsewhere(stored_elsewhere) -> AnnData:
    return stored_elsewhere(AnnData(X))


@pytest.fixture
def expression(elsewhere) -> Expression:
    return read_expression(elsewhere)


@pytest.mark.parametrize(
    "rows",
    [
        np.array([5, 499, 0, 5, 17, 300]),
        np.arange(N_CELLS)[::-1],
        np.arange(N_CELLS) % 3 == 0,
        slice(490, None, 3),
        np.array([], dtype=int),
    ],
    ids=["some twice", "backwards", "booleans", "slice", "none"],
)
def test_rows_are_those_of_the_matrix_in_their_order(expression, rows):
    block = expression[rows]
    assert isinstance(block, np.ndarray | sparse.csr_matrix)
    np.testing.assert_array_equal(dense(block), X.toarray()[rows])


def test_everything_is_read_if_no_rows_are_named(expression):
    assert expression.shape == (N_CELLS, N_GENES)
    np.testing.assert_array_equal(dense(expression.take()), X.toarray())


def test_chunks_are_all_rows_and_no_more_at_a_time(expression):
    rows, blocks = zip(*expression.chunks(n_cells=64), strict=True)
    assert [len(one) for one in rows] == [64] * 7 + [52]
    np.testing.assert_array_equal(np.concatenate(rows), np.arange(N_CELLS))
    np.testing.assert_array_equal(np.concatenate([dense(block) for block in blocks]), X.toarray())
    some = [dense(block) for _, block in expression.chunks(np.array([9, 2, 480]), 2)]
    np.testing.assert_array_equal(np.concatenate(some), X.toarray()[[9, 2, 480]])


def test_parts_of_parts(expression):
    genes = expression.part(genes=np.array([6, 0, 3]))
    part = genes.part(rows=np.arange(100, 200)).part(rows=np.array([7, 3]), genes=np.array([1]))
    assert (part.shape, len(part), part.n_vars) == ((2, 1), 2, 1)
    np.testing.assert_array_equal(dense(part.take()), X.toarray()[[107, 103]][:, [0]])


def test_layers_are_read_alike(stored_elsewhere):
    adata = AnnData(sparse.csr_matrix(X.shape, dtype=np.float32), layers={"log": X})
    np.testing.assert_array_equal(dense(read_expression(stored_elsewhere(adata), "log").take()), X.toarray())


# Whether expression is dense in the file is nothing to what is beside it.
@pytest.mark.parametrize(
    "stored_elsewhere", ["CSC", "backed", "lazy h5ad", "lazy zarr", "lazy files", "dask"], indirect=True
)
def test_cells_are_those_in_memory(stored_elsewhere, registered):
    elsewhere = stored_elsewhere(registered)
    read_annotations(elsewhere)
    rows, genes = np.array([400, 3, 77]), list(registered.var_names[[3, 1]])
    for found, expected in [
        (read_cells(elsewhere), read_cells(registered)),
        (read_cells(elsewhere, rows=rows, genes=genes), read_cells(registered, rows=rows, genes=genes)),
    ]:
        np.testing.assert_array_equal(dense(found.x), dense(expected.x))
        np.testing.assert_array_equal(found.perturbations.toarray(), expected.perturbations.toarray())
        np.testing.assert_array_equal(found.covariates, expected.covariates)
    chunks = list(read_screen(elsewhere, rows=rows, genes=genes).chunks(n_cells=2))
    assert [len(chunk) for chunk in chunks] == [2, 1]
    np.testing.assert_array_equal(np.concatenate([dense(chunk.x) for chunk in chunks]), dense(expected.x))
    np.testing.assert_array_equal(np.concatenate([chunk.covariates for chunk in chunks]), expected.covariates)


def runs_of(rows, *, most=_expression.ROWS_AT_ONCE):
    return [rows[run].tolist() for run in _expression._runs(rows, rows + 1, gap=_expression.GAP, most=most)]


def test_a_file_is_read_in_runs():
    runs = runs_of(np.array([0, 1, 10, 100, 101, 5000, 5001, 9999]))
    assert runs == [[0, 1, 10], [100, 101], [5000, 5001], [9999]]
    assert runs_of(np.arange(10), most=4) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_cells_of_a_file_that_are_looked_at_are_a_bounded_number_in_runs(tmp_path):
    from anndata import read_h5ad

    AnnData(sparse.random(9000, 3, density=0.1, format="csr", random_state=0)).write_h5ad(tmp_path / "cells.h5ad")
    backed = read_h5ad(tmp_path / "cells.h5ad", backed="r")
    expression = read_expression(backed)
    rows, block = expression.look()
    assert len(rows) == block.shape[0] == 4096
    assert (np.diff(rows) > 0).all()
    assert len(runs_of(rows)) <= 64
    np.testing.assert_array_equal(expression.some_rows(), rows)
    in_memory = read_expression(backed.to_memory())
    assert len(in_memory.look()[0]) == 9000
    backed.file.close()


def test_booleans_are_one_a_cell(expression):
    with pytest.raises(ValueError, match="Expected one boolean for each of 500 cells in `rows`, found shape"):
        expression[np.ones(3, dtype=bool)]


@pytest.mark.parametrize("values", [[[1.0]], sparse.coo_matrix(np.eye(2)), np.ma.masked_equal(np.eye(2), 0)])
def test_what_is_no_matrix_of_cells_is_refused(values):
    with pytest.raises(TypeError, match=r"Expected `adata.X` to be a NumPy array or a SciPy CSR or CSC matrix"):
        check_matrix(Expression(values, where="adata.X").look()[1], where="adata.X")

"""Rows of CSR matrices in files."""

from __future__ import annotations

import anndata
import h5py
import numpy as np
import pytest
from scipy import sparse

from perturbflow.screen import _expression

N_CELLS, N_GENES = 300, 11


class Counted:
    """An array of a file that notes what is read of it."""

    def __init__(self, stored, read) -> None:
        self.stored, self.read, self.dtype = stored, read, stored.dtype

    def __getitem__(self, values):
        self.read.append((values.start, values.stop))
        return self.stored[values]


@pytest.fixture(scope="module", params=["h5ad", "zarr"])
def stored(request, tmp_path_factory):
    """A matrix of cells, of which the first ten, one of three, and the last express nothing, in memory and in a file."""
    x = sparse.random(N_CELLS, N_GENES, density=0.5, format="lil", dtype=np.float32, random_state=0)
    x[:10], x[20:200:3], x[-1] = 0, 0, 0
    x, path = x.tocsr(), tmp_path_factory.mktemp("cells") / "x"
    adata = anndata.AnnData(x)
    if request.param == "h5ad":
        adata.write_h5ad(path)
        file = h5py.File(path)
    else:
        zarr = pytest.importorskip("zarr")
        adata.write_zarr(path, chunks=(100, N_GENES))
        file = zarr.open_group(path, mode="r")
    yield x, anndata.io.sparse_dataset(file["X"])
    if request.param == "h5ad":
        file.close()


@pytest.mark.parametrize(
    "rows",
    [np.arange(N_CELLS), np.array([0]), np.array([3, 4, 9]), np.array([5, 150, 151, 299]), np.zeros(0, dtype=np.intp)],
    ids=["all", "one without a value", "several without", "far apart", "none"],
)
@pytest.mark.parametrize(("gap", "at_once"), [(0, 10**6), (20, 10**6), (10**6, 7), (10**6, 10**6)])
def test_rows_are_those_of_the_matrix_however_they_are_read(stored, rows, gap, at_once, monkeypatch):
    x, in_file = stored
    monkeypatch.setattr(_expression, "_GAP_OF_VALUES", gap)
    monkeypatch.setattr(_expression, "_VALUES_AT_ONCE", at_once)
    source = _expression.CsrInFile(in_file)
    assert source.shape == x.shape
    for _ in range(2):
        found, expected = source.read(rows), x[rows]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found.indptr, expected.indptr)
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.data, expected.data)


def test_rows_near_each_other_are_read_together_and_others_apart(stored, monkeypatch):
    x, in_file = stored
    source = _expression.CsrInFile(in_file)
    read: list[tuple[int, int]] = []
    source._group = {name: Counted(in_file.group[name], read) for name in ("indptr", "indices", "data")}
    source.read(np.array([0]))
    read.clear()
    monkeypatch.setattr(_expression, "_GAP_OF_VALUES", 30)
    source.read(np.array([210, 212, 290]))
    near, far = (int(x.indptr[210]), int(x.indptr[213])), (int(x.indptr[290]), int(x.indptr[291]))
    assert read == 2 * [near, far]

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from perturbflow.flow import DeviceRows

CPU = torch.device("cpu")


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(1, 8), st.floats(0, 1), st.integers(0, 1000))
def test_rows_of_a_sparse_matrix_are_those_of_the_dense_one(n_cells, n_genes, density, seed):
    rng = np.random.default_rng(seed)
    dense = (rng.random((n_cells, n_genes)) * (rng.random((n_cells, n_genes)) < density)).astype(np.float32)
    rows = torch.as_tensor(rng.integers(n_cells, size=17))  # some more than once, empty rows among them
    for x in (dense, sparse.csr_matrix(dense)):
        assert (DeviceRows(x, CPU).take(rows).numpy() == dense[rows.numpy()]).all()


def test_no_rows():
    taken = DeviceRows(sparse.csr_matrix(np.eye(3, dtype=np.float32)), CPU).take(torch.zeros(0, dtype=torch.long))
    assert taken.shape == (0, 3)


def test_a_row_that_is_not_there_is_an_error():
    with pytest.raises(IndexError):
        DeviceRows(np.eye(3, dtype=np.float32), CPU).take(torch.tensor([3]))

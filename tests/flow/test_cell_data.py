from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from perturbflow.flow import CellData

X = np.arange(12.0).reshape(6, 2)
PERTURBATIONS = np.array([[0, 1, 0], [0, 0, 0], [0.5, 1, 0], [0, 1, 0], [0, 2, 0], [0, 0, 0]])
COVARIATES = np.array([[0, 1], [0, 1], [0, 1], [0, 1], [0, 1], [1, 0]])


def described(cells):
    return [(g.perturbation.tolist(), g.covariates.tolist(), g.rows.tolist()) for g in cells.groups()]


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array])
def test_groups_are_distinct_conditions(container):
    cells = CellData(container(X), container(PERTURBATIONS), COVARIATES)
    assert described(cells) == [
        ([0, 0, 0], [0, 1], [1]),
        ([0, 0, 0], [1, 0], [5]),
        ([0.5, 1, 0], [0, 1], [2]),
        ([0, 1, 0], [0, 1], [0, 3]),
        ([0, 2, 0], [0, 1], [4]),
    ]


def test_groups_partition_random_cells():
    rng = np.random.default_rng(0)
    perturbations = rng.integers(0, 3, (200, 4)) * rng.integers(0, 2, (200, 4))
    covariates = rng.integers(0, 3, (200, 2))
    groups = CellData(np.zeros((200, 1)), perturbations, covariates).groups()
    assert sorted(np.concatenate([g.rows for g in groups])) == list(range(200))
    assert len(groups) == len(np.unique(np.hstack([perturbations, covariates]), axis=0))
    for group in groups:
        assert (perturbations[group.rows] == group.perturbation).all()
        assert (covariates[group.rows] == group.covariates).all()
        assert (np.diff(group.rows) > 0).all()


def test_explicit_zeros_and_duplicates_are_one_condition():
    stored = sparse.csr_matrix(([0.0, 1.0, 0.5, 0.5], [0, 1, 1, 1], [0, 2, 4]), shape=(2, 2))
    cells = CellData(np.zeros((2, 1)), stored, np.zeros((2, 0), dtype=int))
    assert described(cells) == [([0, 1], [], [0, 1])]
    assert stored.nnz == 4  # the caller's matrix is left as it is


def test_only_controls_and_no_covariates():
    cells = CellData(X, np.zeros((6, 3)), np.zeros((6, 0), dtype=int))
    assert described(cells) == [([0, 0, 0], [], list(range(6)))]
    assert CellData(X[:0], PERTURBATIONS[:0], COVARIATES[:0]).groups() == []


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix])
def test_types_and_sizes(container):
    cells = CellData(container(X), PERTURBATIONS, COVARIATES.astype(np.int8))
    assert (len(cells), cells.n_genes) == (6, 2)
    assert [a.dtype.name for a in (cells.x, cells.perturbations, cells.covariates)] == ["float32", "float32", "int64"]
    assert cells.perturbations.format == "csr"


@pytest.mark.parametrize("rows", [np.array([4, 0]), np.arange(6) == 4], ids=["indices", "mask"])
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix])
def test_subset(container, rows):
    part = CellData(container(X), PERTURBATIONS, COVARIATES).subset(rows)
    x = part.x if isinstance(part.x, np.ndarray) else part.x.toarray()
    assert (x == X[rows]).all()
    assert (part.perturbations.toarray() == PERTURBATIONS[rows]).all()
    assert (part.covariates == COVARIATES[rows]).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        pytest.param({"x": X[0]}, r"`x` to have one row", id="x_1d"),
        pytest.param({"perturbations": PERTURBATIONS[:5]}, r"`perturbations` .* 6 cells, found shape \(5, 3\)", id="p"),
        pytest.param({"covariates": COVARIATES[:, 0]}, r"`covariates` .* 6 cells, found shape \(6,\)", id="covariates"),
        pytest.param({"perturbations": -PERTURBATIONS}, "doses in `perturbations` to be finite", id="negative"),
        pytest.param(
            {"perturbations": np.where(PERTURBATIONS == 1, np.nan, PERTURBATIONS)},
            "doses in `perturbations` to be finite",
            id="nan",
        ),
        pytest.param({"covariates": COVARIATES / 2}, "integer codes, found dtype float64", id="codes"),
    ],
)
def test_bad_arrays_are_refused(changed, message):
    arguments = {"x": X, "perturbations": PERTURBATIONS, "covariates": COVARIATES} | changed
    with pytest.raises(ValueError, match=message):
        CellData(**arguments)

"""Cells along time as one snapshot."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from perturbflow.trajectories import DynamicsFields
from perturbflow.trajectories._snapshot_fields import course_cells


def cells(n_control: int) -> AnnData:
    n = n_control + 20
    obs = pd.DataFrame({"time": np.arange(n) % 4.0, "held": ["control"] * n_control + ["B"] * 20}, index=range(n))
    obs.index = obs.index.astype(str)
    adata = AnnData(sparse.csr_matrix(np.random.default_rng(0).random((n, 3))), obs=obs)
    adata.var_names = list("ABC")
    return adata


def fields(**options) -> DynamicsFields:
    return DynamicsFields(time_key="time", regulators=("C", "A"), **options)


def test_every_perturbation_is_a_condition():
    found = course_cells(cells(30), fields(perturbation_key="held"))
    assert found.names == ("control", "B")
    assert found.n_cells.tolist() == [30, 20]
    assert found.held.tolist() == [[False] * 3, [False, True, False]]
    assert found.regulators == (0, 2)


def test_without_enough_unperturbed_cells_all_are_one_condition():
    for found in (course_cells(cells(5), fields(perturbation_key="held")), course_cells(cells(5), fields())):
        assert found.names == ("control",)
        assert found.n_cells.tolist() == [25]
        assert not found.held.any()

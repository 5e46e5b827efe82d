from __future__ import annotations

from typing import Any

import anndata
import numpy as np
import pytest
from scipy import sparse

import perturbflow as pf
from perturbflow.baselines import BASELINES
from perturbflow.baselines._control_shift import group_effects
from perturbflow.evaluation import fitted_baselines, registered_cells
from perturbflow.evaluation._predictors import sums_of
from perturbflow.flow import AdditiveHurdlePrior, GroupSums
from perturbflow.screen import Expression
from perturbflow.screen._fields import read_screen

N_CELLS, N_GENES = 9000, 12


@pytest.fixture
def large():
    """More cells than are read at once, a file of rows in random order; most of them train."""
    rng = np.random.default_rng(0)
    labels = rng.choice(["control", "A", "B", "C"], N_CELLS, p=[0.4, 0.3, 0.29, 0.01])
    x = sparse.csr_matrix(np.log1p(rng.poisson(0.7, (N_CELLS, N_GENES))).astype(np.float32))
    adata = anndata.AnnData(x)
    adata.obs["perturbation"] = labels
    adata.obs["split"] = np.where(labels == "C", "test", "train")
    pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    return adata


def test_every_baseline_is_that_of_the_cells(large):
    rows = np.flatnonzero(large.obs["split"] == "train")
    training: Any = registered_cells(large).subset(rows)
    found = fitted_baselines(list(BASELINES), sums_of(read_screen(large), rows))
    assert list(found) == list(BASELINES)
    asked = training.x[:30].toarray(), np.array([1, 1, 0], dtype=np.float32), np.zeros(0, dtype=int)
    for name, baseline in found.items():
        expected = BASELINES[name]().fit(training).sample(*asked, rng=np.random.default_rng(1))
        np.testing.assert_allclose(
            baseline.sample(*asked, rng=np.random.default_rng(1)), expected, rtol=1e-5, atol=1e-6
        )


def test_what_baselines_share_is_estimated_once(registered, monkeypatch):
    sums, calls = GroupSums.of(registered_cells(registered)), []

    def counted(name, function):
        def call(*args, **options):
            calls.append(name)
            return function(*args, **options)

        return call

    monkeypatch.setattr(AdditiveHurdlePrior, "fit", counted("prior", AdditiveHurdlePrior.fit))
    monkeypatch.setattr("perturbflow.evaluation._predictors.group_effects", counted("effects", group_effects))
    fitted_baselines(list(BASELINES), sums)
    assert sorted(calls) == ["effects", "prior"]


def test_the_floor_needs_no_cells(registered):
    screen = read_screen(registered)
    (floor,) = fitted_baselines(["control cells"], sums_of(screen, np.zeros(0, dtype=np.intp))).values()
    controls = np.ones((3, screen.n_genes), dtype=np.float32)
    doses = np.ones(screen.distinct.shape[1], dtype=np.float32)
    assert (floor.sample(controls, doses, np.array([0]), rng=np.random.default_rng(0)) == controls).all()
    with pytest.raises(ValueError, match="Expected `controls` to have shape"):
        floor.sample(controls[:, 1:], doses, np.array([0]), rng=np.random.default_rng(0))


def test_evaluate_reads_training_cells_of_a_file_once_and_a_chunk_at_a_time(large, tmp_path, monkeypatch):
    large.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    asked: list[np.ndarray] = []
    read = Expression._read

    def recorded(self, places):
        asked.append(places)
        return read(self, places)

    monkeypatch.setattr(Expression, "_read", recorded)
    options: dict[str, Any] = {
        **{"key": None, "splits": "test", "metrics": ["rmse_of_mean_effects"], "n_cells": 50, "n_permutations": 0},
        "progress_bar": False,
    }
    pf.tl.evaluate(backed, **options)
    monkeypatch.undo()
    assert max(map(len, asked)) <= 4096
    # Training cells once, for all baselines; then 50 controls and 50 cells of C that are compared.
    times = np.bincount(np.concatenate(asked), minlength=N_CELLS)
    is_training = (large.obs["split"] == "train").to_numpy()
    assert times.sum() == is_training.sum() + 100
    assert (times[is_training] >= 1).all()
    backed.file.close()
    pf.tl.evaluate(large, **options)
    assert np.allclose(backed.uns["evaluation"]["value"], large.uns["evaluation"]["value"], rtol=1e-5, equal_nan=True)

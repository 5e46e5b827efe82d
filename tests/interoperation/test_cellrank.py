"""Fates of CellRank become trajectories."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData

from perturbflow.pp import assign_lineages, bin_pseudotime, setup_dynamics

cellrank = pytest.importorskip("cellrank", reason="installed by `make interoperation`")

pytestmark = pytest.mark.filterwarnings("default:::(anndata|cellrank|numpy|scanpy|scipy|sklearn)")


@pytest.fixture(scope="module")
def branching() -> AnnData:
    """300 cells of 15 genes that go one way until time 0.4 and then one of two, with the fates of CellRank."""
    rng = np.random.default_rng(0)
    time, to_red = rng.random(300), rng.random(300) < 0.5
    trunk, red, white = rng.normal(size=(3, 15))
    late = np.clip(time - 0.4, 0, None)[:, None]
    x = 4 + np.outer(time, trunk) + 3 * late * np.where(to_red[:, None], red, white) + 0.1 * rng.normal(size=(300, 15))
    ends = np.where(time < 0.9, "on the way", np.where(to_red, "red", "white"))
    obs = pd.DataFrame(
        {"time": time, "to_red": to_red, "end": pd.Categorical(ends)}, index=[f"cell_{i}" for i in range(300)]
    )
    adata = AnnData(x.astype(np.float32), obs=obs)
    sc.pp.neighbors(adata, n_neighbors=15, use_rep="X")
    kernel = cellrank.kernels.PseudotimeKernel(adata, time_key="time").compute_transition_matrix(
        show_progress_bar=False
    )
    estimator = cellrank.estimators.GPCCA(kernel)
    estimator.set_terminal_states({end: list(adata.obs_names[ends == end]) for end in ("red", "white")})
    estimator.compute_fate_probabilities(solver="direct", use_petsc=False, show_progress_bar=False)
    return adata


def test_lineages_of_cellrank_share_the_trunk(branching):
    fates = branching.obsm["lineages_fwd"]
    cells = assign_lineages(branching, time_key="time")
    assert list(cells.obs["lineage"].cat.categories) == list(fates.names) == ["red", "white"]
    of_cell = cells.obs.groupby(cells.obs_names.str.rpartition("-").get_level_values(0))["lineage"]
    n_lineages = of_cell.nunique().reindex(branching.obs_names)
    time = branching.obs["time"]
    assert n_lineages[time < 0.3].mean() > 1.9
    assert n_lineages[time > 0.8].mean() < 1.1
    last = cells.obs[cells.obs["time"] > 0.8]
    assert ((last["lineage"] == "red") == last["to_red"]).mean() > 0.95


def test_lineages_of_cellrank_are_trajectories(branching):
    cells = assign_lineages(branching, time_key="time")
    bins = bin_pseudotime(cells, time_key="time", trajectory_key="lineage", n_bins=10)
    setup_dynamics(bins, time_key="time", trajectory_key="lineage")
    starts = bins.obs.groupby("lineage", observed=True)["time"].min()
    assert starts.max() < 0.1
    # The most likely lineage of every cell, one each, would not do: one lineage has hardly any of the trunk.
    fates = branching.obsm["lineages_fwd"]
    likely = np.asarray(fates.names)[np.asarray(fates.X).argmax(axis=1)]
    share = pd.Series(likely[(branching.obs["time"] < 0.2).to_numpy()]).value_counts(normalize=True)
    assert share.max() > 0.9

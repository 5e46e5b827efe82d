from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from perturbflow.pp import assign_lineages, bin_pseudotime, setup_dynamics


class Named(np.ndarray):
    """What CellRank writes: an array that knows the names of its columns."""

    names = np.array(["eryth", "mono"])


FATES = [[1.0, 0.0], [0.8, 0.2], [0.0, 1.0], [0.75, 0.25], [0.95, 0.05], [0.88, 0.12], [0.3, 0.7]]
TIME = [0.9, 0.0, 0.8, 0.1, 0.7, 0.2, 1.0]


@pytest.fixture
def adata():
    """A trunk of three cells, two cells of each lineage, in mixed order."""
    names = [f"cell_{i}" for i in range(len(FATES))]
    adata = AnnData(
        np.arange(14, dtype=np.float32).reshape(7, 2),
        obs=pd.DataFrame({"batch": pd.Categorical(list("abababa")), "dpt_pseudotime": TIME}, index=names),
        var=pd.DataFrame({"is_tf": [True, False]}, index=["g0", "g1"]),
    )
    adata.layers["counts"] = sparse.csr_matrix(adata.X)
    adata.varp["network"] = np.eye(2)
    adata.uns["neighbors"] = {"connectivities_key": "connectivities", "distances_key": "distances", "params": {}}
    adata.uns["title"] = {"name": "marrow"}
    adata.obsm["fates"] = pd.DataFrame(FATES, index=names, columns=["eryth", "mono"])
    adata.obsm["array"] = np.array(FATES)
    return adata


def members(cells: AnnData, key: str = "lineage") -> dict[str, list[str]]:
    return {
        name: [cell.rpartition("-")[0] for cell in rows]
        for name, rows in cells.obs.groupby(key, observed=True).groups.items()
    }


# At the start, in cell_1, probabilities are 0.8 and 0.2: at least 0.4 and 0.1 are asked for.
BOTH = {
    "eryth": ["cell_0", "cell_1", "cell_3", "cell_4", "cell_5"],
    "mono": ["cell_1", "cell_2", "cell_3", "cell_5", "cell_6"],
}


def test_the_trunk_is_in_every_lineage(adata, unchanged):
    with unchanged(adata):
        cells = assign_lineages(adata, "fates", time_key="dpt_pseudotime")
    assert members(cells) == BOTH
    assert list(cells.obs["lineage"].cat.categories) == ["eryth", "mono"]
    assert cells.obs_names.is_unique
    places = adata.obs_names.get_indexer([name.rpartition("-")[0] for name in cells.obs_names])
    np.testing.assert_array_equal(cells.X, adata.X[places])
    np.testing.assert_array_equal(cells.layers["counts"].toarray(), adata.X[places])
    assert cells.obs["batch"].tolist() == adata.obs["batch"].iloc[places].tolist()
    pd.testing.assert_frame_equal(cells.var, adata.var)
    assert set(cells.uns) == {"title"}
    cells.uns["title"]["name"] = "other"
    assert adata.uns["title"]["name"] == "marrow"


def test_shares_are_of_the_start(adata):
    found = members(assign_lineages(adata, "fates", time_key="dpt_pseudotime", min_share=1.0))
    assert found == {
        "eryth": ["cell_0", "cell_1", "cell_4", "cell_5"],
        "mono": ["cell_1", "cell_2", "cell_3", "cell_6"],
    }
    found = members(assign_lineages(adata, "fates", time_key="dpt_pseudotime", min_share=0.0))
    assert {name: len(rows) for name, rows in found.items()} == {"eryth": 6, "mono": 6}
    # From another start the same cells have not left another lineage.
    adata.obs.loc["cell_6", "dpt_pseudotime"] = -1.0
    found = members(assign_lineages(adata, "fates", time_key="dpt_pseudotime"))
    assert found == {"eryth": [name for name in adata.obs_names if name != "cell_2"], "mono": ["cell_2", "cell_6"]}


def screen(fates: np.ndarray, time: np.ndarray) -> AnnData:
    obs = pd.DataFrame({"time": time}, index=[str(i) for i in range(len(fates))])
    return AnnData(np.ones((len(fates), 1)), obs=obs, obsm={"fates": fates})


def test_a_rare_lineage_has_its_trunk_too():
    """Its probability is small in the trunk and never the largest there."""
    trunk = np.tile([0.9, 0.1], (20, 1))
    fates = np.concatenate([np.tile([1.0, 0.0], (10, 1)), trunk, np.tile([0.0, 1.0], (10, 1))])
    time = np.concatenate([np.ones(10), np.linspace(0, 0.5, 20), np.ones(10)])
    cells = assign_lineages(screen(fates, time), "fates", time_key="time", names=["common", "rare"])
    assert cells.obs["lineage"].value_counts().to_dict() == {"common": 30, "rare": 30}


def test_a_lineage_that_is_absent_at_the_start_has_no_members_by_rounding():
    fates = np.array([[1.0, 1e-12], [1.0, 1e-12], [0.0, 1.0], [1.0, 0.0]])
    cells = assign_lineages(screen(fates, np.arange(4.0)), "fates", time_key="time", names=["a", "b"])
    assert members(cells) == {"a": ["0", "1", "3"], "b": ["2"]}


@pytest.mark.parametrize("share", [0.01, 0.5, 1.0])
def test_every_cell_with_probabilities_is_in_a_lineage(share):
    rng = np.random.default_rng(0)
    adata = screen(rng.dirichlet([0.3, 1.0, 0.1], size=200), rng.random(200))
    cells = assign_lineages(adata, "fates", time_key="time", names=list("abc"), min_share=share)
    assert {name.rpartition("-")[0] for name in cells.obs_names} == set(adata.obs_names)


def test_cells_without_a_time_are_not_the_start(adata):
    adata.obs.loc[["cell_2", "cell_6"], "dpt_pseudotime"] = np.nan
    assert members(assign_lineages(adata, "fates", time_key="dpt_pseudotime")) == BOTH


def test_names_come_from_the_entry_or_are_given(adata):
    adata.obsm["named"] = adata.obsm["array"].view(Named)
    assert isinstance(adata.obsm["named"], Named)
    assert members(assign_lineages(adata, "named", time_key="dpt_pseudotime")) == BOTH
    given = assign_lineages(adata, "array", time_key="dpt_pseudotime", names=["red", "white"], key_added="branch")
    assert members(given, "branch") == {"red": BOTH["eryth"], "white": BOTH["mono"]}


def test_masks_and_missing_weights(adata, caplog):
    masks = adata.obsm["fates"] > 0.1
    masks.loc["cell_6", "eryth"] = False
    masks.iloc[4] = False
    adata.obsm["masks"] = masks
    found = members(assign_lineages(adata, "masks", time_key="dpt_pseudotime", min_share=1.0))
    assert found == {name: [cell for cell in cells if cell != "cell_4"] for name, cells in BOTH.items()}
    assert caplog.messages == ["Left out 1 of 7 cells, which belong to no lineage."]
    adata.obsm["weights"] = masks.where(masks).astype(float)
    assert members(assign_lineages(adata, "weights", time_key="dpt_pseudotime")) == found


def test_a_view_and_cells_without_expression(adata):
    part = assign_lineages(adata[:, ["g1"]], "fates", time_key="dpt_pseudotime")
    assert part.var_names.tolist() == ["g1"]
    del adata.X
    assert assign_lineages(adata, "fates", time_key="dpt_pseudotime").layers["counts"].shape == (10, 2)


def test_lineages_are_trajectories(adata, tmp_path):
    cells = assign_lineages(adata, "fates", time_key="dpt_pseudotime")
    cells.write_h5ad(tmp_path / "cells.h5ad")
    cells = anndata.read_h5ad(tmp_path / "cells.h5ad")
    bins = bin_pseudotime(cells, time_key="dpt_pseudotime", trajectory_key="lineage", n_bins=3)
    start = bins.obs.groupby("lineage", observed=True)["dpt_pseudotime"].min()
    assert start["eryth"] == start["mono"]
    setup_dynamics(bins, time_key="dpt_pseudotime", trajectory_key="lineage")


@pytest.mark.parametrize(
    ("key", "options", "error", "message"),
    [
        ("fate", {}, KeyError, r"Expected 'fate' in `adata.obsm`, found \['fates'.*'lineages_fwd' of CellRank"),
        ("array", {}, ValueError, r"Expected `names` for the columns of `adata.obsm\['array'\]`, found none"),
        ("array", {"names": ["a"]}, ValueError, r"Expected 2 names of lineages, .* found 1: \['a'\]"),
        ("array", {"names": ["a", "a"]}, ValueError, r"names of lineages to be unique, found repeated \['a'\]"),
        ("fates", {"time_key": "latent_time"}, KeyError, r"Expected 'latent_time' in `adata.obs`"),
        ("fates", {"min_share": 1.5}, ValueError, "`min_share` to be from 0 to 1, found 1.5"),
        ("fates", {"key_added": ""}, ValueError, "`key_added` to be a string of at least one character"),
        ("text", {}, TypeError, r"Expected a matrix of numbers in `adata.obsm\['text'\]`, found DataFrame"),
        ("sparse", {}, TypeError, "Expected a matrix of numbers"),
        ("negative", {}, ValueError, r"numbers of at least 0 in `adata.obsm\['negative'\]`, found \[.*-1.0"),
        ("infinite", {}, ValueError, "numbers of at least 0"),
        ("empty", {}, ValueError, r"cells of every lineage in `adata.obsm\['empty'\]`, found none of \['mono'\]"),
    ],
)
def test_wrong_arguments(adata, key, options, error, message):
    fates = adata.obsm["fates"]
    adata.obsm["text"] = fates.astype(str) + "?"
    adata.obsm["sparse"] = sparse.csr_matrix(fates.to_numpy())
    adata.obsm["negative"] = fates - 1.0
    adata.obsm["infinite"] = fates.replace(1.0, np.inf)
    adata.obsm["empty"] = fates.assign(mono=0.0)
    with pytest.raises(error, match=message):
        assign_lineages(adata, key, **({"time_key": "dpt_pseudotime"} | options))


def test_backed_cells(adata, tmp_path):
    adata.write_h5ad(tmp_path / "cells.h5ad")
    with pytest.raises(ValueError, match="in memory, found a backed one"):
        assign_lineages(anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r"), "fates", time_key="dpt_pseudotime")


def test_every_cell_of_the_first_time_is_of_the_start():
    fates = np.array([[0.9, 0.1]] * 10 + [[0.1, 0.9]] * 10 + [[0.3, 0.7]] * 20)
    time = np.repeat(["0", "0", "12"], [10, 10, 20])
    for order in (np.arange(40), np.arange(40)[::-1]):
        # The mean at the start is 0.5 of both: 0.3 is enough of it, and 0.1 is not.
        cells = assign_lineages(screen(fates[order], time[order]), "fates", time_key="time", names=["a", "b"])
        assert cells.obs["lineage"].value_counts().to_dict() == {"a": 30, "b": 30}


@pytest.mark.parametrize(("time", "found"), [(np.nan, "none in all 7 cells"), (3.0, "3 in all 7 cells")])
def test_times_that_say_no_start(adata, unchanged, time, found):
    adata.obs["dpt_pseudotime"] = time
    with unchanged(adata), pytest.raises(ValueError, match=rf"Expected times that differ in .*, found {found}"):
        assign_lineages(adata, "fates", time_key="dpt_pseudotime")


def test_a_lineage_without_any_time(adata, unchanged):
    adata.obs["dpt_pseudotime"] = [0.9, 0.0, np.nan, np.nan, 0.7, 0.2, np.nan]
    adata.obsm["fates"]["mono"] = [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    with (
        unchanged(adata),
        pytest.raises(ValueError, match=r"with a time .* in every lineage, found none in \['mono'\]"),
    ):
        assign_lineages(adata, "fates", time_key="dpt_pseudotime")


PATHS = {"red": ["stem", "ery"], "white": ["stem", "mye"]}


@pytest.fixture
def clustered(adata):
    adata.obs["cluster"] = ["ery", "stem", "mye", "stem", "ery", "stem", "mye"]
    return adata


def test_lineages_are_paths_through_clusters(clustered, unchanged):
    with unchanged(clustered):
        cells = assign_lineages(clustered, time_key="dpt_pseudotime", groupby="cluster", paths=PATHS)
    assert members(cells) == {
        "red": ["cell_0", "cell_1", "cell_3", "cell_4", "cell_5"],
        "white": ["cell_1", "cell_2", "cell_3", "cell_5", "cell_6"],
    }
    assert list(cells.obs["lineage"].cat.categories) == ["red", "white"]
    setup_dynamics(cells, time_key="dpt_pseudotime", trajectory_key="lineage")


def test_a_path_that_goes_back_in_time_is_named(clustered):
    with pytest.warns(UserWarning, match=r"'red', the median time of \['stem'\] is earlier than"):
        assign_lineages(clustered, time_key="dpt_pseudotime", groupby="cluster", paths={"red": ["ery", "stem"]})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"groupby": "cluster"}, ValueError, "`groupby` and `paths` together"),
        ({"paths": PATHS}, ValueError, "`groupby` and `paths` together"),
        ({"groupby": "cluster", "paths": PATHS, "names": ["a", "b"]}, ValueError, "without `names`"),
        ({"groupby": "clusters", "paths": PATHS}, KeyError, "clusters"),
        ({"groupby": "cluster", "paths": [["stem"]]}, TypeError, "by its name"),
        ({"groupby": "cluster", "paths": {"red": "stem"}}, TypeError, "a list of clusters"),
        ({"groupby": "cluster", "paths": {"red": []}}, TypeError, "a list of clusters"),
        ({"groupby": "cluster", "paths": {"red": ["stem", "eri"]}}, KeyError, "most similar to 'eri'"),
        ({"groupby": "cluster", "paths": {"red": ["stem", "stem"]}}, ValueError, "every cluster once"),
        ({"groupby": "cluster", "paths": {}}, ValueError, "at least one lineage"),
    ],
)
def test_wrong_paths_are_refused(clustered, options, error, message):
    with pytest.raises(error, match=message):
        assign_lineages(clustered, time_key="dpt_pseudotime", **options)

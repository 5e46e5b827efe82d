from __future__ import annotations

import logging
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import perturbflow as pf
from perturbflow.trajectories import read_dynamics_fields, trajectories_of

FORMATS = {
    "dense": np.asarray,
    "csr_matrix": sparse.csr_matrix,
    "csc_matrix": sparse.csc_matrix,
    "csr_array": sparse.csr_array,
    "csc_array": sparse.csc_array,
}
BY_LINEAGE: dict[str, Any] = {"time_key": "pseudotime", "trajectory_key": "lineage"}


def make(sizes=(13, 20), *, n_genes: int = 3, form=np.asarray, dtype=np.float32, seed: int = 0) -> AnnData:
    """Cells of one lineage each size, half of whose values are 0, in no order."""
    rng = np.random.default_rng(seed)
    lineage = np.repeat([f"lineage_{number}" for number in range(len(sizes))], sizes)
    time = rng.uniform(2, 5, size=len(lineage))
    x = rng.gamma(2.0, size=(len(lineage), n_genes)) * (rng.random((len(lineage), n_genes)) < 0.5)
    obs = pd.DataFrame({"pseudotime": time, "lineage": pd.Categorical(lineage)})
    obs.index = obs.index.map("cell_{}".format)
    return AnnData(form(x.astype(dtype)), obs=obs, var=pd.DataFrame(index=[f"gene{gene}" for gene in range(n_genes)]))


def dense(x) -> np.ndarray:
    return x.toarray() if sparse.issparse(x) else np.asarray(x)


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_means_and_standard_errors_of_every_format(form, dtype, unchanged):
    adata = make((12,), form=form, dtype=dtype)
    with unchanged(adata):
        binned = pf.pp.bin_pseudotime(adata, time_key="pseudotime", n_bins=4)
    groups = np.split(np.argsort(adata.obs["pseudotime"].to_numpy()), 4)
    cells = [dense(adata.X)[group].astype(float) for group in groups]
    assert binned.X.dtype == (np.float64 if dtype == np.float64 else np.float32)
    np.testing.assert_allclose(binned.X, [x.mean(axis=0) for x in cells], rtol=1e-6)
    error = [x.std(axis=0, ddof=1) / np.sqrt(3) for x in cells]
    np.testing.assert_allclose(binned.layers["standard_error"], error, rtol=1e-6)
    assert binned.obs_names.tolist() == ["all_0", "all_1", "all_2", "all_3"]
    assert list(binned.obs) == ["pseudotime", "n_cells", "lineage"]


def test_the_spread_of_a_constant_gene_is_zero():
    adata = make((30,), dtype=np.float64)
    adata.X[:, 0] = 1e6 + 1 / 3
    for form in FORMATS.values():
        adata.X = form(dense(adata.X))
        binned = pf.pp.bin_pseudotime(adata, time_key="pseudotime", n_bins=4)
        np.testing.assert_allclose(binned.layers["standard_error"][:, 0], 0, atol=1e-9)


def test_a_bin_of_one_cell_has_no_standard_error():
    binned = pf.pp.bin_pseudotime(make((4,)), time_key="pseudotime", n_bins=3)
    assert np.isnan(binned.layers["standard_error"]).all(axis=1).tolist() == (binned.obs["n_cells"] == 1).tolist()
    assert sorted(binned.obs["n_cells"]) == [1, 1, 2]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(8, 40), min_size=1, max_size=3),
    st.integers(3, 8),
    st.integers(0, 5),
    st.sampled_from(sorted(FORMATS)),
)
def test_bins_are_equal_and_keep_the_mean(sizes, n_bins, seed, form):
    adata = make(sizes, form=FORMATS[form], dtype=np.float64, seed=seed)
    binned = pf.pp.bin_pseudotime(adata, **BY_LINEAGE, n_bins=n_bins, scale_time=False)
    assert binned.n_obs == n_bins * len(sizes)
    for number, size in enumerate(sizes):
        name = f"lineage_{number}"
        rows, cells = (data.obs["lineage"].to_numpy() == name for data in (binned, adata))
        n_cells = binned.obs["n_cells"].to_numpy()[rows]
        assert n_cells.sum() == size
        assert np.ptp(n_cells) <= 1
        time = binned.obs["pseudotime"].to_numpy()[rows]
        assert (np.diff(time) > 0).all()
        assert np.average(time, weights=n_cells) == pytest.approx(adata.obs["pseudotime"].to_numpy()[cells].mean())
        mean = np.average(binned.X[rows], axis=0, weights=n_cells)
        np.testing.assert_allclose(mean, dense(adata.X)[cells].mean(axis=0), rtol=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from(sorted(FORMATS)))
def test_the_order_of_cells_does_not_matter(random, form):
    adata = make((14, 11), form=FORMATS[form])
    adata.obs["pseudotime"] = adata.obs["pseudotime"].round(1)  # with ties
    order = list(range(adata.n_obs))
    random.shuffle(order)
    before, after = (pf.pp.bin_pseudotime(data, **BY_LINEAGE, n_bins=4) for data in (adata, adata[order].copy()))
    pd.testing.assert_frame_equal(before.obs, after.obs)
    np.testing.assert_allclose(before.X, after.X, rtol=1e-6)
    np.testing.assert_allclose(before.layers["standard_error"], after.layers["standard_error"], rtol=1e-5)


def test_time_is_scaled_over_all_trajectories_together():
    adata = make((10, 10))
    late = (adata.obs["lineage"] == "lineage_1").to_numpy()
    adata.obs["pseudotime"] = np.where(late, np.linspace(10, 20, 20), np.linspace(10, 30, 20))
    scaled, given_time = (
        pf.pp.bin_pseudotime(adata, **BY_LINEAGE, n_bins=5, scale_time=scale) for scale in (True, False)
    )
    stored = scaled.uns["bin_pseudotime"]
    low, high = adata.obs["pseudotime"].min(), adata.obs["pseudotime"].max()
    assert stored == {
        "time_offset": low,
        "time_scale": pytest.approx(high - low),
        "n_bins": 5,
        "n_left_out": 0,
    }
    back = stored["time_offset"] + stored["time_scale"] * scaled.obs["pseudotime"]
    np.testing.assert_allclose(back, given_time.obs["pseudotime"])
    assert scaled.obs["pseudotime"].between(0, 1).all()
    assert given_time.uns["bin_pseudotime"] | {"n_bins": 0} == {
        "time_offset": 0,
        "time_scale": 1,
        "n_bins": 0,
        "n_left_out": 0,
    }


def test_bins_within_a_tie_have_exactly_the_same_time():
    adata = make((40,))
    time = np.concatenate([np.linspace(0, 0.05, 7), np.full(27, 0.1), np.linspace(1, 2, 6)])
    adata.obs["pseudotime"] = time
    binned = pf.pp.bin_pseudotime(adata, time_key="pseudotime", n_bins=6, scale_time=False)
    assert binned.obs["n_cells"].tolist() == [7, 7, 6, 7, 7, 6]
    assert binned.obs["pseudotime"].tolist()[1:5] == [0.1] * 4  # though the sum of six, over 6, is less
    pf.pp.setup_dynamics(binned, time_key="pseudotime")
    (one,) = trajectories_of(binned, read_dynamics_fields(binned))
    assert one.weight.tolist() == [1, 4, 1]


def test_perturbations_have_bins_of_their_own():
    adata = make((24, 12))
    adata.obs["perturbation"] = np.array(["control"] * 12 + ["gene1+gene0", "gene0+gene1"] * 6 + ["control"] * 12)
    binned = pf.pp.bin_pseudotime(adata, **BY_LINEAGE, perturbation_key="perturbation", n_bins=4)
    names = ["lineage_0|control", "lineage_1|control", "lineage_0|gene0+gene1"]
    assert binned.obs_names.tolist() == [f"{name}_{number}" for name in names for number in range(4)]
    assert binned.obs["n_cells"].tolist() == [3] * 12
    pf.pp.setup_dynamics(binned, **BY_LINEAGE, perturbation_key="perturbation")
    assert [one.name for one in trajectories_of(binned, read_dynamics_fields(binned))] == names


def test_several_controls_share_their_bins():
    adata = make((24,))
    one = pf.pp.bin_pseudotime(adata, **BY_LINEAGE, n_bins=4)
    adata.obs["perturbation"] = ["ntc", "Neg 1"] * 12
    several: dict[str, Any] = {"perturbation_key": "perturbation", "control": ["ntc", "Neg 1"]}
    binned = pf.pp.bin_pseudotime(adata, **BY_LINEAGE, **several, n_bins=4)
    assert binned.obs_names.tolist() == [f"lineage_0|ntc_{number}" for number in range(4)]
    np.testing.assert_array_equal(binned.X, one.X)
    pf.pp.setup_dynamics(binned, **BY_LINEAGE, **several)


def test_what_is_kept(tmp_path):
    adata = make((12, 12))
    adata.obs["cell_type"] = pd.Categorical(["T", "T", "NK"] * 8, categories=["NK", "T", "B"])
    adata.obs["seldom"] = pd.Categorical([None] * 23 + ["x"])
    adata.obs["barcode"] = adata.obs_names
    adata.obs["depth"] = 1.0
    adata.obs.loc[adata.obs["lineage"] == "lineage_1", "cell_type"] = "NK"
    adata.var["is_tf"] = [True, False, True]
    adata.varm["loadings"] = np.ones((3, 2))
    adata.varp["true_graph"] = sparse.eye(3, format="csr")
    adata.obsm["X_umap"] = np.zeros((24, 2))
    adata.uns["true_edges"] = pd.DataFrame({"source": ["gene0"]})
    adata.uns["neighbors"] = {"connectivities_key": "connectivities"}
    pf.pp.setup_dynamics(adata, **BY_LINEAGE)
    adata.layers["double"] = adata.X * 2
    binned = pf.pp.bin_pseudotime(adata, **BY_LINEAGE, n_bins=3, layer="double")
    assert list(binned.obs) == ["pseudotime", "lineage", "n_cells", "cell_type", "seldom"]
    most = binned.obs["cell_type"]
    assert most.cat.categories.tolist() == ["NK", "T", "B"]
    assert most.tolist()[3:] == ["NK"] * 3
    assert binned.obs["seldom"].isna().sum() == 5
    pd.testing.assert_frame_equal(binned.var, adata.var)
    assert set(binned.uns) == {"true_edges", "bin_pseudotime"}
    assert binned.uns["true_edges"] is not adata.uns["true_edges"]
    assert "loadings" in binned.varm
    assert binned.varp["true_graph"].nnz == 3
    assert [key for key in binned.layers if key is not None] == ["standard_error"]  # newer anndata lists X as None
    np.testing.assert_allclose(binned.X, 2 * pf.pp.bin_pseudotime(adata, **BY_LINEAGE, n_bins=3).X, rtol=1e-6)
    binned.write_h5ad(tmp_path / "bins.h5ad")
    np.testing.assert_array_equal(anndata.read_h5ad(tmp_path / "bins.h5ad").X, binned.X)


def test_the_most_frequent_category_of_a_bin():
    adata = make((12,))
    adata.obs["pseudotime"] = np.arange(12.0)
    adata.obs["cell_type"] = pd.Categorical([*"aab", "b", *"bbca", *"baab"], categories=["b", "a", "c"])
    binned = pf.pp.bin_pseudotime(adata, time_key="pseudotime", n_bins=3)
    assert binned.obs["cell_type"].tolist() == ["b", "b", "b"]  # the first of the categories at a draw
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.reorder_categories(["a", "b", "c"])
    binned = pf.pp.bin_pseudotime(adata, time_key="pseudotime", n_bins=3)
    assert binned.obs["cell_type"].tolist() == ["a", "b", "a"]


def test_cells_outside_all_trajectories(caplog, unchanged):
    adata = make((12, 12))
    adata.obs["lineage"] = adata.obs["lineage"].where(np.arange(24) % 6 != 0)
    adata.obs.loc[adata.obs_names[1:3], "pseudotime"] = np.nan
    kept = adata[[at for at in range(24) if at % 6 != 0 and at not in {1, 2}]].copy()
    with unchanged(adata), pytest.raises(ValueError, match="found it missing in 2 cells"):
        pf.pp.bin_pseudotime(adata, **BY_LINEAGE, n_bins=3)
    with unchanged(adata), caplog.at_level(logging.INFO, logger="perturbflow"):
        binned = pf.pp.bin_pseudotime(adata, **BY_LINEAGE, n_bins=3, drop_missing=True)
    assert "Left out 6 of 24 cells, which have no time or no trajectory." in caplog.messages
    assert binned.uns["bin_pseudotime"]["n_left_out"] == 6
    np.testing.assert_array_equal(binned.X, pf.pp.bin_pseudotime(kept, **BY_LINEAGE, n_bins=3).X)
    adata.obs["pseudotime"] = np.nan
    with pytest.raises(
        ValueError, match=r"cells with a time in `adata.obs\['pseudotime'\]` and a trajectory, found none"
    ):
        pf.pp.bin_pseudotime(adata, **BY_LINEAGE, n_bins=3, drop_missing=True)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"time_key": "time"}, KeyError, "'time' in `adata.obs`"),
        ({"trajectory_key": "lineages"}, KeyError, "'lineages' in `adata.obs`"),
        (
            {"n_bins": 14},
            ValueError,
            r"at least 14 distinct times .* for 1 of 2: \['lineage_0: 13 \(13 cells\)'\]. Lower `n_bins`",
        ),
        ({"n_bins": 2}, ValueError, "`n_bins` to be at least 3, found 2"),
        ({"n_bins": 5.0}, TypeError, "`n_bins` to be a whole number"),
        ({"scale_time": "yes"}, TypeError, "`scale_time` to be True or False"),
        ({"layer": "smooth"}, KeyError, "'smooth' in `adata.layers`"),
        ({"trajectory_key": "n_cells"}, ValueError, "columns other than 'n_cells', which this function adds"),
    ],
)
def test_wrong_arguments(unchanged, options, error, message):
    adata = make()
    adata.obs["n_cells"] = "1"
    with unchanged(adata), pytest.raises(error, match=message):
        pf.pp.bin_pseudotime(adata, **({**BY_LINEAGE, "n_bins": 5} | options))


def test_wrong_data(unchanged, tmp_path):
    adata = make()
    adata.obs["real"] = (np.arange(adata.n_obs) % 4).astype(str)
    with unchanged(adata), pytest.raises(ValueError, match="real time points need no bins: `pf.pp.setup_dynamics`"):
        pf.pp.bin_pseudotime(adata, time_key="real", n_bins=5)
    adata.X[0, 0] = np.nan
    with unchanged(adata), pytest.raises(ValueError, match="finite expression in `adata.X`, found 1 NaN"):
        pf.pp.bin_pseudotime(adata, **BY_LINEAGE, n_bins=5)
    adata.write_h5ad(tmp_path / "adata.h5ad")
    backed = anndata.read_h5ad(tmp_path / "adata.h5ad", backed="r")
    with pytest.raises(ValueError, match=r"Run `adata = adata.to_memory\(\)` first"):
        pf.pp.bin_pseudotime(backed, **BY_LINEAGE, n_bins=5)
    backed.file.close()

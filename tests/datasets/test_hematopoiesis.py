from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import perturbflow as pf


@pytest.fixture
def data(data_folder, monkeypatch):
    monkeypatch.setenv("PERTURBFLOW_DATA", str(data_folder))
    if not (data_folder / "hematopoiesis").is_dir():
        pytest.skip("no folder hematopoiesis among the data sets")
    return data_folder / "hematopoiesis"


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Two trajectories of three genes in the layout of the release."""
    monkeypatch.setenv("PERTURBFLOW_DATA", str(tmp_path))
    runs, networks = (tmp_path / "hematopoiesis" / name for name in ("trajectories", "TFs_Targets"))
    runs.mkdir(parents=True)
    networks.mkdir()
    for name, time in (("eryth_12", [0.5, 0.1, 0.3]), ("mono_24", [0.2, 0.0, 0.7])):
        table = pd.DataFrame({"dpt_pseudotime": time, "A": [5.0, 1.0, 3.0], "B": [0.0, 2.0, 0.0], "C": 0.0})
        table.to_csv(runs / f"{name}_norm.csv.gz", sep="\t", index=False)
    base = pd.DataFrame({"TF.human": ["A", "Z"], "B": [1.0, 1.0], "C": [0.0, 1.0], "Y": [1.0, 1.0], "A": [1.0, 0.0]})
    base.to_csv(networks / "tf_targets_baseGRN_human_matrix.csv.gz", index=False)
    for cell_type, tf in (("CD4+ T naive", "C"), ("NK", "Z")):
        table = pd.DataFrame({"tf.name": [tf, tf], "target.gene.name": ["A", "Y"], "score": 1, "k": "k"}, index=[4, 7])
        table.to_csv(networks / f"{cell_type}.csv.gz")
        base.to_csv(networks / f"{cell_type}_matrix.csv.gz", index=False)
    return tmp_path


def test_absent_file_says_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PERTURBFLOW_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="theislab/PathReg.*eryth_12_norm.csv.gz"):
        pf.datasets.hematopoiesis()


@pytest.mark.usefixtures("small")
def test_cells_are_sorted_and_labelled():
    adata = pf.datasets.hematopoiesis(lineages=["eryth"], donors=["s1d2", "s2d4"])  # eryth of s2d4 does not exist
    np.testing.assert_array_equal(adata.X.toarray(), [[1, 2, 0], [3, 0, 0], [5, 0, 0]])
    np.testing.assert_allclose(adata.layers["log1p"].toarray(), np.log1p(adata.X.toarray()))
    assert adata.obs["dpt_pseudotime"].tolist() == [0.1, 0.3, 0.5]
    for key, value in {"lineage": "eryth", "donor": "s1d2", "trajectory": "s1d2 eryth"}.items():
        assert adata.obs[key].cat.categories.tolist() == [value]
    assert adata.obs_names.is_unique
    mono = pf.datasets.hematopoiesis(lineages=["mono"], donors=["s2d4"])
    assert mono.obs["trajectory"].cat.categories.tolist() == ["s2d4 mono"]


@pytest.mark.usefixtures("small")
def test_networks_are_those_between_the_genes(tmp_path):
    adata = pf.datasets.hematopoiesis(lineages=["eryth"], donors=["s1d2"])
    base, by_type = adata.uns["base_network"], adata.uns["cell_type_networks"]
    assert set(zip(base["source"], base["target"], strict=True)) == {("A", "A"), ("A", "B")}
    assert by_type.to_numpy().tolist() == [["C", "A", "CD4+ T naive"]]
    assert adata.var["is_regulator"].tolist() == [True, False, False]
    adata.write_h5ad(tmp_path / "cells.h5ad")
    assert ad.read_h5ad(tmp_path / "cells.h5ad").uns["base_network"].equals(base)


def test_absent_networks(small):
    for path in small.glob("hematopoiesis/TFs_Targets/*"):
        if "base" not in path.name:
            path.unlink()
    with pytest.raises(FileNotFoundError, match="tables of cell types"):
        pf.datasets.hematopoiesis(lineages=["eryth"], donors=["s1d2"])


def test_release(data):
    adata = pf.datasets.hematopoiesis(lineages=["eryth", "B"], donors=["s1d2", "s2d4"])
    sizes = adata.obs["trajectory"].value_counts(sort=False).to_dict()
    assert sizes == {"s1d2 eryth": 310, "s1d2 B": 198, "s2d4 B": 1035}
    assert adata.n_vars == 529
    assert isinstance(adata.X, sparse.csr_matrix)
    assert adata.X.dtype == adata.layers["log1p"].dtype == np.float32
    assert adata.var["is_regulator"].sum() == 113
    assert len(adata.uns["base_network"]) == 22_689
    assert adata.uns["base_network"]["target"].nunique() == 365
    raw = pd.read_csv(data / "trajectories" / "B_24_norm.csv.gz", sep="\t").sort_values("dpt_pseudotime")
    cells = adata[adata.obs["trajectory"] == "s2d4 B"]
    np.testing.assert_allclose(cells.X.toarray(), raw[adata.var_names].to_numpy(), rtol=1e-6)
    np.testing.assert_array_equal(cells.obs["dpt_pseudotime"], raw["dpt_pseudotime"])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"lineages": ["T"]}, r"`lineages` to be one of \['B', 'eryth', 'mono'\], found 'T'"),
        ({"donors": ["12"]}, "`donors` to be one of .*, found '12'"),
        ({"donors": ["s1d2", "s1d2"]}, r"`donors` to be unique, found repeated \['s1d2'\]"),
        ({"donors": []}, "a released trajectory, found none"),
        ({"donors": ["s2d4"], "lineages": ["eryth"]}, "a released trajectory, found none"),
    ],
)
def test_bad_input(options, match):
    with pytest.raises(ValueError, match=match):
        pf.datasets.hematopoiesis(**options)

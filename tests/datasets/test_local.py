from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

import perturbflow as pf


@pytest.fixture
def data(data_folder, monkeypatch):
    monkeypatch.setenv("PERTURBFLOW_DATA", str(data_folder))


@pytest.mark.parametrize(
    ("read", "match"),
    [
        (pf.datasets.norman_mcfaline_subset, "altoslabs/perturbench.*devel.h5ad.*PERTURBFLOW_DATA"),
        (pf.datasets.kang_ifnb, "GSE96583.*ifnb1k.h5ad.*PERTURBFLOW_DATA"),
    ],
)
def test_absent_file_says_where_to_get_it(tmp_path, monkeypatch, read, match):
    monkeypatch.setenv("PERTURBFLOW_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=match):
        read()
    monkeypatch.delenv("PERTURBFLOW_DATA")
    (tmp_path / "checkout").mkdir()
    monkeypatch.chdir(tmp_path / "checkout")
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "shared" / "data")):
        read()


def test_unknown_part():
    with pytest.raises(ValueError, match=r"`part` to be None or one of \['mcfaline', 'norman'\], found 'dixit'"):
        pf.datasets.norman_mcfaline_subset("dixit")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("part", "n_cells", "types"),
    [(None, 5961, 4), ("norman", 3375, 1), ("mcfaline", 2586, 3)],
)
@pytest.mark.usefixtures("data")
def test_norman_mcfaline(part, n_cells, types):
    adata = pf.datasets.norman_mcfaline_subset(part)
    assert adata.shape == (n_cells, 500)
    assert isinstance(adata.X, sparse.csr_matrix)
    assert adata.X.dtype == np.float32
    assert {"perturbation", "cell_type", "perturbation_type", "dose"} <= set(adata.obs)
    assert len(adata.obs["cell_type"].cat.categories) == types
    assert (adata.obs["perturbation"] == "control").sum() == 100 * types
    assert not adata.is_view


@pytest.mark.usefixtures("data")
def test_parts_are_the_whole():
    whole = pf.datasets.norman_mcfaline_subset()
    parts = [pf.datasets.norman_mcfaline_subset(part) for part in ("norman", "mcfaline")]
    assert set(whole.obs_names) == set().union(*(part.obs_names for part in parts))
    for part in parts:
        np.testing.assert_array_equal(whole[part.obs_names].X.toarray(), part.X.toarray())


@pytest.mark.usefixtures("data")
def test_kang():
    adata = pf.datasets.kang_ifnb()
    assert adata.shape == (832, 2000)
    assert adata.obs["perturbation"].value_counts().to_dict() == {"IFN-beta": 441, "control": 391}
    assert adata.obs["cell_type"].nunique() == 6
    assert "condition" in adata.obs
    assert isinstance(adata.X, sparse.csr_matrix)
    assert adata.X.dtype == np.float32
    assert "ISG15" in adata.var_names
    counts = adata.layers["counts"].toarray()
    assert (counts == np.round(counts)).all()
    # Normalised over all genes before the choice of genes.
    expected = np.log1p(1e4 * counts / adata.obs["nCount_RNA"].to_numpy()[:, None])
    np.testing.assert_allclose(adata.X.toarray(), expected, rtol=1e-4)


@pytest.mark.usefixtures("data")
def test_kang_without_choice_of_genes():
    adata = pf.datasets.kang_ifnb(n_top_genes=None)
    assert adata.n_vars == 14053
    np.testing.assert_allclose(np.expm1(adata.X.toarray()).sum(axis=1), 1e4, rtol=1e-3)
    small = pf.datasets.kang_ifnb(n_top_genes=100)
    np.testing.assert_array_equal(small.X.toarray(), adata[:, small.var_names].X.toarray())


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize("n_top_genes", [0, -5, 14054])
def test_kang_bad_number_of_genes(n_top_genes):
    with pytest.raises(ValueError, match=f"`n_top_genes` to be None or from 1 to 14053, found {n_top_genes}"):
        pf.datasets.kang_ifnb(n_top_genes)


@pytest.mark.usefixtures("data")
def test_kang_round_trip(tmp_path):
    adata = pf.datasets.kang_ifnb(n_top_genes=50)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    read = ad.read_h5ad(tmp_path / "cells.h5ad")
    np.testing.assert_array_equal(read.X.toarray(), adata.X.toarray())
    assert list(read.obs["perturbation"]) == list(adata.obs["perturbation"])

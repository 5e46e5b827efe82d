"""Distances, labels of Mixscape and metadata of pertpy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData

from perturbflow import metrics
from perturbflow.pp import perturbation_features, setup_perturbation
from perturbflow.tl import predict_perturbation

pertpy = pytest.importorskip("pertpy", reason="installed by `make interoperation`")

# Others about themselves and their own dependencies.
pytestmark = pytest.mark.filterwarnings("default:::(anndata|pertpy|scanpy|sklearn)")


@pytest.fixture
def cells(fitted) -> AnnData:
    predicted: Any = predict_perturbation(fitted, ["A"], n_cells=30, as_anndata=True)
    observed = fitted[fitted.obs["perturbation"].isin(["control", "A"])]
    cells = anndata.concat({"observed": observed, "predicted": predicted}, label="origin", merge="same")
    cells.obs["group"] = (cells.obs["origin"].astype(str) + " " + cells.obs["perturbation"].astype(str)).astype(
        "category"
    )
    return cells


def in_groups(cells: AnnData, values) -> dict[str, np.ndarray]:
    return {
        name: np.asarray(values[(cells.obs["group"] == name).to_numpy()]) for name in cells.obs["group"].cat.categories
    }


@pytest.mark.parametrize("where", ["layer", "components"])
def test_the_energy_distance_is_that_of_pertpy_with_pairs_of_a_cell_with_itself(cells, where):
    if where == "components":
        sc.pp.pca(cells, n_comps=5)
        distance, values = pertpy.tl.Distance("edistance", obsm_key="X_pca"), cells.obsm["X_pca"]
    else:
        cells.layers["log1p"] = cells.X.toarray()
        distance, values = pertpy.tl.Distance("edistance", layer_key="log1p"), cells.layers["log1p"]
    found = distance.pairwise(cells, groupby="group")
    groups = in_groups(cells, values)
    assert len(groups) == 3
    for one, x in groups.items():
        for other, y in groups.items():
            if one == other:
                continue
            biased = metrics.energy_distance(x, y, unbiased=False)
            assert found.loc[one, other] == pytest.approx(biased, rel=1e-4)
            # The default leaves these pairs out: the two differ by the mean distances within, divided by the sizes.
            within = [
                2 * np.linalg.norm(z[:, None] - z, axis=-1).sum() / (2 * len(z) ** 2 * (len(z) - 1)) for z in (x, y)
            ]
            assert metrics.energy_distance(x, y) == pytest.approx(biased - sum(within), rel=1e-4, abs=1e-6)


def test_structures_that_pertpy_looks_up_are_features(monkeypatch):
    """PubChem is asked by pertpy; here a stand-in answers for it."""
    pytest.importorskip("rdkit", reason="installed with perturbflow[chemistry]")
    pubchempy = pytest.importorskip("pubchempy")
    known = {"aspirin": "CC(=O)OC1=CC=CC=C1C(=O)O", "caffeine": "CN1C=NC2=C1C(=O)N(C(=O)N2C)C", "ethanol": "CCO"}

    def get_compounds(name: str, kind: str) -> list[SimpleNamespace]:
        assert kind == "name"
        return [SimpleNamespace(synonyms=[name], cid=1, canonical_smiles=known[name])] if name in known else []

    monkeypatch.setattr(pubchempy, "get_compounds", get_compounds)
    labels = np.repeat(["control", *known], 5)
    obs = pd.DataFrame({"perturbation": pd.Categorical(labels)}, index=[f"cell_{i}" for i in range(20)])
    adata = AnnData(np.random.default_rng(0).random((20, 3), dtype=np.float32), obs=obs)
    pertpy.md.Compound().annotate_compounds(adata, query_id="perturbation")
    assert adata.obs["smiles"].nunique() == 3

    setup_perturbation(adata, perturbation_key="perturbation", control="control")
    perturbation_features(adata, "smiles", kind="smiles")
    assert set(known) <= set(adata.uns["perturbation_feature_table"].index)

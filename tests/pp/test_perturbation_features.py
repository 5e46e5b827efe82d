from __future__ import annotations

import sys
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist

import perturbflow as pf
from perturbflow.screen import read_fields
from perturbflow.screen._fields import read_feature_table

LABELS = [("control", "T"), ("A", "T"), ("B", "T"), ("C", "T"), ("A+B", "T")]
SMILES = {"A": "CCO", "B": "CCN", "C": "c1ccccc1", "D": "CCCO"}


def features_of(names, n_columns=3, *, seed=0):
    values = np.random.default_rng(seed).normal(size=(len(names), n_columns))
    return pd.DataFrame(values, index=list(names), columns=[f"dim/{i}" for i in range(n_columns)])


@pytest.fixture
def adata(make_adata):
    adata = make_adata(LABELS)
    pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    return adata


def register(adata, features, **options: Any) -> pd.DataFrame:
    assert pf.pp.perturbation_features(adata, features, **options) is None
    return adata.uns["perturbation_feature_table"]


def test_columns_of_a_table_are_standardised(adata):
    table = features_of("CBA")
    table["constant"], table["large"] = 7.0, 1e6 * table["dim/0"]
    found = register(adata, table)
    assert found.index.tolist() == ["A", "B", "C"]
    assert found.shape == (3, 2)  # 4 varying columns of 3 components: their scores, and 3 points lie in a plane
    np.testing.assert_allclose(found.mean(), 0, atol=1e-12)
    plain = table.loc[["A", "B", "C"]].drop(columns="constant")
    standardised = (plain - plain.mean()) / plain.std(ddof=0)
    np.testing.assert_allclose(pdist(found), pdist(standardised))


def test_few_columns_stay_as_they_are(adata):
    table = features_of("ABC", 2)
    np.testing.assert_allclose(register(adata, table), (table - table.mean()) / table.std(ddof=0))


def test_the_width_is_capped(adata):
    names = [*"ABC", *(f"new{i}" for i in range(30))]
    found = register(adata, features_of(names, 40), max_features=5)
    assert found.shape == (33, 5)
    variances = found.var()
    assert (np.diff(variances) < 0).all()  # the leading components


def test_components_without_cells_become_predictable(adata):
    before = adata.obsm["perturbation_doses"].toarray()
    register(adata, features_of(["A", "B", "BB", "C", "control"]))
    vocabulary = read_fields(adata).vocabulary
    assert vocabulary.components == ("A", "B", "BB", "C")
    assert vocabulary.encode_perturbations(["BB+A"]).toarray().tolist() == [[1, 0, 1, 0]]
    after = adata.obsm["perturbation_doses"].toarray()
    assert (after[:, 2] == 0).all()
    np.testing.assert_array_equal(after[:, [0, 1, 3]], before)
    features = read_feature_table(adata)
    assert features is not None
    assert features.shape == (4, 3)


def test_components_that_are_named(adata):
    register(adata, features_of(["A", "B", "C", "D", "E"]), components=["E"])
    assert read_fields(adata).vocabulary.components == ("A", "B", "C", "E")


def test_genes_have_the_vectors_of_their_names(make_adata):
    adata = make_adata([("control", "T"), ("gene_0", "T"), ("gene_2", "T"), ("gene_0+gene_2", "T")])
    pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    adata.varm["embedding"] = np.array([[1.0, 0], [9, 9], [3.0, 0], [5.0, 4]])
    found = register(adata, "embedding", kind="genes", components=["gene_3"])
    assert found.index.tolist() == ["gene_0", "gene_2", "gene_3"]
    proportion = pdist(found) / pdist(adata.varm["embedding"][[0, 2, 3]])
    np.testing.assert_allclose(proportion, proportion[0])  # scaled as a whole
    other = adata.copy()
    frame = pd.DataFrame(adata.varm["embedding"], index=adata.var_names)
    pd.testing.assert_frame_equal(register(other, frame, kind="genes"), found)
    adata.uns.pop("perturbation_feature_table")
    pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    assert register(adata, "embedding", kind="genes").index.tolist() == ["gene_0", "gene_2"]  # not every gene


def test_fingerprints_of_similar_molecules_are_similar(adata):
    pytest.importorskip("rdkit")
    found = register(adata, SMILES, kind="smiles")
    assert found.index.tolist() == ["A", "B", "C", "D"]
    distance = pd.DataFrame(
        np.linalg.norm(found.to_numpy()[:, None] - found.to_numpy()[None], axis=2), found.index, found.index
    )
    assert distance.loc["A", "D"] < distance.loc["A", "C"]
    other = adata.copy()
    pd.testing.assert_frame_equal(register(other, pd.Series(SMILES), kind="smiles"), found)


def test_repeated_smiles_are_refused(adata, unchanged):
    twice = pd.concat([pd.Series(SMILES), pd.Series({"A": "CCC"})])
    with unchanged(adata), pytest.raises(ValueError, match=r"names of `features` to be unique, found repeated \['A'\]"):
        pf.pp.perturbation_features(adata, twice, kind="smiles")


def test_smiles_of_cells(adata):
    pytest.importorskip("rdkit")
    labels = adata.obs["perturbation"].astype(str)
    adata.obs["smiles"] = labels.map(SMILES)  # none for controls and combinations
    found = register(adata, "smiles", kind="smiles")
    assert found.index.tolist() == ["A", "B", "C"]
    adata.obs.loc[adata.obs_names[labels == "A"][0], "smiles"] = "CCC"
    with pytest.raises(ValueError, match="one SMILES per perturbation .* found 'CCC' and 'CCO' for 'A'"):
        register(adata, "smiles", kind="smiles")


def test_wrong_smiles(adata, unchanged):
    pytest.importorskip("rdkit")
    with unchanged(adata), pytest.raises(ValueError, match=r"valid SMILES, found \['C1CC \(B\)', ' \(D\)'\]"):
        pf.pp.perturbation_features(adata, SMILES | {"B": "C1CC", "D": ""}, kind="smiles")


def test_smiles_need_rdkit(adata, unchanged, monkeypatch):
    monkeypatch.setitem(sys.modules, "rdkit", None)
    with unchanged(adata), pytest.raises(ImportError) as caught:
        pf.pp.perturbation_features(adata, SMILES, kind="smiles")
    assert "pip install 'perturbflow[chemistry]'" in caught.value.__notes__[0]


@pytest.fixture
def typed(make_adata):
    adata = make_adata([("control", "T"), ("A", "T"), ("B", "T"), ("A", "NK"), ("B", "NK")])
    adata.obs["type"] = np.where(adata.obs["cell_type"] == "T", "a", "i")
    pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control", perturbation_type_key="type")
    return adata


def test_types_share_nothing(typed):
    found = register(typed, features_of("AB"))
    assert found.index.tolist() == ["A:a", "A:i", "B:a", "B:i"]
    of_type_a, of_type_i = (found.loc[f"A:{kind}"] - found.loc[f"B:{kind}"] for kind in "ai")
    assert of_type_a @ of_type_i == pytest.approx(0, abs=1e-9)
    assert of_type_a @ of_type_a == pytest.approx(of_type_i @ of_type_i)


def test_features_with_types(typed):
    table = features_of(["A:a", "A:i", "B:a", "B:i", "C:a", "C"])
    found = register(typed, table)
    assert found.index.tolist() == ["A:a", "A:i", "B:a", "B:i", "C:a"]  # "C" has no type
    with pytest.raises(ValueError, match=r"each with its type as in 'MAPK1:CRISPRa', found \['C'\]"):
        pf.pp.perturbation_features(typed, table, components=["C"])


def test_missing_features(adata, unchanged):
    table = features_of("AC")
    with unchanged(adata), pytest.raises(ValueError, match=r"all 3 perturbation components, found none for \['B'\]"):
        pf.pp.perturbation_features(adata, table)
    found = register(adata, table, missing="mean")
    np.testing.assert_allclose(found.loc["B"], 0, atol=1e-12)
    with pytest.raises(ValueError, match=r"found none for \['A', 'B', 'C'\]"):
        pf.pp.perturbation_features(adata, features_of("XYZ"), components=[], missing="mean")


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_round_trip(adata, tmp_path, form):
    register(adata, features_of(["A", "B", "C", "D"]))
    path = tmp_path / f"cells.{form}"
    getattr(adata, f"write_{form}")(path)
    read = getattr(ad, f"read_{form}")(path)
    np.testing.assert_array_equal(read_feature_table(read), read_feature_table(adata))
    assert read_fields(read) == read_fields(adata)


def test_copy(adata, unchanged):
    with unchanged(adata):
        copied = pf.pp.perturbation_features(adata, features_of("ABCD"), copy=True)
    assert copied is not None
    assert len(copied.uns["perturbation_feature_table"]) == 4


def test_registration_again(adata):
    assert read_feature_table(adata) is None
    register(adata, features_of("ABCD"))
    pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    features = read_feature_table(adata)
    assert features is not None
    assert features.shape == (3, 3)  # those with cells, in their order
    adata.uns["perturbation_feature_table"] = adata.uns["perturbation_feature_table"].drop("B")
    with pytest.raises(ValueError, match=r"found none for \['B'\]. Run `pf.pp.perturbation_features"):
        read_feature_table(adata)


@pytest.mark.parametrize(
    ("features", "options", "error", "match"),
    [
        pytest.param([[1.0]], {}, TypeError, "`features` to be a DataFrame with one row per component", id="list"),
        pytest.param(3, {"kind": "genes"}, TypeError, "a key of `adata.varm` or a DataFrame", id="number"),
        pytest.param(3, {"kind": "smiles"}, TypeError, "a Series or dictionary of SMILES", id="no_smiles"),
        pytest.param("x", {"kind": "genes"}, KeyError, "'x' in `adata.varm`", id="varm"),
        pytest.param("x", {"kind": "smiles"}, KeyError, "'x' in `adata.obs`", id="obs"),
        pytest.param(features_of("ABC"), {"kind": "other"}, ValueError, "`kind` to be one of", id="kind"),
        pytest.param(features_of("ABC"), {"missing": "zero"}, ValueError, "`missing` to be one of", id="missing"),
        pytest.param(features_of("ABC"), {"max_features": 0}, ValueError, "at least 1, found 0", id="width"),
        pytest.param(features_of("ABC"), {"key_added": "a/b"}, ValueError, "`key_added` without '/'", id="key"),
        pytest.param(features_of("ABCA"), {}, ValueError, r"to be unique, found repeated \['A'\]", id="repeated"),
        pytest.param(features_of("ABC") * np.nan, {}, ValueError, r"finite features.* for \['A', 'B', 'C'\]", id="nan"),
        pytest.param(features_of("ABC") * 0 + 0.1, {}, ValueError, "found 3 constant columns for 3", id="constant"),
        pytest.param(features_of("ABC").astype(str), {}, ValueError, r"numbers in all columns.*'dim/0'", id="text"),
        pytest.param(features_of(["A", "B", "C", "A+D"]), {}, ValueError, r"without '\+', found \['A\+D'\]", id="pair"),
        pytest.param(features_of("ABC"), {"components": "D"}, TypeError, "a list of names", id="one_name"),
        pytest.param(features_of("ABC"), {"components": ["D/E"]}, ValueError, "components without '/'", id="slash"),
        pytest.param(features_of("ABC"), {"components": ["D"]}, ValueError, r"none for \['D'\]", id="no_features"),
    ],
)
def test_bad_input(adata, unchanged, features, options, error, match):
    with unchanged(adata), pytest.raises(error, match=match):
        pf.pp.perturbation_features(adata, features, **options)


def test_fields_come_first(make_adata):
    with pytest.raises(KeyError, match="Run `pf.pp.setup_perturbation"):
        pf.pp.perturbation_features(make_adata(), features_of("ABC"))


@pytest.mark.parametrize("name", ["nan", "A+", "Neg 1"])
def test_rows_that_name_no_perturbation_are_refused(make_adata, name):
    adata = make_adata([("control", "T"), ("Neg 1", "T"), ("A", "T"), ("B", "T")])
    pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control=["control", "Neg 1"])
    table = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0]}, index=["A", "B", "C", name])
    expected = r"names of single perturbations other than any of \['control', 'Neg 1'\] and without '\+', found"
    with pytest.raises(ValueError, match=expected):
        pf.pp.perturbation_features(adata, table, components=["C", name])

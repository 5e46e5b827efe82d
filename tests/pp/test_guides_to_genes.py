from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import perturbflow as pf


def cells(*guides) -> AnnData:
    return AnnData(obs=pd.DataFrame({"guide": list(guides)}, index=[f"cell{k}" for k in range(len(guides))]))


@pytest.mark.parametrize(
    ("guide", "gene"),
    [
        ("KLF1_g1", "KLF1"),
        ("KLF1_sg2", "KLF1"),
        ("KLF1-3", "KLF1"),
        ("KLF1.sgRNA10", "KLF1"),
        ("KLF1_guide_2", "KLF1"),
        ("KLF1", "KLF1"),
        ("HLA-A_1", "HLA-A"),
        ("NKX2-5_g1", "NKX2-5"),
        ("RP11-34P13.7_g2", "RP11-34P13.7"),
        ("SET_g2+KLF1_g1", "KLF1+SET"),
        ("KLF1_g1 + KLF1_g2", "KLF1"),
        ("ctrl_3+KLF1_g2", "KLF1"),
        ("ctrl_1+ctrl_2", "ctrl"),
        ("non-targeting_7", "ctrl"),
    ],
)
def test_genes_are_read_from_names(guide, gene):
    adata = cells("ctrl", guide)
    pf.pp.guides_to_genes(adata, "guide", control=["ctrl", "non-targeting"])
    assert adata.obs["perturbation"].tolist() == ["ctrl", gene]
    assert adata.obs["perturbation"].dtype == "category"


def test_a_mapping_says_what_names_do_not():
    adata = cells("sg0001", "sg0002", "sg0001+sg0002", "safe_1")
    pf.pp.guides_to_genes(
        adata, "guide", genes={"sg0001": "KLF1", "sg0002": "none"}, control=["none", "safe"], key_added="gene"
    )
    assert adata.obs["gene"].tolist() == ["KLF1", "none", "KLF1", "none"]


def test_a_gene_whose_name_ends_with_a_number_is_itself():
    adata = cells("ctrl", "NKX2-5", "NKX2-5_g1", "KLF1-2")
    adata = AnnData(np.ones((4, 2), dtype=np.float32), obs=adata.obs, var=pd.DataFrame(index=["NKX2-5", "KLF1"]))
    pf.pp.guides_to_genes(adata, "guide", control="ctrl")
    assert adata.obs["perturbation"].tolist() == ["ctrl", "NKX2-5", "NKX2-5", "KLF1"]


def test_another_separator_and_a_copy(unchanged):
    adata = cells("ctrl", "B_1|A_2")
    with unchanged(adata):
        found = pf.pp.guides_to_genes(adata, "guide", control="ctrl", separator="|", copy=True)
    assert found is not None
    assert found.obs["perturbation"].tolist() == ["ctrl", "A|B"]


def test_the_column_can_be_registered():
    adata = cells(*["ctrl_1", "A_g1", "A_g2+B_g1"] * 5)
    adata = AnnData(np.log1p(np.random.default_rng(0).random((15, 3), dtype=np.float32)), obs=adata.obs)
    pf.pp.guides_to_genes(adata, "guide", control="ctrl")
    pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="ctrl")
    assert adata.obsm["perturbation_doses"].toarray()[1:3].tolist() == [[1, 0], [1, 1]]


BAD = {
    "column": ({"guide_key": "guides"}, KeyError, r"Expected 'guides' in `adata.obs`, found \['guide'\]"),
    "key": (
        {"key_added": "guide"},
        ValueError,
        "Expected `key_added` to differ from `guide_key`, found 'guide' in both",
    ),
    "key_type": ({"key_added": 3}, TypeError, "Expected `key_added` to be a string"),
    "control": (
        {"control": "NegCtrl"},
        ValueError,
        r"guides named \['NegCtrl'\] .* found only .* Pass their names as",
    ),
    "genes": (
        {"genes": {"A_g2": "A"}},
        KeyError,
        r"gene of every guide in `genes`, found none for 'A_g1'. .* \['A_g2'\]",
    ),
    "genes_type": ({"genes": "A"}, TypeError, "Expected `genes` to be a dictionary of genes by guide"),
    "separator": ({"separator": ""}, ValueError, "Expected `separator` to be a string of at least one character"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_named_and_nothing_is_written(unchanged, arguments, error, message):
    adata = cells("ctrl", "A_g1")
    with unchanged(adata), pytest.raises(error, match=message):
        pf.pp.guides_to_genes(adata, **{"guide_key": "guide", "control": "ctrl"} | arguments)


def test_other_columns_are_not_replaced_but_the_same_one_is(unchanged):
    adata = cells("ctrl", "A_g1")
    adata.obs["batch"] = ["1", "2"]
    with (
        unchanged(adata),
        pytest.raises(ValueError, match=r"found other values in `adata.obs\['batch'\]`. Choose another"),
    ):
        pf.pp.guides_to_genes(adata, "guide", control="ctrl", key_added="batch")
    for _ in range(2):
        pf.pp.guides_to_genes(adata, "guide", control="ctrl")
    assert adata.obs["perturbation"].tolist() == ["ctrl", "A"]


@pytest.mark.parametrize("value", [None, np.nan, "", "nan"], ids=["none", "missing", "empty", "text"])
def test_cells_without_a_guide_are_counted(value):
    with pytest.raises(ValueError, match=r"guide for every cell in `adata.obs\['guide'\]`, found 1 of 3 cells without"):
        pf.pp.guides_to_genes(cells("ctrl", "A_g1", value), "guide", control="ctrl")

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest

import perturbflow as pf
from perturbflow.pp._check_labels import check_labels, check_values, control_labels, report_labels
from perturbflow.screen import read_fields


def said(caplog, *labels, control="control", separator="+") -> list[tuple[str, str]]:
    """Level and text of what is logged about labels."""
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="perturbflow"):
        style = {"controls": control_labels(control), "separator": separator}
        report_labels(check_labels(labels, **style, key="perturbation"), **style)
    return [(record.levelname, record.getMessage()) for record in caplog.records]


def test_combinations_are_said_once_with_examples(caplog):
    assert said(caplog, "control", "A", "B+control", "A+B") == [
        ("INFO", "1 of 4 labels were read as combinations, joined by '+': 'A+B' as ['A', 'B'].")
    ]
    assert said(caplog, "control", "A", "B") == []
    many = [f"{one}+{other}" for one in "ABC" for other in "DEF"]
    ((level, text),) = said(caplog, "control", *"ABCDEF", *many)
    assert level == "INFO"
    assert text.endswith("'A+D' as ['A', 'D'], 'A+E' as ['A', 'E'], 'A+F' as ['A', 'F'] and 6 more.")


@pytest.mark.parametrize(
    ("labels", "separator", "found"),
    [
        (["2i+LIF", "A", "B", "A+B"], "+", "['2i', 'LIF']: '2i+LIF' as ['2i', 'LIF']. If '+' is part"),
        (["CD3+CD28", "CD28"], "+", "['CD3']: 'CD3+CD28' as ['CD3', 'CD28']. If '+' is part"),
        (["KLF1+ctrl", "KLF1"], "+", "['ctrl']: 'KLF1+ctrl' as ['KLF1', 'ctrl']. If '+' is part"),
        (["IFN-beta", "A"], "-", "['IFN', 'beta']: 'IFN-beta' as ['IFN', 'beta']. If '-' is part"),
    ],
)
def test_components_that_are_never_alone_are_pointed_out(caplog, labels, separator, found):
    (level, text) = said(caplog, "control", *labels, separator=separator)[-1]
    assert level == "WARNING"
    assert text.startswith(
        f"Some labels were read as combinations with components that occur in no cell alone, {found}"
    )


def test_spaces_and_case_are_pointed_out(caplog):
    (spaces,) = said(caplog, "control ", " A", "A", "B", "control+B", control=" control")
    assert spaces == ("WARNING", "Spaces around labels are ignored: [' A', 'control '] are read without them.")
    (case,) = said(caplog, "control", "Control", "A")
    assert case[1].startswith("Names that differ only in case are treated as different: [('Control', 'control')]")


@pytest.mark.parametrize("text", ["nan", "NaN", "None", "NA", "<NA>", "NaT", "null"])
def test_texts_of_missing_values_are_no_perturbations(text):
    for label in (text, f"A+{text}", f" {text} "):
        with pytest.raises(
            ValueError, match=r"names of perturbations .*, which represent missing values. Fill"
        ) as error:
            check_labels(["control", "A", label], controls=("control",), separator="+", key="p")
        assert f"found {[label]}" in str(error.value)
    components = check_labels(["control", "A", f"A+{text}"], controls=("control", text), separator="+", key="p")
    assert components[f"A+{text}"] == ("A",)


def test_none_may_be_the_name_of_a_covariate():
    check_values(["none", "None", "IFN-γ", "stimulated"], key="stimulus")
    with pytest.raises(
        ValueError, match=r"every cell in `adata.obs\['stimulus'\]`, found \['', '<NA>', 'nan'\], which represent"
    ):
        check_values(["none", "nan", "<NA>", ""], key="stimulus")


def test_names_with_other_characters_are_kept():
    labels = ["contrôle", "IFN-γ", "β", "β+IFN-γ", "日本"]
    components = check_labels(labels, controls=("contrôle",), separator="+", key="p")
    assert components == {
        "contrôle": (),
        "IFN-γ": ("IFN-γ",),
        "β": ("β",),
        "β+IFN-γ": ("β", "IFN-γ"),
        "日本": ("日本",),
    }


@pytest.mark.parametrize("pair", [("5 \xb5M", "5 \u03bcM"), ("é", "e\u0301"), ("A B", "A\xa0B"), ("A B", "A  B")])
def test_names_that_look_the_same_are_refused(pair):
    with pytest.raises(ValueError, match="Expected names that can be distinguished") as error:
        check_labels(["control", *pair], controls=("control",), separator="+", key="p")
    assert all(ascii(name) in str(error.value) for name in pair)


@pytest.mark.parametrize(
    ("control", "labels"),
    [
        ("a", ("a",)),
        (["b", "a"], ("b", "a")),
        (("b", " a ", "b", "a"), ("b", "a")),
        pytest.param({"b", "a"}, ("a", "b"), id="set"),
        (pd.Index(["b", "a"]), ("b", "a")),
        (np.array(["b"]), ("b",)),
        (pd.Series(["b", "a"]).astype("category"), ("b", "a")),
    ],
    ids=repr,
)
def test_one_control_or_several(control, labels):
    assert control_labels(control) == labels


def test_hundreds_of_controls_are_found_quickly():
    controls = tuple(f"non_targeting_{number}" for number in range(600))
    labels = [*controls, *(f"GENE{number}_non_targeting_{number % 600}" for number in range(3000))]
    components = check_labels(labels, controls=controls, separator="_", key="p")
    assert components["GENE1777_non_targeting_577"] == ("GENE1777",)
    assert components["non_targeting_599"] == ()


@pytest.mark.parametrize("controls", [["control", "Neg 1"], ("Neg 1", "control")])
def test_several_controls_are_registered_as_one(make_adata, controls):
    conditions = [
        ("control", "T"),
        ("Neg 1", "NK"),
        ("A", "T"),
        ("A+Neg 1", "NK"),
        ("control+Neg 1", "NK"),
        ("B+A", "T"),
    ]
    adata = make_adata(conditions, n_cells=2)
    pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control=controls, covariate_keys="cell_type")
    fields = read_fields(adata)
    assert (fields.control, fields.controls, fields.vocabulary.components) == (controls[0], tuple(controls), ("A", "B"))
    assert adata.obsm["perturbation_doses"].toarray()[::2].tolist() == [[0, 0], [0, 0], [1, 0], [1, 0], [0, 0], [1, 1]]
    sizes = {
        (*group.perturbation.tolist(), *group.covariates.tolist()): len(group.rows)
        for group in pf.evaluation.registered_cells(adata).groups()
    }
    assert sizes == {(0, 0, 0): 4, (0, 0, 1): 2, (1, 0, 0): 2, (1, 0, 1): 2, (1, 1, 1): 2}


def test_other_controls_need_another_split(make_adata, tmp_path):
    adata = make_adata([("control", "T"), ("Neg", "T"), ("A", "T"), ("B", "T"), ("A+B", "T")])
    pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control=["control", "Neg"])
    pf.pp.split_perturbations(adata, task="combination", test_fraction=1, valid_fraction=0)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    again = pytest.importorskip("anndata").read_h5ad(tmp_path / "cells.h5ad")
    assert read_fields(again) == read_fields(adata)
    pf.pp.check_split(again)
    assert again.uns["split"]["held_out"]["perturbation"].tolist() == ["A+B"]
    pf.pp.setup_perturbation(again, perturbation_key="perturbation", control="control")
    with pytest.raises(ValueError, match="Expected a split for the registered fields"):
        pf.pp.check_split(again)

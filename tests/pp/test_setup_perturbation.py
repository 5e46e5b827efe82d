from __future__ import annotations

import logging
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import perturbflow as pf
from perturbflow.evaluation import registered_cells
from perturbflow.screen import read_fields

BASIC: dict[str, Any] = {"perturbation_key": "perturbation", "control": "control"}
FORMATS = {
    "dense": lambda x: x.toarray(),
    "csr_matrix": sparse.csr_matrix,
    "csc_matrix": sparse.csc_matrix,
    "csr_array": sparse.csr_array,
    "csc_array": sparse.csc_array,
}


def test_what_is_written(make_adata):
    adata = make_adata([("control", "T"), ("SET+KLF1", "T"), ("KLF1+SET", "T"), ("KLF1", "T")], n_cells=2)
    assert pf.pp.setup_perturbation(adata, **BASIC, covariate_keys=["cell_type"]) is None
    features = adata.obsm["perturbation_doses"]
    assert isinstance(features, sparse.csr_matrix)
    assert features.dtype == np.float32
    assert features.toarray().tolist() == [[0, 0]] * 2 + [[1, 1]] * 4 + [[1, 0]] * 2
    fields = read_fields(adata)
    assert fields.vocabulary.components == ("KLF1", "SET")
    assert fields.vocabulary.covariates == (("cell_type", ("T",)),)
    assert set(adata.uns["perturbation_fields"]) == {"perturbation_key", "covariate_keys", "vocabulary"}


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_expression_of_every_format_is_left_alone(make_adata, form, dtype):
    adata = make_adata()
    adata.X = form(adata.X.astype(dtype))
    before, kind = adata.X.copy(), type(adata.X)
    pf.pp.setup_perturbation(adata, **BASIC)
    assert type(adata.X) is kind
    assert adata.X.dtype == dtype
    difference = abs(adata.X - before)
    assert difference.max() == 0
    assert registered_cells(adata).x.dtype == np.float32


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_views_become_copies(make_adata, unchanged, form):
    adata = make_adata()
    adata.X = form(adata.X)
    view = adata[(adata.obs["cell_type"] == "T").to_numpy()]
    with unchanged(adata), pytest.warns(UserWarning, match="`adata` is a view .* it was copied") as caught:
        pf.pp.setup_perturbation(view, **BASIC, covariate_keys=["cell_type"])
    assert caught[0].filename == __file__
    assert not view.is_view
    assert read_fields(view).vocabulary.covariates == (("cell_type", ("T",)),)


def test_copy(make_adata, unchanged):
    adata = make_adata()
    with unchanged(adata):
        copied = pf.pp.setup_perturbation(adata, **BASIC, copy=True)
    assert copied is not None
    assert "perturbation_doses" in copied.obsm
    view = adata[3:]
    with unchanged(view):  # and no warning
        copied = pf.pp.setup_perturbation(view, **BASIC, copy=True)
    assert copied is not None
    assert not copied.is_view


def test_again_replaces(make_adata):
    adata, other = make_adata(), make_adata()
    pf.pp.setup_perturbation(adata, **BASIC, covariate_keys=["cell_type"])
    first = read_fields(adata)
    pf.pp.setup_perturbation(adata, **BASIC, covariate_keys=["cell_type"])
    assert read_fields(adata) == first
    adata.layers["log"] = adata.X.copy()
    other.layers["log"] = other.X.copy()
    for cells in (adata, other):
        pf.pp.setup_perturbation(cells, **BASIC, batch_key="cell_type", layer="log", separator=" ")
    assert read_fields(adata) == read_fields(other) != first
    assert adata.uns["perturbation_fields"] == other.uns["perturbation_fields"]
    assert adata.obsm["perturbation_doses"].shape == (48, 7)


def test_it_says_what_it_did(make_adata, caplog):
    with caplog.at_level(logging.INFO, logger="perturbflow"):
        pf.pp.setup_perturbation(make_adata(), **BASIC, covariate_keys=["cell_type"])
    assert "Registered 6 perturbation components and 1 covariates of 48 cells." in caplog.text


def test_one_covariate_by_name(make_adata):
    adata = make_adata()
    pf.pp.setup_perturbation(adata, **BASIC, covariate_keys="cell_type")
    assert read_fields(adata).covariate_keys == ("cell_type",)


def test_the_layer_is_what_is_checked(make_adata):
    adata = make_adata()
    adata.layers["log"] = adata.X.copy()
    adata.X = sparse.csr_matrix(np.ones(adata.shape))
    pf.pp.setup_perturbation(adata, **BASIC, layer="log")
    np.testing.assert_array_equal(sparse.csr_matrix(registered_cells(adata).x).toarray(), adata.layers["log"].toarray())


def test_unused_categories_are_fine(make_adata):
    adata = make_adata()
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.add_categories(["B"])
    adata.obs["perturbation"] = adata.obs["perturbation"].cat.add_categories(["X/Y", ""])
    adata = pf.pp.setup_perturbation(adata, **BASIC, covariate_keys=["cell_type"], copy=True)
    assert read_fields(adata).vocabulary.covariates == (("cell_type", ("NK", "T")),)


def test_doses(make_adata):
    adata = make_adata([("control", "T"), ("B+A", "T"), ("A", "T"), ("B", "T")], n_cells=1)
    adata.obs["dose"] = ["none", "1+0.5", "0", "1e-3"]
    pf.pp.setup_perturbation(adata, **BASIC, dose_key="dose")
    np.testing.assert_array_equal(
        adata.obsm["perturbation_doses"].toarray(), np.array([[0, 0], [0.5, 1], [0, 0], [0, 1e-3]], dtype=np.float32)
    )
    adata.obs["dose"] = [np.nan, 2.0, 1.0, 1.0]
    pf.pp.setup_perturbation(adata, **BASIC, dose_key="dose")
    assert adata.obsm["perturbation_doses"].toarray().tolist() == [[0, 0], [2, 2], [1, 0], [0, 1]]
    adata.obs["dose"] = adata.obs["dose"].astype("category").cat.add_categories([7.0])
    pf.pp.setup_perturbation(adata, **BASIC, dose_key="dose")
    assert adata.obsm["perturbation_doses"].toarray().tolist() == [[0, 0], [2, 2], [1, 0], [0, 1]]


@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_doses_in_lists(make_adata, kind):
    adata = make_adata([("control", "T"), ("B+A", "T"), ("A", "T"), ("B", "T")], n_cells=1)
    adata.obs["dose"] = pd.Series([kind([0.0]), kind([1.0, 0.5]), kind([3]), kind(["2"])], index=adata.obs_names)
    pf.pp.setup_perturbation(adata, **BASIC, dose_key="dose")
    assert adata.obsm["perturbation_doses"].toarray().tolist() == [[0, 0], [0.5, 1], [3, 0], [0, 2]]


def test_types(make_adata):
    adata = make_adata([("control", "T"), ("control", "NK"), ("A", "T"), ("A", "NK"), ("B+A", "T")], n_cells=1)
    adata.obs["type"] = [None, "i", "a", "i", "a"]
    pf.pp.setup_perturbation(adata, **BASIC, perturbation_type_key="type")
    assert read_fields(adata).vocabulary.components == ("A:a", "A:i", "B:a")
    assert adata.obsm["perturbation_doses"].toarray().tolist() == [
        [0, 0, 0],
        [0, 0, 0],
        [1, 0, 0],
        [0, 1, 0],
        [1, 0, 1],
    ]


def with_obs(**columns):
    def change(adata):
        for name, values in columns.items():
            adata.obs[name] = values(adata) if callable(values) else values

    return change


def relabel(old, new):
    def change(adata):
        adata.obs["perturbation"] = adata.obs["perturbation"].cat.rename_categories({old: new})

    return change


def on_x(change_values):
    def change(adata):
        adata.X = change_values(adata.X)

    return change


def gap(column):
    def change(adata):
        adata.obs.loc["cell_7", column] = None

    return change


def repeat_gene(adata):
    adata.var_names = ["gene_0", "gene_0", "gene_2", "gene_3"]


def repeat_column(adata):
    adata.obs = pd.concat([adata.obs, adata.obs[["cell_type"]]], axis=1)


def dose(text):
    return with_obs(dose=lambda adata: [text if label == "A" else "1" for label in adata.obs["perturbation"]])


def kind(text):
    return with_obs(kind=lambda adata: [text if label == "A" else "i" for label in adata.obs["perturbation"]])


def nothing(adata):
    pass


BAD: dict[str, tuple] = {
    # the expression
    "counts": (on_x(lambda x: x.ceil()), {}, ValueError, r"in `adata.X`, found raw counts .* Run `sc.pp.normalize_total\(adata, target_sum=1e4\)` and `sc.pp.log1p\(adata\)` first"),
    "unlogged": (on_x(lambda x: x * 1e3), {}, ValueError, "values up to .*, which do not seem to be logged. Run `sc.pp.log1p"),
    "negative": (on_x(lambda x: -x), {}, ValueError, "found negative values down to -"),
    "nan": (on_x(lambda x: x * np.nan), {}, ValueError, "found NaN or infinite values"),
    "infinite": (on_x(lambda x: x * np.inf), {}, ValueError, "found NaN or infinite values"),
    "all_zero": (on_x(lambda x: x * 0), {}, ValueError, "found only zeros"),
    "text": (on_x(lambda x: x.toarray() > 0), {}, TypeError, "matrix of numbers in memory, found ndarray of bool"),
    "layer_counts": (lambda adata: adata.layers.update(c=adata.X.ceil()), {"layer": "c"}, ValueError, r"in `adata.layers\['c'\]`, found raw counts .*layer='c'"),
    "layer_missing": (nothing, {"layer": "c"}, KeyError, "Expected 'c' in `adata.layers`, found"),
    "repeated_gene": (repeat_gene, {}, ValueError, r"gene names in `adata.var_names` to be unique, found repeated \['gene_0'\]. Run `adata.var_names_make_unique"),
    # the labels
    "other_control": (nothing, {"control": "Contrl"}, ValueError, r"control cells labelled 'Contrl' in `adata.obs\['perturbation'\]`, found the labels \['control', "),
    "no_perturbed": (with_obs(perturbation="control"), {}, ValueError, "Expected perturbed cells .* found only control cells"),
    "label_missing": (gap("perturbation"), {}, ValueError, r"Expected a value for every cell in `adata.obs\['perturbation'\]`, found none in 1 cells: \['cell_7'\]"),
    "label_empty": (relabel("A", " "), {}, ValueError, r"to be non-empty strings, found \[' '\]"),
    "label_number_advice": (with_obs(perturbation=lambda adata: pd.Categorical(np.arange(adata.n_obs) % 3)), {}, ValueError, r"found \[0, 1, 2\]. .* If numbers are names, run `adata.obs\['perturbation'\] = adata.obs\['perturbation'\].astype\(str\)`"),
    "label_number": (with_obs(perturbation=lambda adata: np.arange(adata.n_obs) % 3), {}, ValueError, r"to be non-empty strings, found \[0, 1, 2\]"),
    "label_repeats": (relabel("A+B", "B+B"), {}, ValueError, r"every component once in a perturbation, found 'B\+B'"),
    "label_nan": (relabel("A", "nan"), {}, ValueError, r"names of perturbations in `adata.obs\['perturbation'\]`, found \['nan'\], which represent missing values"),
    "label_part_nan": (relabel("A+B", "A+None"), {}, ValueError, r"found \['A\+None'\], which represent missing values"),
    "label_empty_part": (relabel("A+B", "A+"), {}, ValueError, r"in `adata.obs\['perturbation'\]`, with closed brackets, found 'A\+' as \['A', ''\]. .* choose a `separator` .* '\|'; otherwise"),
    "label_brackets": (relabel("A+B", "x (A+B)"), {}, ValueError, r"found 'x \(A\+B\)' as \['x \(A', 'B\)'\]. If"),
    "label_separator": (relabel("A+B", "+"), {}, ValueError, r"found '\+' as \['', ''\]"),
    "label_becomes_control": (with_obs(perturbation=lambda adata: ["x_y", *["y_x"] * (adata.n_obs - 1)]), {"separator": "_", "control": "x_y"}, ValueError, "found 'y_x', which in alphabetical order is 'x_y', a control label"),
    "label_twins": (relabel("A+B", "A\u200b"), {}, ValueError, r"Expected names that can be distinguished in `adata.obs\['perturbation'\]`, found \[\('A', 'A\\u200b'\)\]"),
    "label_slash": (relabel("A+B", "A/B"), {}, ValueError, r"labels of perturbations without '/', .* found \['A/B'\]. Rename them"),
    "separator_slash": (nothing, {"separator": "/"}, ValueError, r"labels of perturbations without '/'.* found \['/'\]"),
    "separator_empty": (nothing, {"separator": ""}, ValueError, "Expected `separator` to be a string of at least one character"),
    # the context
    "covariate_missing": (gap("cell_type"), {"covariate_keys": ["cell_type"]}, ValueError, r"in `adata.obs\['cell_type'\]`, found none in 1 cells"),
    "covariate_float": (with_obs(age=0.5), {"covariate_keys": ["age"]}, ValueError, r"found floating-point numbers. .*astype\(str\)"),
    "covariate_nan": (with_obs(donor=lambda adata: np.resize(["1", "nan"], adata.n_obs)), {"covariate_keys": ["donor"]}, ValueError, r"a value for every cell in `adata.obs\['donor'\]`, found \['nan'\], which represent missing"),
    "batch_empty": (with_obs(plate=lambda adata: np.resize(["p1", " "], adata.n_obs)), {"batch_key": "plate"}, ValueError, r"a value for every cell in `adata.obs\['plate'\]`, found \[' '\]"),
    "covariate_space": (with_obs(donor=lambda adata: np.resize(["1", "1 "], adata.n_obs)), {"covariate_keys": ["donor"]}, ValueError, r"can be distinguished in `adata.obs\['donor'\]`, found \[\('1', '1 '\)\]"),
    "perturbation_reserved": (with_obs(source="A"), {"perturbation_key": "source"}, ValueError, r"other than \['source', 'source_cell'\], which are added to predicted cells, found \['source'\]"),
    "dose_reserved": (with_obs(source_cell=1), {"dose_key": "source_cell"}, ValueError, r"which are added to predicted cells, found \['source_cell'\]"),
    "covariate_reserved": (with_obs(split="a"), {"covariate_keys": ["split"]}, ValueError, r"names of covariates other than .* found \['split'\]. Rename"),
    "covariate_dose": (with_obs(dose="1", amount=1), {"covariate_keys": ["dose"], "dose_key": "amount"}, ValueError, r"found \['dose'\]"),
    "no_control_in_context": (with_obs(cell_type=lambda adata: ["B", *["B" if label == "A" else "T" for label in adata.obs["perturbation"][1:]]]), {"covariate_keys": ["donor", "cell_type"]}, ValueError, r"control cells in every context, found none among the cells of \[{'donor': '2', 'cell_type': 'B'}\]. Remove"),
    "no_control_in_batch": (nothing, {"batch_key": "plate"}, ValueError, r"found none among the cells of \[{'plate': 'p2'}\]"),
    # columns
    "column": (nothing, {"perturbation_key": "Perturbation"}, KeyError, r"Expected 'Perturbation' in `adata.obs`, found \['perturbation', "),
    "covariate": (nothing, {"covariate_keys": ["celltype"]}, KeyError, r"Expected 'celltype' in `adata.obs`, found \['cell_type', "),
    "dose_column": (nothing, {"dose_key": "doses"}, KeyError, "Expected 'doses' in `adata.obs`"),
    "batch_column": (nothing, {"batch_key": "batches"}, KeyError, "Expected 'batches' in `adata.obs`"),
    "type_column": (nothing, {"perturbation_type_key": "types"}, KeyError, "Expected 'types' in `adata.obs`"),
    "used_twice": (nothing, {"covariate_keys": ["cell_type"], "batch_key": "cell_type"}, ValueError, r"columns of `adata.obs` to be unique, found repeated \['cell_type'\]"),
    "listed_twice": (nothing, {"covariate_keys": ["cell_type", "cell_type"]}, ValueError, r"found repeated \['cell_type'\]. Use each column for one purpose only"),
    "column_twice": (repeat_column, {"covariate_keys": ["cell_type"]}, ValueError, r"columns of `adata.obs` to be unique, found repeated \['cell_type'\]"),
    "column_slash": (with_obs(**{"cell/type": "a"}), {"covariate_keys": ["cell/type"]}, ValueError, r"column names in `adata.obs` without '/'"),
    # doses
    "dose_text": (dose("high"), {"dose_key": "dose"}, ValueError, "Expected a dose to be a finite number of at least 0 .* found 'high'"),
    "dose_negative": (dose("-1"), {"dose_key": "dose"}, ValueError, "found '-1'"),
    "dose_nan": (dose(np.nan), {"dose_key": "dose"}, ValueError, r"dose of every perturbed cell in `adata.obs\['dose'\]`, found none in 6 cells: \['cell_6', 'cell_7', 'cell_8'\] and 3 more"),
    "dose_none": (dose(None), {"dose_key": "dose"}, ValueError, "Expected the dose of every perturbed cell"),
    "dose_unit": (dose("10 uM"), {"dose_key": "dose"}, ValueError, r"found '10 uM'. Use numbers without units.* `adata.obs\['dose'\]` of 6 cells: \['cell_6', "),
    "dose_list": (dose([1, 2]), {"dose_key": "dose"}, ValueError, r"one for each of 1 components, found 2 in dose \(1, 2\) of 'A'"),
    "dose_mapping": (dose({"A": 1}), {"dose_key": "dose"}, ValueError, "Expected a dose to be a finite number"),
    "dose_infinite": (dose("inf"), {"dose_key": "dose"}, ValueError, "found 'inf'"),
    "dose_count": (dose("1+1"), {"dose_key": "dose"}, ValueError, r"one for each of 1 components, found 2 in dose '1\+1' of 'A'"),
    "dose_zero": (with_obs(dose=lambda adata: [0 if "E" in label else 1 for label in adata.obs["perturbation"]]), {"dose_key": "dose"}, ValueError, r"a dose above 0 for every perturbation in at least one cell, found only 0 for \['E', 'F'\]"),
    # types
    "type_missing": (kind(None), {"perturbation_type_key": "kind"}, ValueError, r"type of the perturbation of every perturbed cell in `adata.obs\['kind'\]`, found none in 6 cells: \['cell_6', 'cell_7', 'cell_8'\] and 3 more"),
    "type_mark": (kind("a:b"), {"perturbation_type_key": "kind"}, ValueError, "perturbations and types without ':'"),
    "type_list": (kind(["a"]), {"perturbation_type_key": "kind"}, TypeError, r"one string per cell in `adata.obs\['kind'\]`, found \['list'\]. Join"),
    "type_slash": (kind("a/b"), {"perturbation_type_key": "kind"}, ValueError, r"types of perturbations without '/'"),
    "type_count": (kind("a+i"), {"perturbation_type_key": "kind"}, ValueError, r"found 2 in type 'a\+i' of 'A'"),
    # arguments
    "key_type": (nothing, {"perturbation_key": 1}, TypeError, "Expected `perturbation_key` to be a string, found 1"),
    "control_empty": (nothing, {"control": []}, ValueError, "at least one label of control cells in `control`, found none"),
    "control_blank": (nothing, {"control": ["control", " "]}, ValueError, "Expected `control` to be a string of at least one"),
    "control_separator": (nothing, {"control": "+"}, ValueError, r"`separator` to differ from the labels of control cells, found '\+'"),
    "control_absent": (nothing, {"control": ["control", "contro"]}, ValueError, r"control cells labelled 'contro' in .* found the labels \['control', "),
    "control_mapping": (nothing, {"control": {"control": 1}}, TypeError, "Expected `control` to be a string, found {'control': 1}"),
    "controls_type": (nothing, {"control": ["control", 1]}, TypeError, "Expected `control` to be a string, found 1 of type int"),
    "type_nan": (kind("nan"), {"perturbation_type_key": "kind"}, ValueError, r"names of types in `adata.obs\['kind'\]`, found \['nan'\], which represent missing values"),
    "control_type": (nothing, {"control": None}, TypeError, "Expected `control` to be a string, found None"),
    "covariates_type": (nothing, {"covariate_keys": 3}, TypeError, "Expected `covariate_keys` to be a list of column names"),
    "covariates_content": (nothing, {"covariate_keys": [3]}, TypeError, "Expected `covariate_keys` to be a string, found 3"),
    "layer_type": (nothing, {"layer": 3}, TypeError, "Expected `layer` to be a string"),
    "dose_type": (nothing, {"dose_key": ["dose"]}, TypeError, "Expected `dose_key` to be a string"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
@pytest.mark.parametrize(("change", "arguments", "error", "message"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("copy", [False, True])
def test_bad_input_is_named_and_nothing_is_written(make_adata, unchanged, change, arguments, error, message, copy):
    adata = make_adata()
    adata.obs["donor"] = ["1"] + ["2"] * (adata.n_obs - 1)
    adata.obs["plate"] = pd.Categorical(np.where(np.arange(adata.n_obs) < 30, "p1", "p2"))
    pf.pp.setup_perturbation(adata, **BASIC)  # an earlier registration stays, too
    change(adata)
    with unchanged(adata), pytest.raises(error, match=message):
        pf.pp.setup_perturbation(adata, **{**BASIC, **arguments}, copy=copy)


@pytest.mark.parametrize(("rows", "columns"), [(slice(0), slice(None)), (slice(None), slice(0))])
def test_empty_data_are_refused(make_adata, rows, columns):
    with pytest.raises(ValueError, match="at least one cell and one gene in `adata.X`"):
        pf.pp.setup_perturbation(make_adata()[rows, columns].copy(), **BASIC)


def test_a_view_with_bad_input_stays_a_view(make_adata, unchanged):
    view = make_adata()[3:]
    with unchanged(view), pytest.raises(ValueError, match="control cells labelled 'ctrl'"):
        pf.pp.setup_perturbation(view, perturbation_key="perturbation", control="ctrl")


def test_other_objects_are_refused(make_adata):
    with pytest.raises(TypeError, match="Expected `adata` to be an AnnData, found"):
        pf.pp.setup_perturbation(make_adata().obs, **BASIC)


COLUMNS: dict[str, Any] = {"covariate_keys": ["cell_type"], "dose_key": "dose"}


@pytest.mark.parametrize("stored_elsewhere", ["CSC", "backed", "lazy h5ad", "lazy zarr", "dask"], indirect=True)
def test_cells_stored_elsewhere_are_registered_as_those_in_memory(stored_elsewhere):
    adata = pf.datasets.simulated_perturb_seq(n_cells=400, n_genes=30, n_perturbations=3, n_combinations=1)
    adata.obs["dose"] = 2.0
    elsewhere = stored_elsewhere(adata)
    pf.pp.setup_perturbation(adata, **BASIC, **COLUMNS)
    pf.pp.setup_perturbation(elsewhere, **BASIC, **COLUMNS)
    pf.pp.setup_perturbation(elsewhere, **BASIC, **COLUMNS)  # an earlier registration is replaced
    assert read_fields(elsewhere) == read_fields(adata)
    np.testing.assert_array_equal(
        elsewhere.obsm["perturbation_doses"].toarray(), adata.obsm["perturbation_doses"].toarray()
    )


@pytest.mark.parametrize("stored_elsewhere", ["backed", "lazy h5ad", "dask"], indirect=True)
def test_counts_stored_elsewhere_are_refused(stored_elsewhere):
    adata = pf.datasets.simulated_perturb_seq(n_cells=400, n_genes=30, n_perturbations=3, n_combinations=1)
    counts = adata.copy()
    counts.X = np.rint(np.expm1(adata.X.toarray()))
    with pytest.raises(ValueError, match=r"Expected log1p-normalised expression in `adata.X`, found raw counts"):
        pf.pp.setup_perturbation(stored_elsewhere(counts), **BASIC)
    mixed = adata.copy()
    mixed.X = np.vstack([counts.X[:100], adata.X.toarray()[100:]])
    with pytest.raises(ValueError, match=r"found raw counts .* in 100 of 400 cells"):
        pf.pp.setup_perturbation(stored_elsewhere(mixed), **BASIC)


def test_a_backed_screen_is_not_copied(make_adata, tmp_path):
    make_adata().write_h5ad(tmp_path / "adata.h5ad")
    backed = anndata.read_h5ad(tmp_path / "adata.h5ad", backed="r")
    with pytest.raises(ValueError, match=r"in memory for `copy=True`, .* Run `adata = adata.to_memory\(\)` first"):
        pf.pp.setup_perturbation(backed, **BASIC, copy=True)
    with pytest.raises(ValueError, match=r"or a whole one, found a view of one that is backed by a file"):
        pf.pp.setup_perturbation(backed[:], **BASIC)
    assert "perturbation_fields" not in backed.uns
    backed.file.close()


def test_a_backed_screen_stored_by_genes_is_refused(make_adata, tmp_path):
    adata = make_adata()
    adata.X = sparse.csc_matrix(adata.X)
    adata.write_h5ad(tmp_path / "adata.h5ad")
    backed = anndata.read_h5ad(tmp_path / "adata.h5ad", backed="r")
    with pytest.raises(TypeError, match=r"`adata.X` stored by cells, found a CSC matrix in a file") as raised:
        pf.pp.setup_perturbation(backed, **BASIC)
    # What it says is done as it says.
    path = tmp_path / "again.h5ad"
    names = {"adata": backed, "path": path}
    exec(str(raised.value).split("Convert it once: `")[1].rstrip("`."), names)
    backed.file.close()
    again = anndata.read_h5ad(path, backed="r")
    pf.pp.setup_perturbation(again, **BASIC)
    again.file.close()


@settings(max_examples=25, deadline=None)
@given(st.permutations(["SET", "KLF1", "A"]), st.permutations(["SET", "KLF1", "A"]))
def test_the_order_of_components_does_not_matter(one, other):
    cells = [
        anndata.AnnData(
            np.full((2, 1), 0.5), obs=pd.DataFrame({"perturbation": ["control", "+".join(order)]}, index=["a", "b"])
        )
        for order in (one, other)
    ]
    for adata in cells:
        pf.pp.setup_perturbation(adata, **BASIC)
    np.testing.assert_array_equal(
        cells[0].obsm["perturbation_doses"].toarray(), cells[1].obsm["perturbation_doses"].toarray()
    )
    assert read_fields(cells[0]) == read_fields(cells[1])


def test_simulated_cells_with_doses():
    adata = pf.datasets.simulated_perturb_seq(
        n_cells=800, n_genes=40, n_perturbations=3, n_combinations=2, doses=(0.5, 1)
    )
    pf.pp.setup_perturbation(adata, **BASIC, covariate_keys=["cell_type"], dose_key="dose")
    groups = list(registered_cells(adata).groups())
    assert len(groups) == adata.obs["condition"].nunique() == 2 * (1 + 3 * 2 + 2 * 4)
    assert all(adata.obs["condition"].iloc[group.rows].nunique() == 1 for group in groups)


def test_norman_and_mcfaline(data_folder, monkeypatch):
    monkeypatch.setenv("PERTURBFLOW_DATA", str(data_folder))
    adata = pf.datasets.norman_mcfaline_subset()
    columns: dict[str, Any] = {
        "covariate_keys": ["cell_type"],
        "dose_key": "dose",
        "perturbation_type_key": "perturbation_type",
    }
    pf.pp.setup_perturbation(adata, **BASIC, **columns)
    components = read_fields(adata).vocabulary.components
    assert {"SGK1:CRISPRa", "SGK1:CRISPRi"} <= set(components)
    groups = list(registered_cells(adata).groups())
    assert len(groups) == adata.obs["condition_cell_type"].nunique() == 64
    assert sum(not group.perturbation.any() for group in groups) == 4
    pair = np.isin(components, ["KLF1:CRISPRa", "SET:CRISPRa"])
    assert sum((group.perturbation == pair).all() for group in groups) == 1  # both at dose 1


def test_kang(data_folder, monkeypatch):
    monkeypatch.setenv("PERTURBFLOW_DATA", str(data_folder))
    adata = pf.datasets.kang_ifnb(n_top_genes=None)
    with pytest.raises(ValueError, match=r"`adata.layers\['counts'\]`, found raw counts"):
        pf.pp.setup_perturbation(adata, **BASIC, layer="counts")
    pf.pp.setup_perturbation(adata, **BASIC, covariate_keys=["cell_type"])
    assert len(list(registered_cells(adata).groups())) == 12

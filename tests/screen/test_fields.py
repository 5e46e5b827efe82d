from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from perturbflow.screen import PerturbationFields, read_fields
from perturbflow.screen._conditions import Vocabulary
from perturbflow.screen._fields import expression, read_cells, text_column, writable, write_fields
from perturbflow.screen._splits import check_no_leakage, condition_frame, read_split, split_identity

LABELS = ["A+B", "control", "B+A", "B", "control", "A"]
CELL_TYPES = ["T", "T", "T", "NK", "NK", "T"]
BATCHES = ["2", "1", "1", "1", "1", "1"]
X = np.arange(18, dtype=np.float32).reshape(6, 3) / 7


def make(container=sparse.csr_matrix) -> AnnData:
    obs = pd.DataFrame(
        {"perturbation": LABELS, "cell_type": CELL_TYPES, "batch": BATCHES}, index=[f"cell_{i}" for i in range(6)]
    )
    adata = AnnData(container(X), obs=obs.astype("category"), var=pd.DataFrame(index=["g0", "g1", "g2"]))
    vocabulary = Vocabulary.from_labels(
        LABELS, control="control", separator="+", covariates={"cell_type": CELL_TYPES, "batch": BATCHES}
    )
    fields = PerturbationFields("perturbation", vocabulary, covariate_keys=("cell_type",), batch_key="batch")
    write_fields(adata, fields)
    return adata


def with_split(adata: AnnData, *, task="combination", held_out=(("A+B", "T", "test"),)) -> AnnData:
    table = pd.DataFrame(list(held_out), columns=["perturbation", "cell_type", "split"])
    conditions, codes = condition_frame(adata, with_batch=False)
    split = conditions.merge(table, how="left")["split"].fillna("train").to_numpy()[codes]
    adata.obs["split"] = pd.Categorical(split, categories=["train", "valid", "test"])
    adata.uns["split"] = {"task": task, "fields": split_identity(read_fields(adata)), "held_out": table}
    return adata


def test_fields_round_trip_in_memory():
    adata = make()
    fields = read_fields(adata)
    assert fields.covariate_keys == ("cell_type",)
    assert fields.context_keys == ("cell_type", "batch")
    assert (fields.control, fields.separator) == ("control", "+")
    assert (fields.dose_key, fields.layer, fields.perturbation_type_key) == (None, None, None)
    write_fields(adata, fields)
    assert read_fields(adata) == fields
    assert adata.obsm["perturbation_doses"].toarray().tolist() == [[1, 1], [0, 0], [1, 1], [0, 1], [0, 0], [1, 0]]


@pytest.mark.parametrize("covariate_keys", [(), ("cell_type",)])
@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_fields_survive_files(tmp_path, form, covariate_keys):
    adata = make()
    vocabulary = Vocabulary.from_labels(
        LABELS, control="control", separator="+", covariates=dict.fromkeys(covariate_keys, CELL_TYPES)
    )
    fields = PerturbationFields("perturbation", vocabulary, covariate_keys=covariate_keys)
    write_fields(adata, fields)
    getattr(adata, f"write_{form}")(tmp_path / "adata")
    again = getattr(anndata, f"read_{form}")(tmp_path / "adata")
    assert read_fields(again) == fields
    np.testing.assert_array_equal(read_cells(again).perturbations.toarray(), read_cells(adata).perturbations.toarray())
    np.testing.assert_array_equal(
        again.obsm["perturbation_doses"].toarray(), adata.obsm["perturbation_doses"].toarray()
    )


def test_missing_fields_say_what_to_run():
    with pytest.raises(
        KeyError, match=r"Expected 'perturbation_fields' in `adata.uns`, .* Run `pf.pp.setup_perturbation"
    ):
        read_fields(AnnData(X))


@pytest.mark.parametrize(
    "container", [np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array, sparse.csc_array]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cells_of_every_format(container, dtype):
    adata = make()
    adata.X = container(X.astype(dtype))
    stored = type(adata.X)
    cells = read_cells(adata)
    assert cells.x.dtype == np.float32
    assert isinstance(cells.x, np.ndarray | sparse.csr_matrix)
    np.testing.assert_allclose(cells.x if isinstance(cells.x, np.ndarray) else cells.x.toarray(), X, rtol=1e-6)
    assert cells.perturbations.toarray().tolist() == [[1, 1], [0, 0], [1, 1], [0, 1], [0, 0], [1, 0]]
    assert cells.covariates.tolist() == [[1, 1], [1, 0], [1, 0], [0, 0], [0, 0], [1, 0]]
    assert type(adata.X) is stored
    assert adata.X.dtype == dtype


def test_some_cells_and_genes_in_another_order():
    cells = read_cells(make(), genes=["g2", "g0"], rows=np.array([5, 1]))
    np.testing.assert_array_equal(sparse.csr_matrix(cells.x).toarray(), X[[5, 1]][:, [2, 0]])
    assert cells.perturbations.toarray().tolist() == [[1, 0], [0, 0]]
    mask = read_cells(make(np.asarray), genes=["g0", "g1", "g2"], rows=np.arange(6) == 3)
    np.testing.assert_array_equal(mask.x, X[[3]])
    assert mask.covariates.tolist() == [[0, 0]]


def test_missing_genes_are_counted_and_named():
    genes = ["g0", *(f"h{number:02}" for number in range(12))]
    with pytest.raises(ValueError, match=r"Expected 13 genes .* 12 are missing: \['h00', .*'h09'\] and 2 more"):
        read_cells(make(), genes=genes)


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_repeated_genes_cannot_be_aligned():
    adata = make()
    adata.var_names = ["g0", "g0", "g2"]
    with pytest.raises(ValueError, match=r"`adata.var_names` to be unique, found repeated \['g0'\]"):
        read_cells(adata, genes=["g0"])


def test_cells_without_registration():
    fields = read_fields(make())
    adata = make()[[1, 4]].copy()
    del adata.uns["perturbation_fields"]
    assert read_cells(adata, fields=fields).perturbations.shape == (2, 2)


def test_another_vocabulary_numbers_differently():
    other = Vocabulary.from_labels(
        ["A", "A0", "B"], control="control", separator="+", covariates={"cell_type": ["B", "NK", "T"]}
    )
    cells = read_cells(make(), vocabulary=other)
    assert cells.perturbations.toarray()[0].tolist() == [1, 0, 1]
    assert cells.covariates[:, 0].tolist() == [2, 2, 2, 1, 1, 2]


def test_expression_is_that_of_the_layer():
    adata = make()
    adata.layers["log"] = X + 1
    np.testing.assert_array_equal(expression(adata, "log"), X + 1)
    with pytest.raises(KeyError, match="Expected 'logs' in `adata.layers`, found \\['log'"):
        expression(adata, "logs")
    with pytest.raises(ValueError, match="Expected expression in `adata.X`, found none. Pass a `layer`"):
        expression(AnnData(obs=adata.obs), None)


def test_columns_as_text():
    adata = make()
    adata.obs["number"] = [3, 1, 1, 1, 1, 1]
    adata.obs["truth"] = np.arange(6) > 2
    adata.obs["gap"] = ["a", None, "a", "a", "a", "a"]
    adata.obs["float"] = np.arange(6) / 2
    assert text_column(adata, "number").tolist() == ["3", "1", "1", "1", "1", "1"]
    assert text_column(adata, "truth").tolist() == ["False"] * 3 + ["True"] * 3
    assert text_column(adata, "gap", missing="?").tolist() == ["a", "?", "a", "a", "a", "a"]
    with pytest.raises(ValueError, match=r"in `adata.obs\['gap'\]`, found none in 1 cells: \['cell_1'\]"):
        text_column(adata, "gap")
    with pytest.raises(ValueError, match=r"categories in `adata.obs\['float'\]`, found floating-point numbers"):
        text_column(adata, "float")
    with pytest.raises(KeyError, match="Expected 'other' in `adata.obs`"):
        text_column(adata, "other")


def test_conditions():
    table, codes = condition_frame(make())
    assert table.columns.tolist() == ["perturbation", "cell_type", "batch", "is_control", "n_cells"]
    assert table.to_numpy().tolist() == [
        ["control", "NK", "1", True, 1],
        ["control", "T", "1", True, 1],
        ["A", "T", "1", False, 1],
        ["A+B", "T", "1", False, 1],
        ["A+B", "T", "2", False, 1],
        ["B", "NK", "1", False, 1],
    ]
    assert codes.tolist() == [4, 1, 3, 5, 0, 2]


def test_conditions_do_not_depend_on_the_order_of_cells():
    adata = make()
    order = np.random.default_rng(0).permutation(6)
    (table, codes), (shuffled, shuffled_codes) = (
        condition_frame(cells, with_batch=False) for cells in (adata, adata[order].copy())
    )
    pd.testing.assert_frame_equal(table, shuffled)
    assert table["n_cells"].tolist() == [1, 1, 1, 2, 1]
    np.testing.assert_array_equal(codes[order], shuffled_codes)


def test_conditions_with_doses():
    adata = make()
    adata.obs["dose"] = ["1+2", "x", "2.0+1", "0", "", "0.5"]
    fields = read_fields(adata)
    dosed = PerturbationFields("perturbation", fields.vocabulary, dose_key="dose")
    table, codes = condition_frame(adata, fields=dosed)
    assert table.to_numpy().tolist() == [
        ["control", "0", True, 3],  # "B" of dose 0 is a control cell
        ["A", "0.5", False, 1],
        ["A+B", "1+2", False, 2],
    ]
    assert codes.tolist() == [2, 0, 2, 0, 0, 1]


def test_one_dose_written_in_several_ways_is_one_condition():
    adata = make()
    adata.obs["perturbation"] = "A"
    adata.obs["dose"] = pd.Series([100, "100", " 1e2", [100.0], 100.0, (1,)], index=adata.obs_names, dtype=object)
    fields = PerturbationFields("perturbation", read_fields(adata).vocabulary, dose_key="dose")
    table, _ = condition_frame(adata, fields=fields)
    assert table[["perturbation", "dose", "n_cells"]].to_numpy().tolist() == [["A", "1", 1], ["A", "100", 5]]


def test_a_view_becomes_a_copy_with_a_warning():
    adata = make()
    view = adata[:4]
    with pytest.warns(UserWarning, match="`adata` is a view of another AnnData: it was copied") as caught:
        assert writable(view, copy=False) is view
    assert len(caught) == 1
    assert not view.is_view
    view.obs["new"] = 1
    assert "new" not in adata.obs
    assert writable(adata, copy=False) is adata
    copied = writable(adata[:4], copy=True)
    assert not copied.is_view


def test_split_is_read_and_checked():
    adata = make()
    with pytest.raises(
        KeyError, match=r"Expected 'fold' in `adata.obs`, .*split_perturbations\(adata, ..., key_added='fold'"
    ):
        read_split(adata, "fold")
    adata.obs["split"] = ["train", "train", "fold 2", "test", "test", "valid"]
    with pytest.raises(
        ValueError, match=r"Expected 'train', 'valid' or 'test' in `adata.obs\['split'\]`, found \['fold 2'\]"
    ):
        read_split(adata)
    adata.obs["split"] = ["train", "train", "valid", "test", "test", "valid"]
    assert read_split(adata).tolist() == ["train", "train", "valid", "test", "test", "valid"]
    check_no_leakage(adata)  # the user's own, without a list


def test_other_names_of_splits_are_understood_and_said(unchanged, caplog):
    adata = make()
    adata.obs["split"] = pd.Categorical(
        ["Training", "train", "val", "OOD", "test", "held-out"],
        categories=["unused", "Training", "train", "val", "OOD", "test", "held-out"],
    )
    with unchanged(adata):
        split = check_no_leakage(adata)
    assert split.tolist() == ["train", "train", "valid", "test", "test", "test"]
    assert caplog.messages == [
        "The names in `adata.obs['split']` are read as {'OOD': 'test', 'Training': 'train', "
        "'held-out': 'test', 'val': 'valid'}; the column is unchanged."
    ]


@pytest.mark.parametrize(
    ("values", "found", "pairs"),
    [
        ([0, 1, 0, 1, 0, 2], "['0', '1', '2']", "{0: ..., 1: ..., 2: ...}"),
        ([True, False] * 3, "['False', 'True']", "{False: ..., True: ...}"),
        (["train", "a", "b"] * 2, "['a', 'b']", "{'a': ..., 'b': ..., 'train': ...}"),
    ],
)
def test_unknown_splits_say_how_to_name_them(values, found, pairs):
    adata = make()
    adata.obs["fold"] = values
    with pytest.raises(ValueError, match="Expected 'train', 'valid' or 'test'") as error:
        read_split(adata, "fold")
    column = "adata.obs['fold']"
    assert f"in `{column}`, found {found}. Rename them" in str(error.value)
    assert f"with `{column} = {column}.map({pairs})`" in str(error.value)
    assert "split_perturbations" not in str(error.value)


def test_a_split_needs_a_value_in_every_cell():
    adata = make()
    adata.obs["split"] = ["train", None, "test", "test", "test", "test"]
    with pytest.raises(
        ValueError, match=r"Expected a value for every cell in `adata.obs\['split'\]`, found none in 1 cells"
    ):
        read_split(adata)


def test_no_leakage_passes():
    check_no_leakage(with_split(make()))
    own = [("A+B", "T", "valid"), ("B", "NK", "test")]
    check_no_leakage(with_split(make(), task="covariate_transfer", held_out=own))


@pytest.mark.parametrize("cell", ["cell_0", "cell_2"])
@pytest.mark.parametrize("split", ["train", "valid"])
def test_leakage_is_found_in_any_order_of_the_components(cell, split):
    adata = with_split(make())
    adata.obs.loc[cell, "split"] = split
    with pytest.raises(
        ValueError, match=rf"held-out conditions in training, found 1 cells of \['A\+B'\] in \['{split}'\]"
    ):
        check_no_leakage(adata)


def test_validation_cells_may_be_tested_but_not_trained_on():
    adata = with_split(make(), held_out=[("A+B", "T", "valid")])
    adata.obs.loc["cell_0", "split"] = "test"
    check_no_leakage(adata)
    adata.obs.loc["cell_0", "split"] = "train"
    with pytest.raises(ValueError, match="no cells of held-out conditions"):
        check_no_leakage(adata)


def test_pairs_leak_only_in_their_context():
    adata = with_split(make(), task="covariate_transfer", held_out=[("A", "NK", "test"), ("B", "NK", "test")])
    check_no_leakage(adata)
    adata.obs.loc["cell_3", "split"] = "train"
    with pytest.raises(ValueError, match=r"found 1 cells of \['B in NK'\]"):
        check_no_leakage(adata)


def test_combinations_leak_in_new_contexts_too():
    adata = with_split(make(), held_out=[("A+B", "NK", "test")])
    with pytest.raises(ValueError, match=r"found 2 cells of \['A\+B'\]"):
        check_no_leakage(adata)


def test_a_split_of_other_fields_is_refused():
    adata = with_split(make())
    fields = read_fields(adata)
    write_fields(adata, PerturbationFields("perturbation", fields.vocabulary, covariate_keys=("batch",)))
    with pytest.raises(
        ValueError, match=r"split for the registered fields .*'batch'.*found one for .*'cell_type'.* again"
    ):
        check_no_leakage(adata)


def test_leakage_is_found_after_reading_files(tmp_path):
    adata = with_split(make())
    adata.write_h5ad(tmp_path / "adata")
    again = anndata.read_h5ad(tmp_path / "adata")
    check_no_leakage(again)
    again.obs.loc["cell_0", "split"] = "train"
    with pytest.raises(ValueError, match="no cells of held-out conditions"):
        check_no_leakage(again)

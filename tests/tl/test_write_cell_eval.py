from __future__ import annotations

from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from perturbflow.pp import setup_perturbation
from perturbflow.tl import fit_flow, predict_perturbation, write_cell_eval

QUICK: Any = {
    "plan_kwargs": {"calibrate": False, "batch_size": 32},
    "model_kwargs": {"width": 16, "n_blocks": 1},
    "max_steps": 3,
    "split_key": "none",
    "progress_bar": False,
}


def is_control(adata):
    return (adata.obs["perturbation"] == "control").to_numpy()


@pytest.fixture
def written(tmp_path):
    """Write and read back: the file of predicted cells, and that of real ones where it is asked for."""

    def write(adata, *, real=False, **options):
        paths = [tmp_path / "predicted.h5ad", *([tmp_path / "real.h5ad"] if real else [])]
        write_cell_eval(adata, paths[0], real_path=paths[1] if real else None, **options)
        cells = [anndata.read_h5ad(path) for path in paths]
        return cells if real else cells[0]

    return write


def assert_readable(cells, *, perturbations, control="non-targeting", column="target_gene"):
    """What cell-eval asks of a file: see its `_types/_anndata.py` and `guess_is_lognorm`, version 0.8."""
    assert isinstance(cells.X, sparse.csr_matrix)
    assert cells.X.dtype == np.float32
    assert cells.X.min() >= 0
    assert cells.X.max() < 15
    assert (np.modf(cells.X.data)[0] > 1e-3).any()
    assert set(cells.obs[column]) == {control, *perturbations}
    assert cells.obs_names.is_unique
    assert cells.var_names.is_unique


def test_both_files_are_what_cell_eval_asks_for(fitted, written):
    predict_perturbation(fitted, ["A", "B+D"])
    predicted, real = written(fitted, real=True)
    for cells in (predicted, real):
        assert_readable(cells, perturbations=["A", "B+D"])
    assert list(predicted.var_names) == list(real.var_names) == list(fitted.var_names)
    x = fitted.X.toarray()
    for label in ("A", "B+D"):
        found = predicted[predicted.obs["target_gene"] == label]
        values = fitted.obsm[f"predicted_{label}"][is_control(fitted)]
        np.testing.assert_array_equal(found.X.toarray(), values.toarray())
        assert found.obs["cell_type"].tolist() == fitted.obs.loc[is_control(fitted), "cell_type"].tolist()
        found = real[real.obs["target_gene"] == label]
        np.testing.assert_array_equal(found.X.toarray(), x[fitted.obs["perturbation"] == label])
    for cells in (predicted, real):
        found = cells[cells.obs["target_gene"] == "non-targeting"]
        np.testing.assert_array_equal(found.X.toarray(), x[is_control(fitted)])


def test_predicted_cells_of_their_own(fitted, written, unchanged):
    cells: Any = predict_perturbation(
        fitted, ["A", "C+D"], n_cells=7, covariates={"cell_type": "type_2"}, as_anndata=True
    )
    with unchanged(fitted), unchanged(cells):
        predicted, real = written(fitted, predicted=cells, real=True)
    assert predicted.obs["target_gene"].value_counts()[["A", "C+D"]].tolist() == [7, 7]
    np.testing.assert_array_equal(predicted.X.toarray()[:14], cells.X)
    # Control cells and real cells are of the contexts that were predicted.
    of_type = (fitted.obs["cell_type"] == "type_2").to_numpy()
    for found in (predicted, real):
        assert set(found.obs["cell_type"]) == {"type_2"}
        assert (found.obs["target_gene"] == "non-targeting").sum() == (is_control(fitted) & of_type).sum()
    assert (real.obs["target_gene"] == "A").sum() == ((fitted.obs["perturbation"] == "A") & of_type).sum()


def test_names_and_genes_are_as_asked_for(fitted, written):
    predict_perturbation(fitted, "A", key_added="mine")
    genes = list(fitted.var_names[[7, 2, 30]])
    predicted, real = written(
        fitted, real=True, key="mine", genes=genes, perturbation_column="target", control_label="NT"
    )
    for cells in (predicted, real):
        assert_readable(cells, perturbations=["A"], control="NT", column="target")
        assert list(cells.var_names) == genes
    at = (predicted.obs["target"] == "A").to_numpy()
    values = fitted.obsm["mine"][is_control(fitted)][:, [7, 2, 30]].toarray()
    np.testing.assert_array_equal(predicted.X.toarray()[at], values)


def test_genes_in_another_order_are_aligned_by_name(fitted, written):
    shuffled = fitted[:, np.random.default_rng(0).permutation(fitted.n_vars)].copy()
    predict_perturbation(shuffled, "A")
    predict_perturbation(fitted, "A")
    for found, expected in zip(written(shuffled, real=True), written(fitted, real=True), strict=True):
        assert list(found.var_names) == list(expected.var_names)
        np.testing.assert_array_equal(found.X.toarray(), expected.X.toarray())


def test_label_order_does_not_matter_for_real_cells(fitted, written):
    fitted.obs["perturbation"] = fitted.obs["perturbation"].astype(str).replace({"B+D": "D+B", "A": "control+A"})
    predict_perturbation(fitted, ["D+B", "A"])
    _, real = written(fitted, real=True)
    counts = fitted.obs["perturbation"].value_counts()
    assert real.obs["target_gene"].value_counts()[["A", "B+D"]].tolist() == counts[["control+A", "D+B"]].tolist()


def test_predicted_control_cells_take_the_place_of_real_ones(fitted, written):
    cells = predict_perturbation(fitted, ["A", "control"], n_cells=5, as_anndata=True)
    predicted, real = written(fitted, predicted=cells, real=True)
    assert predicted.obs["target_gene"].value_counts().to_dict() == {"A": 10, "non-targeting": 10}
    assert (real.obs["target_gene"] == "non-targeting").sum() == is_control(fitted).sum()


def test_challenge_brings_real_cells_to_the_same_total(fitted, written):
    predict_perturbation(fitted, "A", output="challenge", target_total=300)
    predicted, real = written(fitted, real=True)
    np.testing.assert_allclose(np.expm1(predicted.X).sum(axis=1), 300, rtol=1e-4)
    np.testing.assert_allclose(np.expm1(real.X).sum(axis=1), 300, rtol=1e-4)
    counts = np.expm1(fitted.X[is_control(fitted)].toarray().astype(np.float64))
    expected = np.log1p(300 * counts / counts.sum(axis=1, keepdims=True))
    for cells in (predicted, real):
        found = cells[cells.obs["target_gene"] == "non-targeting"].X.toarray()
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def typed(*, both):
    """Perturbation g0 by activation, and by inhibition in another line if ``both``."""
    rng = np.random.default_rng(0)
    lines = (("T", "CRISPRa"), ("U", "CRISPRi" if both else "CRISPRa"))
    obs = [
        {"perturbation": label, "line": line, "kind": kind}
        for line, kind in lines
        for label in ["control"] * 30 + ["g0"] * 30
    ]
    adata = AnnData(
        rng.normal(4, 0.3, (len(obs), 4)).astype(np.float32),
        obs=pd.DataFrame(obs, index=[f"cell{i}" for i in range(len(obs))]),
        var=pd.DataFrame(index=[f"g{i}" for i in range(4)]),
    )
    setup_perturbation(
        adata, perturbation_key="perturbation", control="control", covariate_keys=["line"], perturbation_type_key="kind"
    )
    fit_flow(adata, **QUICK)
    return adata


@pytest.mark.parametrize("both", [False, True])
def test_types_are_left_out_where_labels_stay_distinct(written, both):
    adata = typed(both=both)
    predict_perturbation(adata, "g0")
    predicted, real = written(adata, real=True)
    labels = ["g0:CRISPRa", "g0:CRISPRi"] if both else ["g0"]
    assert_readable(predicted, perturbations=labels)
    assert_readable(real, perturbations=labels)
    assert predicted.obs["target_gene"].value_counts()[labels].tolist() == ([30, 30] if both else [60])
    assert real.obs["target_gene"].value_counts()[labels].tolist() == ([30, 30] if both else [60])


def test_covariate_that_was_set_for_all_cells(fitted, written):
    adata = fitted[fitted.obs["cell_type"] == "type_1"].copy()
    del adata.obs["cell_type"]
    predict_perturbation(adata, "A", covariates={"cell_type": "type_1"})
    for cells in written(adata, real=True):
        assert set(cells.obs["cell_type"]) == {"type_1"}


def test_earlier_file_is_replaced(fitted, written):
    predict_perturbation(fitted, ["A", "C"])
    written(fitted)
    predict_perturbation(fitted, "A")
    assert_readable(written(fitted), perturbations=["A"])


def counts(adata):
    predict_perturbation(adata, "A", output="counts")


def not_predicted(adata):
    del adata.uns["predicted"]


def something_else(adata):
    adata.uns["predicted"] = {"a": 1}


def no_flow(adata):
    del adata.uns["flow"]


def no_entry(adata):
    del adata.obsm["predicted"]


def no_real_cells(adata):
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(str).replace("A", "C")


def nothing_there(adata):
    adata.obsm["predicted"] = sparse.csr_matrix(adata.shape)


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        (counts, {}, ValueError, "Expected log1p-normalised predictions, .* found counts. Predict with"),
        (not_predicted, {}, KeyError, r"Expected 'predicted' in `adata.uns`.* Run `pf.tl.predict_perturbation"),
        (something_else, {}, ValueError, r"Expected predictions in `adata.uns\['predicted'\]`, found something else"),
        (no_flow, {}, KeyError, r"Run `pf.tl.fit_flow"),
        (no_entry, {}, KeyError, r"Expected 'predicted' in `adata.obsm`"),
        (no_real_cells, {}, ValueError, r"Expected real cells of every predicted perturbation, found none of \['A'\]"),
        (nothing_there, {}, ValueError, "Expected predictions in the rows of the control cells, found none"),
        (None, {"key": "other"}, KeyError, "Expected 'other' in `adata.uns`"),
        (None, {"genes": ["GENE_001", "x"]}, ValueError, r"Expected genes of the fitted flow in `genes`, found \['x'\] among 2"),
        (None, {"genes": []}, ValueError, r"Expected genes of the fitted flow in `genes`, found \[\] among 0"),
        (None, {"genes": ["GENE_001"] * 2}, ValueError, r"Expected `genes` to be unique, found repeated \['GENE_001'\]"),
        (None, {"control_label": "A"}, ValueError, "found 'A' among them. Choose another `control_label`"),
        (None, {"control_label": ""}, ValueError, "Expected `control_label` to be a string of at least one character"),
        (None, {"perturbation_column": 1}, TypeError, "Expected `perturbation_column` to be a string"),
        (None, {"real_path": "predicted.h5ad"}, ValueError, "Expected two different files in `path` and `real_path`"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_and_nothing_written(fitted, tmp_path, change, options, error, message):
    predict_perturbation(fitted, "A")
    if change is not None:
        change(fitted)
    paths = {"real_path": tmp_path / options.get("real_path", "real.h5ad")}
    with pytest.raises(error, match=message):
        write_cell_eval(fitted, tmp_path / "predicted.h5ad", **(options | paths))
    assert list(tmp_path.iterdir()) == []


def test_predicted_without_cells(fitted, tmp_path):
    cells = predict_perturbation(fitted, "A", n_cells=2, as_anndata=True)
    assert cells is not None
    with pytest.raises(ValueError, match="Expected cells in `predicted`, found none"):
        write_cell_eval(fitted, tmp_path / "x.h5ad", predicted=cells[:0].copy())

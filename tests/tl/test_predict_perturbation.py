from __future__ import annotations

import warnings
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from perturbflow.datasets import kang_ifnb, simulated_perturb_seq
from perturbflow.models import FittedFlow
from perturbflow.pp import setup_perturbation
from perturbflow.predict import read_flow
from perturbflow.tl import fit_flow, predict_perturbation

QUICK: Any = {
    "plan_kwargs": {"calibrate": False, "batch_size": 32},
    "model_kwargs": {"width": 16, "n_blocks": 1},
    "max_steps": 3,
    "split_key": "none",
    "progress_bar": False,
}


AT_ONCE = 2048  # cells of a batch


def is_control(adata):
    return (adata.obs["perturbation"] == "control").to_numpy()


def predicted(adata, perturbation, *, warns=None, **options):
    """Predicted cells (controls, G) of one perturbation; ``adata`` stays as it is."""
    with warnings.catch_warnings() if warns is None else pytest.warns(UserWarning, match=warns):
        copy = predict_perturbation(adata, perturbation, copy=True, **options)
    assert copy is not None
    assert copy is not adata
    return cells_of(copy)


def cells_of(adata, name="predicted"):
    """Predicted cells of the rows that have one (n, G), dense."""
    values = adata.obsm[name]
    return values[has_cell(adata, name)].toarray()


def has_cell(adata, name="predicted"):
    assert isinstance(adata.obsm[name], sparse.csr_matrix)
    return adata.obsm[name].getnnz(axis=1) > 0


def new_cells(adata, perturbations, **options):
    cells = predict_perturbation(adata, perturbations, as_anndata=True, **options)
    assert cells is not None
    return cells


def new_controls(adata, *, genes=None):
    """Control cells with nothing but cell types, genes and the flow."""
    cells = adata[is_control(adata), adata.var_names if genes is None else genes]
    x = np.asarray(cells.X.toarray())
    return AnnData(
        x, obs=cells.obs[["cell_type"]].copy(), var=pd.DataFrame(index=cells.var_names), uns={"flow": adata.uns["flow"]}
    )


def test_rows_of_control_cells_are_filled(fitted):
    assert predict_perturbation(fitted, "B+D") is None
    values = fitted.obsm["predicted"]
    assert values.shape == fitted.shape
    assert values.dtype == np.float32
    np.testing.assert_array_equal(has_cell(fitted), is_control(fitted))
    assert (values.data > 0).all()
    assert values.has_sorted_indices
    assert 0.05 < values[is_control(fitted)].nnz / cells_of(fitted).size < 0.95
    record = dict(fitted.uns["predicted"])
    uncertainty, sds = record.pop("uncertainty"), fitted.varm["predicted_sd"]
    assert record == {
        "perturbations": ["B+D"],
        "obsm": ["predicted"],
        "params": {"key": "flow", "covariates": {}, "seed": 0},
    }
    assert uncertainty[["perturbation", "cell_type", "kind"]].to_numpy().tolist() == [
        ["B+D", "type_1", "combination"],
        ["B+D", "type_2", "combination"],
    ]
    assert uncertainty["feature_distance"].isna().all()  # both components have training cells
    assert list(sds.columns) == ["B+D"]
    assert sds.index.equals(fitted.var_names)
    assert (sds.to_numpy() > 0).all()
    # Control cells are half of each type: the mean over contexts is nearly that of the genes of both.
    assert 0.5 * uncertainty["rms_sd"].min() < np.sqrt((sds["B+D"] ** 2).mean()) < 1.5 * uncertainty["rms_sd"].max()


def test_several_perturbations_have_an_entry_each_and_do_not_depend_on_each_other(fitted):
    alone = {label: predicted(fitted, label) for label in ("A", "B+D", "C")}
    predict_perturbation(fitted, ["C", "D+B", "A", "B+D"], key_added="p")
    assert fitted.uns["p"]["perturbations"] == ["C", "B+D", "A"]
    assert fitted.uns["p"]["obsm"] == ["p_C", "p_B+D", "p_A"]
    assert set(fitted.obsm) == {"perturbation_doses", "p_C", "p_B+D", "p_A"}
    for label, values in alone.items():
        np.testing.assert_array_equal(cells_of(fitted, f"p_{label}"), values)
    assert (alone["A"] != alone["C"]).any()


def test_order_of_components_does_not_matter(fitted):
    np.testing.assert_array_equal(predicted(fitted, "B+D"), predicted(fitted, " D + B "))
    new = r"Doses that were not measured: .*D at 0.5 \(between no effect at 0 and 1\)"
    one = predicted(fitted, "B+D", dose="1+0.5", warns=new)
    np.testing.assert_array_equal(one, predicted(fitted, "D+B", dose="0.5+1", warns=new))
    np.testing.assert_array_equal(one, predicted(fitted, "D+B", dose=[0.5, 1], warns=new))
    assert (one != predicted(fitted, "B+D", dose="0.5+1", warns="B at 0.5")).any()


def test_seed_decides(fitted):
    np.testing.assert_array_equal(predicted(fitted, "A", seed=3), predicted(fitted, "A", seed=3))
    assert (predicted(fitted, "A", seed=3) != predicted(fitted, "A", seed=4)).any()


def test_prediction_follows_the_prior_of_its_condition(fitted):
    fitted.uns["flow"]["config"] |= {"correction_scale": 0.0, "entry_time": 0.0}
    flow = read_flow(fitted).flow
    cells = new_cells(fitted, "B+D", n_cells=4000, covariates={"cell_type": "type_2"})
    distribution = flow.prior.distribution(np.array([0, 1, 0, 1]), flow.prior.context(np.array([1])))
    # Four standard errors of a share among 4000 cells, and what ten solver steps add.
    np.testing.assert_allclose((cells.X > 0).mean(axis=0), distribution.expressed, atol=0.032 + 0.03)


@pytest.mark.parametrize("option", [{"guidance": 3.0}, {"n_steps": 7}])
def test_options_of_the_solver_change_cells_and_are_recorded(fitted, option):
    assert (predicted(fitted, "A") != predicted(fitted, "A", **option)).any()
    predict_perturbation(fitted, "A", **option)
    assert fitted.uns["predicted"]["params"].items() >= option.items()


def test_the_network_computes_on_the_device_that_is_asked_for(fitted, monkeypatch):
    devices = []
    sample = FittedFlow.sample

    def recorded(self, *args, **options):
        devices.append(str(self.flow.device))
        return sample(self, *args, **options)

    monkeypatch.setattr(FittedFlow, "sample", recorded)
    expected = predicted(fitted, "A")
    np.testing.assert_array_equal(predicted(fitted, "A", device="cpu"), expected)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    np.testing.assert_array_equal(predicted(fitted, "A", device="auto"), expected)
    assert set(devices) == {"cpu"}


def test_dose_zero_and_the_control_label_are_the_law_of_controls(fitted):
    control = predicted(fitted, "control")
    np.testing.assert_array_equal(predicted(fitted, "A", dose=0), control)
    predict_perturbation(fitted, "B+D", dose="0+0")
    assert fitted.uns["predicted"]["perturbations"] == ["control"]
    assert fitted.uns["predicted"]["doses"] == ["0"]
    # With the prior alone and late entry a control cell hardly changes.
    fitted.uns["flow"]["config"] |= {"entry_time": 0.99, "correction_scale": 0.0}
    x = fitted.X.toarray()[is_control(fitted)]
    assert np.abs(predicted(fitted, "control") - x).mean() < np.abs(predicted(fitted, "B+D") - x).mean()


def test_dose_beyond_the_largest_counts_as_the_largest_with_a_warning(fitted):
    predicted(fitted, "A", dose=2, warns=r"The dose of \['A'\] is above the highest training dose")
    flow, x = read_flow(fitted), fitted.X.toarray()[is_control(fitted)]
    samples = [
        flow.sample(x, np.array([dose, 0, 0, 0]), np.array([0]), rng=np.random.default_rng(0)) for dose in (1.0, 2.0)
    ]
    np.testing.assert_array_equal(samples[0], samples[1])


def test_component_without_training_cells_has_the_mean_effect(registered):
    registered.obs["split"] = np.where(registered.obs["perturbation"].isin(["A", "B", "B+D"]), "test", "train")
    del registered.uns["split"]
    fit_flow(registered, **(QUICK | {"split_key": "split"}))
    predicted(registered, "A", warns=r"No training cells of \['A'\]: .* the mean effect of perturbations")
    flow = read_flow(registered)
    context = flow.flow.prior.context(np.array([1]))
    distributions = [flow.flow.prior.distribution(row, context) for row in np.eye(4)[:2]]
    shared = flow.flow.prior.shared[0, context.index]
    for distribution in distributions:
        np.testing.assert_allclose(
            distribution.expressed, np.sin((context.base_angle + shared) / 2) ** 2, rtol=1e-3, atol=2e-4
        )
    np.testing.assert_array_equal(distributions[0].mean, distributions[1].mean)


def test_context_restricts_the_cells_and_changes_nothing_else(fitted):
    everywhere = predicted(fitted, "A")
    of_type = (fitted.obs["cell_type"] == "type_2").to_numpy()
    predict_perturbation(fitted, "A", covariates={"cell_type": "type_2"})
    np.testing.assert_array_equal(has_cell(fitted), is_control(fitted) & of_type)
    np.testing.assert_array_equal(cells_of(fitted), everywhere[of_type[is_control(fitted)]])


def test_new_control_cells_without_registration(fitted):
    adata = new_controls(fitted)
    predict_perturbation(adata, "B+D")
    np.testing.assert_array_equal(cells_of(adata), predicted(fitted, "B+D"))


def test_covariate_without_a_column_is_set_for_all_cells(fitted):
    adata = new_controls(fitted)
    del adata.obs["cell_type"]
    with pytest.raises(KeyError, match=r"Expected 'cell_type' in `adata.obs`.*pass `covariates=\{'cell_type': ...\}`"):
        predict_perturbation(adata, "A")
    predict_perturbation(adata, "A", covariates={"cell_type": "type_1"})
    adata.obs["cell_type"] = "type_1"
    np.testing.assert_array_equal(cells_of(adata), predicted(adata, "A"))


def test_genes_are_aligned_by_name(fitted):
    expected = predicted(fitted, "A")
    order = np.random.default_rng(0).permutation(fitted.n_vars)
    adata = new_controls(fitted, genes=fitted.var_names[order])
    predict_perturbation(adata, "A")
    np.testing.assert_array_equal(cells_of(adata), expected[:, order])
    cells = new_cells(adata, "A")
    assert list(cells.var_names) == list(fitted.var_names)
    rows = adata.obs_names.get_indexer(cells.obs["source_cell"])
    np.testing.assert_array_equal(cells.X, expected[rows])


def test_genes_that_the_flow_does_not_know_are_empty(fitted, caplog):
    known = new_controls(fitted)
    extra = AnnData(np.full((known.n_obs, 2), 0.5), obs=known.obs, var=pd.DataFrame(index=["x1", "x2"]))
    adata = anndata.concat([extra, known], axis=1, merge="same")
    adata.uns["flow"] = known.uns["flow"]
    predict_perturbation(adata, "A")
    assert "2 of 42 genes are unknown to the flow: not predicted." in caplog.text
    assert adata.obsm["predicted"][:, :2].nnz == 0
    assert adata.varm["predicted_sd"].isna()["A"].tolist() == [True] * 2 + [False] * 40
    np.testing.assert_array_equal(cells_of(adata)[:, 2:], predicted(fitted, "A"))


def test_new_cells_say_what_they_are(fitted):
    cells = new_cells(fitted, ["A", "D+B"], n_cells=20, seed=1)
    assert cells.shape == (80, 40)
    assert cells.X.dtype == np.float32
    assert (cells.X >= 0).all()
    assert list(cells.obs) == ["perturbation", "cell_type", "source", "source_cell"]
    assert cells.obs.groupby(["perturbation", "cell_type"], observed=True).size().to_dict() == dict.fromkeys(
        [(label, kind) for label in ("A", "B+D") for kind in ("type_1", "type_2")], 20
    )
    assert [cells.obs[name].dtype for name in ("perturbation", "cell_type", "source")] == ["category"] * 3
    assert set(cells.obs["source"]) == {"predicted"}
    sources = fitted.obs.loc[cells.obs["source_cell"]]
    assert (sources["perturbation"] == "control").all()
    assert sources["cell_type"].tolist() == cells.obs["cell_type"].tolist()
    pd.testing.assert_frame_equal(cells.var, fitted.var)
    assert cells.obs_names.is_unique
    assert cells.uns["predicted"]["params"] == {
        "key": "flow", "covariates": {}, "seed": 1, "n_cells": 20,
    }  # fmt: skip


def test_new_cells_draw_controls_evenly(fitted):
    n_controls = (fitted.obs.loc[is_control(fitted), "cell_type"] == "type_1").sum()
    n_cells = int(2 * n_controls + 7)
    cells = new_cells(fitted, "A", covariates={"cell_type": "type_1"}, n_cells=n_cells)
    counts = cells.obs["source_cell"].value_counts()
    assert (len(cells), len(counts)) == (n_cells, n_controls)
    assert set(counts) == {2, 3}
    assert new_cells(fitted, "A", n_cells=5).obs["source_cell"].is_unique
    # Cells from one control cell are different draws.
    assert not pd.DataFrame(cells.X).duplicated().any()


def test_new_cells_without_number_are_those_of_the_control_cells(fitted):
    cells = new_cells(fitted, "A")
    rows = fitted.obs_names.get_indexer(cells.obs["source_cell"])
    assert sorted(rows) == np.flatnonzero(is_control(fitted)).tolist()
    predict_perturbation(fitted, "A")
    np.testing.assert_array_equal(cells.X, fitted.obsm["predicted"][rows].toarray())


def test_predictions_can_be_written(fitted, tmp_path):
    cells = new_cells(fitted, ["A", "B+D"], n_cells=5)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    assert anndata.read_h5ad(tmp_path / "cells.h5ad").obs["perturbation"].tolist() == cells.obs["perturbation"].tolist()
    with pytest.warns(UserWarning, match="Doses that were not measured"):
        predict_perturbation(fitted, ["A", "B+D"], dose="0.5", n_steps=4)
    fitted.write_h5ad(tmp_path / "predicted.h5ad")
    again = anndata.read_h5ad(tmp_path / "predicted.h5ad")
    assert list(again.uns["predicted"]["obsm"]) == ["predicted_A", "predicted_B+D"]
    assert list(again.uns["predicted"]["doses"]) == ["0.5", "0.5+0.5"]
    np.testing.assert_array_equal(cells_of(again, "predicted_A"), cells_of(fitted, "predicted_A"))
    np.testing.assert_array_equal(has_cell(again, "predicted_A"), is_control(fitted))
    predict_perturbation(again, "A")  # over the earlier prediction


def test_noise_source_is_a_sample_of_the_context(registered):
    fit_flow(registered, **QUICK | {"model_kwargs": {"width": 16, "n_blocks": 1, "source": "noise"}})
    cells = new_controls(registered)
    cells = cells[(cells.obs["cell_type"] == "type_1").to_numpy()].copy()
    shuffled = cells[::-1].copy()
    np.testing.assert_array_equal(predicted(cells, "A"), predicted(shuffled, "A"))


def test_control_source_starts_from_its_control_cell(fitted):
    fitted.uns["flow"]["config"]["entry_time"] = 0.9
    x = fitted.X.toarray()[is_control(fitted)]
    values = predicted(fitted, "A")
    matched = np.corrcoef((x - x.mean(axis=0)).ravel(), (values - values.mean(axis=0)).ravel())[0, 1]
    mixed = np.corrcoef((x - x.mean(axis=0)).ravel(), (values - values.mean(axis=0))[::-1].ravel())[0, 1]
    assert matched > 0.5 > abs(mixed) + 0.3


def test_view_becomes_a_copy_of_its_own(fitted, unchanged):
    view = fitted[is_control(fitted)]
    with unchanged(fitted), pytest.warns(UserWarning, match="`adata` is a view of another AnnData"):
        predict_perturbation(view, "A")
    assert not view.is_view
    np.testing.assert_array_equal(cells_of(view), predicted(fitted, "A"))


def test_as_anndata_and_copy_write_nothing(fitted, unchanged):
    with unchanged(fitted):
        new_cells(fitted, "A")
        copy = predict_perturbation(fitted, "A", copy=True)
    assert copy is not None
    assert "predicted" in copy.obsm
    view = fitted[is_control(fitted)]
    with unchanged(view):
        new_cells(view, "A")


@pytest.mark.parametrize(
    "container",
    [sparse.csc_matrix, sparse.csr_array, sparse.csc_array, lambda x: x.toarray().astype(np.float64)],
    ids=["csc", "csr_array", "csc_array", "dense_float64"],
)
def test_container_of_the_expression_does_not_matter(fitted, container):
    expected = predicted(fitted, "A")
    fitted.X = container(fitted.X)
    np.testing.assert_array_equal(predicted(fitted, "A"), expected)


def test_batches_bound_the_memory_and_change_nothing(fitted, monkeypatch):
    adata = new_controls(fitted)
    adata = anndata.concat([adata] * 40, index_unique="-")
    adata.uns["flow"] = fitted.uns["flow"]
    sizes = []
    sample = FittedFlow.sample

    def recorded(self, controls, *args, **options):
        sizes.append(len(controls))
        return sample(self, controls, *args, **options)

    monkeypatch.setattr(FittedFlow, "sample", recorded)
    predict_perturbation(adata, "A")
    assert max(sizes) == AT_ONCE
    assert sum(sizes) == adata.n_obs > 2 * AT_ONCE

    sizes.clear()
    new_cells(adata, ["A", "C"], n_cells=5000)
    assert max(sizes) == AT_ONCE
    assert sum(sizes) == 4 * 5000

    sizes.clear()
    monkeypatch.setattr("perturbflow.predict._prediction.CELLS_AT_ONCE", adata.n_obs)
    whole = predicted(adata, "A")
    assert len(sizes) == 2  # cell types
    np.testing.assert_array_equal(cells_of(adata), whole)


def test_counts_are_whole_and_as_deep_as_their_control_cell(fitted):
    log_normalised = new_cells(fitted, "B+D")
    cells = new_cells(fitted, "B+D", output="counts")
    np.testing.assert_array_equal(cells.X, np.rint(cells.X))
    assert cells.X.dtype == np.float32
    assert cells.obs["source_cell"].tolist() == log_normalised.obs["source_cell"].tolist()
    # The predicted cell and its control cell have the same counts to a unit of normalised expression.
    totals = fitted[cells.obs["source_cell"]].layers["counts"].sum(axis=1)
    expected = np.expm1(log_normalised.X) * np.asarray(totals).reshape(-1, 1) / 1e4
    assert np.abs(cells.X - expected).max() < 1 + 1e-3
    assert np.abs((cells.X - expected).mean(axis=0)).max() < 4 * 0.5 / np.sqrt(len(cells))
    assert cells.uns["predicted"]["params"]["output"] == "counts"


def test_counts_of_a_given_total(fitted):
    counts = predicted(fitted, "A", output="counts", target_total=2000)
    np.testing.assert_allclose(counts.sum(axis=1), 2000, atol=4 * np.sqrt(fitted.n_vars / 4))
    np.testing.assert_array_equal(counts, predicted(fitted, "A", output="counts", target_total=2000))
    assert (counts != predicted(fitted, "A", output="counts", target_total=2000, seed=1)).any()


def test_challenge_recipe_is_applied_to_the_prediction(fitted):
    fitted.var_names = ["D", "A", *fitted.var_names[2:]]
    fitted.uns["flow"]["genes"] = list(fitted.var_names)
    del fitted.uns["flow"]["checksum"]
    plain = predicted(fitted, "A")
    cells = predicted(fitted, "A", output="challenge", target_total=300)
    counts = np.expm1(plain.astype(np.float64))
    counts = np.rint(300 * counts / counts.sum(axis=1, keepdims=True))
    expected = np.log1p(300 * counts / counts.sum(axis=1, keepdims=True)) * (fitted.var_names != "A")
    np.testing.assert_allclose(cells, expected, rtol=1e-6)
    assert (cells[:, 0] > 0).any()
    predict_perturbation(fitted, ["A", "B+D"], output="challenge", target_total=300)
    np.testing.assert_array_equal(cells_of(fitted, "predicted_A"), cells)
    assert fitted.obsm["predicted_B+D"][:, 0].nnz == 0
    assert fitted.uns["predicted"]["params"].items() >= {"output": "challenge", "target_total": 300.0}.items()


def test_challenge_scales_to_the_median_of_the_control_cells(fitted):
    predict_perturbation(fitted, "A", output="challenge")
    totals = np.asarray(fitted.layers["counts"][is_control(fitted)].sum(axis=1))
    assert fitted.uns["predicted"]["params"]["target_total"] == pytest.approx(np.median(totals), rel=1e-4)


def test_only_types_that_repress_set_their_gene_to_zero():
    adata = typed_screen()
    predict_perturbation(adata, "g0", output="challenge", target_total=5000)
    for kind, is_zero in (("CRISPRa", False), ("CRISPRi", True)):
        values = cells_of(adata, f"predicted_g0:{kind}")
        assert (values[:, 0] == 0).all() == is_zero
        assert (values[:, 1:] > 0).mean() > 0.9


def typed_screen():
    """Gene g0 perturbed by activation in line T, where g0 rises, and by inhibition in line U, where it falls."""
    rng = np.random.default_rng(0)
    obs, x = [], []
    for line, kind, change in (("T", "CRISPRa", 2.0), ("U", "CRISPRi", -2.0)):
        for label in ("control", "g0", "g1"):
            block = rng.normal(4, 0.3, (60, 5))
            block[:, 0] += change * (label == "g0")
            x.append(block)
            obs += [{"perturbation": label, "line": line, "kind": kind}] * 60
    adata = AnnData(
        np.vstack(x).astype(np.float32),
        obs=pd.DataFrame(obs, index=[f"cell{i}" for i in range(len(obs))]),
        var=pd.DataFrame(index=[f"g{i}" for i in range(5)]),
    )
    setup_perturbation(
        adata, perturbation_key="perturbation", control="control", covariate_keys=["line"], perturbation_type_key="kind"
    )
    fit_flow(adata, **QUICK)
    return adata


def test_type_of_a_perturbation_is_that_of_the_control_cells():
    adata = typed_screen()
    predict_perturbation(adata, "g0")
    assert adata.uns["predicted"]["perturbations"] == ["g0:CRISPRa", "g0:CRISPRi"]
    level = adata.X[is_control(adata), 0].mean()
    of_line = {line: (adata.obs["line"] == line).to_numpy() & is_control(adata) for line in "TU"}
    raised, lowered = (adata.obsm[f"predicted_g0:{kind}"] for kind in ("CRISPRa", "CRISPRi"))
    assert raised[of_line["T"], 0].mean() > level + 1
    assert lowered[of_line["U"], 0].mean() < level - 1
    np.testing.assert_array_equal(has_cell(adata, "predicted_g0:CRISPRa"), of_line["T"])
    np.testing.assert_array_equal(has_cell(adata, "predicted_g0:CRISPRi"), of_line["U"])
    assert len(new_cells(adata, "g0", covariates={"line": "T"}, n_cells=9)) == 9


def test_type_can_be_named_and_must_be_where_cells_do_not_tell():
    adata = typed_screen()
    adata.obs["kind"] = adata.obs["kind"].astype(object).where(~is_control(adata), None)
    with pytest.raises(ValueError, match=r"which could be any of \['g0:CRISPRa', 'g0:CRISPRi'\]. Pass one of them"):
        predict_perturbation(adata, "g0")
    predict_perturbation(adata, "g0:CRISPRi")
    np.testing.assert_array_equal(has_cell(adata), is_control(adata))
    # Types beside the control cells are no contexts of their own where the label says the type.
    half = np.arange(adata.n_obs) % 2 == 0
    adata.obs["kind"] = np.where(half, "CRISPRa", "CRISPRi")
    assert len(new_cells(adata, "g0:CRISPRi", n_cells=9)) == 18


def test_doses_and_batches_are_in_the_new_cells(registered):
    registered.obs["dose"] = np.where(is_control(registered), 0, 1.5)
    registered.obs["plate"] = np.where(np.arange(registered.n_obs) % 2, "p1", "p2")
    setup_perturbation(
        registered,
        perturbation_key="perturbation",
        control="control",
        covariate_keys=["cell_type"],
        dose_key="dose",
        batch_key="plate",
    )
    fit_flow(registered, **QUICK)
    with pytest.warns(UserWarning, match=r"Doses that were not measured.*D at 1 \(between no effect at 0 and 1.5\)"):
        cells = new_cells(registered, "B+D", dose="1.5+1", n_cells=3)
    assert list(cells.obs) == ["perturbation", "dose", "cell_type", "plate", "source", "source_cell"]
    assert cells.obs["dose"].unique().tolist() == ["1.5+1"]
    assert cells.obs.groupby(["cell_type", "plate"], observed=True).size().tolist() == [3] * 4
    predict_perturbation(registered, "A", covariates={"plate": "p1"})
    np.testing.assert_array_equal(
        has_cell(registered), is_control(registered) & (registered.obs["plate"] == "p1").to_numpy()
    )
    assert registered.uns["predicted"]["doses"] == ["1.5"]


def test_no_covariates_at_all(registered):
    setup_perturbation(registered, perturbation_key="perturbation", control="control")
    fit_flow(registered, **QUICK)
    assert predicted(registered, "B+D").shape == (is_control(registered).sum(), 40)
    assert list(new_cells(registered, "A", n_cells=4).obs) == ["perturbation", "source", "source_cell"]


def test_context_without_training_controls_is_predicted_from_its_own_controls(registered):
    registered.obs["split"] = np.where(registered.obs["cell_type"] == "type_2", "test", "train")
    del registered.uns["split"]
    fit_flow(registered, **(QUICK | {"split_key": "split"}))
    values = predicted(registered, "A", covariates={"cell_type": "type_2"}, warns="was not in training")
    assert np.isfinite(values).all()
    assert len(values) == (is_control(registered) & (registered.obs["cell_type"] == "type_2")).sum()


def no_flow(adata):
    del adata.uns["flow"]


def other_entry(adata):
    adata.uns["flow"] = {"a": 1}


def later_format(adata):
    adata.uns["flow"]["format"] = 99


def raw_counts(adata):
    adata.X = sparse.csr_matrix(np.expm1(adata.X.toarray()).round())


def no_controls(adata):
    adata.obs["perturbation"] = "A"


def empty_cell_type(adata):
    adata.obs["cell_type"] = adata.obs["cell_type"].astype(str).replace("type_2", None)


def other_genes(adata):
    adata.var_names = ["z1", *adata.var_names[1:-1], "z2"]


def repeated_genes(adata):
    adata.var_names = ["z1", "z1", *adata.var_names[2:]]


def shifted(adata):
    adata.X = adata.X.toarray() + np.linspace(0, 0.5, adata.n_vars)


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        (no_flow, {}, KeyError, r"Run `pf\.tl\.fit_flow\(adata, key_added='flow'\)` first"),
        (other_entry, {}, ValueError, r"Expected a fitted flow in `adata.uns\['flow'\]`, found something else"),
        (later_format, {}, ValueError, r"Expected a fitted flow of format 6 in .*, found 99 from a later version. Update perturbflow"),
        (raw_counts, {}, ValueError, "Expected log1p-normalised expression in `adata.X`, found raw counts"),
        (no_controls, {}, ValueError, r"Expected control cells \('control' in .* found none among 600 cells"),
        (empty_cell_type, {}, ValueError, r"Expected a value of \['cell_type'\] for every control cell"),
        (other_genes, {}, ValueError, r"found that 2 are missing: \['GENE_000', 'GENE_039'\]"),
        (repeated_genes, {}, ValueError, r"found repeated \['z1'\]"),
        (None, {"perturbations": "AB"}, ValueError, r"found 'AB' in `perturbations` for cell_type='type_1'. The most similar of 4 known ones are \['A', 'B', 'C'\]"),
        (None, {"perturbations": ["A", "B+x"]}, ValueError, "Expected a known perturbation, found 'x'"),
        (None, {"perturbations": "A+A"}, ValueError, "Expected every component once in a perturbation"),
        (None, {"perturbations": []}, ValueError, "Expected at least one perturbation in `perturbations`, found none"),
        (None, {"perturbations": ["A", 3]}, TypeError, "Expected `perturbations` to be a label, or several, found 3"),
        (None, {"perturbations": 3}, TypeError, "Expected `perturbations` to be a label, or several, found 3"),
        (None, {"perturbations": ["B+D", "D+B"], "dose": "1+0.5"}, ValueError, r"one dose of 'B\+D', found \['1\+0.5', '0.5\+1'\]"),
        (None, {"covariates": {"cell_typ": "type_1"}}, KeyError, "Expected 'cell_typ' in `the covariates of the fitted flow`"),
        (None, {"covariates": {"cell_type": "T"}}, ValueError, "Expected 'cell_type' to be one of .*, found 'T'"),
        (None, {"n_cells": 5}, ValueError, "Expected `n_cells` together with `as_anndata=True` or `path`"),
        (None, {"path": 3}, TypeError, "Expected `path` to be the path of a file to write, found 3"),
        (None, {"path": "cells.csv"}, ValueError, r"Expected `path` to end in one of \['.h5ad', '.zarr'\], found 'cells.csv'"),
        (None, {"path": "nowhere/cells.zarr"}, ValueError, "Expected the folder of `path` to exist, found none at 'nowhere'"),
        (None, {"path": "cells.zarr", "copy": True}, ValueError, "either in a file or in memory, found .* with `copy=True`"),
        (None, {"path": "cells.zarr", "as_anndata": True}, ValueError, "found .* with `as_anndata=True`. Leave out one"),
        (None, {"n_cells": 0, "as_anndata": True}, ValueError, "Expected `n_cells` to be at least 1"),
        (None, {"dose": -1}, ValueError, "Expected a dose to be a finite number"),
        (None, {"dose": "1+2"}, ValueError, "found 2 in dose '1\\+2' of 'A'"),
        (None, {"n_steps": 0}, ValueError, "Expected `n_steps` to be at least 1"),
        (None, {"guidance": "1"}, TypeError, "Expected `guidance` to be a number"),
        (None, {"guidance": np.nan}, ValueError, "Expected `guidance` to be finite"),
        (None, {"output": "tpm"}, ValueError, r"Expected `output` to be one of .*, found 'tpm'"),
        (None, {"target_total": 1e4}, ValueError, "Expected `target_total` together with `output` 'counts' or 'challenge'"),
        (None, {"output": "counts", "target_total": -1}, ValueError, "Expected `target_total` to be from 1"),
        (shifted, {"output": "counts"}, ValueError, "not integer multiples of one number. Set `target_total` to the total"),
        (None, {"seed": -1}, ValueError, "Expected `seed` to be at least 0"),
        (None, {"device": "abacus"}, ValueError, "Expected `device` to be 'auto' or an available torch device, found 'abacus'"),
        (None, {"device": 0.5}, ValueError, "Expected `device` to be 'auto' or an available torch device, found 0.5"),
        (None, {"key_added": "a/b"}, ValueError, "Expected `key_added` without '/'"),
        (None, {"key_added": "flow"}, ValueError, "found 'flow', which is reserved for pf.tl.fit_flow"),
        (None, {"key_added": "perturbation_doses"}, ValueError, "Choose another `key_added`"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_and_nothing_written(fitted, unchanged, change, options, error, message):
    if change is not None:
        change(fitted)
    with unchanged(fitted), pytest.raises(error, match=message):
        predict_perturbation(fitted, **({"perturbations": "A"} | options))


def test_the_flow_itself_reads_tables_by_name(fitted):
    flow = read_flow(fitted)
    controls = fitted[fitted.obs["perturbation"] == "control"].to_df()[:5]
    dose = pd.Series([1.0, 0.0, 0.0, 0.0], index=flow.vocabulary.components, dtype=np.float32)
    codes = np.zeros(1, dtype=np.int64)
    expected = flow.sample(controls.to_numpy(), dose.to_numpy(), codes, rng=np.random.default_rng(0))
    found = flow.sample(controls.iloc[:, ::-1], dose[::-1], codes, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match="all 40 genes in `controls`, found that 1 are missing"):
        flow.sample(controls.iloc[:, 1:], dose, codes, rng=np.random.default_rng(0))


def kang():
    return kang_ifnb(n_top_genes=150), "B", "IFN-beta"


def simulated():
    adata = simulated_perturb_seq(n_cells=900, n_genes=40, n_perturbations=4, n_combinations=0, seed=2)
    names = adata.obs["cell_type"].unique()
    adata.obs["cell_type"] = adata.obs["cell_type"].astype(str)
    third = np.random.default_rng(0).random(adata.n_obs) < 0.3
    adata.obs.loc[third, "cell_type"] = names[0] + " too"
    return adata, names[1], adata.obs["perturbation"].cat.categories[0]


@pytest.mark.parametrize("cells", [simulated, kang])
def test_a_context_that_was_never_registered_is_as_one_registered_by_its_controls(cells):
    adata, left_out, label = cells()
    is_there = (adata.obs["cell_type"] == left_out).to_numpy()
    controls = adata[is_there & is_control(adata)].copy()
    known, registered = adata[~is_there].copy(), adata[~is_there | is_control(adata)].copy()
    for each in (known, registered):
        setup_perturbation(each, perturbation_key="perturbation", control="control", covariate_keys=["cell_type"])
        fit_flow(each, **QUICK)
    record = predict_perturbation(registered, label, covariates={"cell_type": left_out}, copy=True)
    assert record is not None
    controls.uns["flow"] = known.uns["flow"]
    with pytest.warns(
        UserWarning,
        match=rf"cell_type '{left_out}' was not in training; .* from its .* control cells. The nearest is",
    ):
        predict_perturbation(controls, label)
    found, expected = controls.uns["predicted"]["uncertainty"], record.uns["predicted"]["uncertainty"]
    assert found["kind"].tolist() == expected["kind"].tolist() == ["new context"]
    assert found["context_distance"].item() > 0
    numbers = ["rms_effect", "rms_sd", "context_distance"]
    np.testing.assert_allclose(found[numbers].astype(float), expected[numbers].astype(float), rtol=2e-3)
    np.testing.assert_allclose(controls.varm["predicted_sd"], record.varm["predicted_sd"], rtol=5e-3)
    own = known.uns["flow"], registered.uns["flow"]
    distributions = []
    for entry in own:
        prior = FittedFlow.from_dict(entry).flow.prior
        codes = np.array([len(own[0]["fields"]["vocabulary"]["categories"]["cell_type"])]) if entry is own[0] else None
        if codes is None:
            codes = np.array([list(own[1]["fields"]["vocabulary"]["categories"]["cell_type"]).index(left_out)])
        doses = np.zeros(len(prior.trained))
        doses[list(own[1]["fields"]["vocabulary"]["components"]).index(label)] = 1
        distributions.append(prior.distribution(doses, prior.context(codes, controls.X)))
    np.testing.assert_allclose(distributions[0].expressed, distributions[1].expressed, atol=2e-4)
    np.testing.assert_allclose(distributions[0].mean, distributions[1].mean, rtol=2e-3)

"""What all plots of a prediction share: finding it, and saying what to run where there is none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy import sparse

from perturbflow import pl
from perturbflow.pp import setup_perturbation
from perturbflow.screen import read_fields

PLOTS = [pl.perturbation_effect, pl.expression, pl.embedding]


@pytest.mark.parametrize("plot", PLOTS)
def test_missing_prediction_names_the_call(adata, plot):
    with pytest.raises(
        KeyError, match=r"found those of .*Run pf.tl.predict_perturbation\(adata, \['GENE_999'\]\) first"
    ):
        plot(adata, "GENE_999")
    del adata.uns["predicted"]
    with pytest.raises(KeyError, match=r"found those of \[\]"):
        plot(adata, adata.uns["label"])


def test_advice_has_the_arguments(compared, adata):
    with pytest.raises(KeyError, match=r"\(adata, \['A'\], covariates={'cell_type': 'type_1'}, key_added='other'\)"):
        compared(adata, "A", covariates={"cell_type": "type_1"}, key="other")


@pytest.mark.parametrize("plot", PLOTS)
def test_draws_on_given_axes_and_leaves_no_other_figure(adata, plot):
    _, (left, right) = plt.subplots(1, 2)
    assert plot(adata, adata.uns["label"], ax=right) is right
    assert len(plt.get_fignums()) == 1
    assert not left.has_data()


@pytest.mark.parametrize("plot", PLOTS)
def test_order_of_components_does_not_matter(adata, plot):
    label = adata.uns["label"]
    ax: Any = plot(adata, "+".join(reversed(label.split("+"))))
    assert ax.get_title(loc="left") == label


@pytest.mark.parametrize("plot", PLOTS)
def test_unobserved_perturbation_is_drawn_and_said(unobserved, plot):
    ax: Any = plot(unobserved, unobserved.uns["label"])
    assert ax.get_title(loc="left") == f"{unobserved.uns['label']} (not observed)"
    legend = " ".join(text.get_text() for text in ax.get_legend().get_texts())
    assert "predicted" in legend
    assert "observed" not in legend


@pytest.mark.parametrize("plot", PLOTS)
def test_show(adata, plot, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    plot(adata, adata.uns["label"])
    assert shown == []
    plot(adata, adata.uns["label"], show=True)
    assert shown == [True]


def test_covariates_restrict_all_sources(compared, adata):
    label = adata.uns["label"]
    comparison = compared(adata, label, covariates={"cell_type": "type_2"})
    is_type = (adata.obs["cell_type"] == "type_2").to_numpy()
    is_control = (adata.obs["perturbation"] == "control").to_numpy()
    np.testing.assert_array_equal(comparison.control, np.flatnonzero(is_type & is_control))
    np.testing.assert_array_equal(comparison.predicted_rows, comparison.control)
    expected = np.flatnonzero(is_type & (adata.obs["perturbation"] == label).to_numpy())
    np.testing.assert_array_equal(comparison.observed, expected)
    np.testing.assert_array_equal(comparison.predicted.toarray(), adata.obsm["predicted"][comparison.control].toarray())


def test_contexts_without_prediction_are_not_compared(compared, adata):
    is_other = (adata.obs["cell_type"] == "type_1").to_numpy()
    adata.obsm["predicted"] = sparse.csr_matrix(adata.obsm["predicted"].toarray() * ~is_other[:, None])
    comparison = compared(adata)
    for rows in (comparison.control, comparison.observed, comparison.predicted_rows):
        assert not is_other[rows].any()
    with pytest.raises(ValueError, match="found none with .*type_1.*Run pf.tl.predict_perturbation"):
        compared(adata, covariates={"cell_type": "type_1"})


def test_contexts_without_observed_cells_are_not_compared(compared, adata):
    label = adata.uns["label"]
    adata = adata[((adata.obs["perturbation"] != label) | (adata.obs["cell_type"] == "type_2")).to_numpy()].copy()
    comparison = compared(adata, label)
    assert set(adata.obs["cell_type"].iloc[comparison.control]) == {"type_2"}
    assert set(adata.obs["cell_type"].iloc[comparison.predicted_rows]) == {"type_2"}


@pytest.mark.parametrize(
    ("covariates", "match"),
    [
        ({"tissue": "x"}, "a key of `covariates`.*'cell_type'"),
        ({"cell_type": "type_9"}, r"covariates\['cell_type'\].*type_1"),
    ],
)
def test_unknown_covariates(compared, adata, covariates, match):
    with pytest.raises(ValueError, match=match):
        compared(adata, covariates=covariates)


def test_effects_are_averaged_over_contexts(compared, adata):
    label = adata.uns["label"]
    x = adata.X.toarray().astype(float)
    observed, predicted = [], []
    for cell_type in ("type_1", "type_2"):
        of_type = (adata.obs["cell_type"] == cell_type).to_numpy()
        control = of_type & (adata.obs["perturbation"] == "control").to_numpy()
        of_label = of_type & (adata.obs["perturbation"] == label).to_numpy()
        observed.append(x[of_label].mean(axis=0) - x[control].mean(axis=0))
        predicted.append(adata.obsm["predicted"][control].toarray().mean(axis=0) - x[control].mean(axis=0))
    effects = compared(adata, label).mean_effects()
    np.testing.assert_allclose(effects["observed"], np.mean(observed, axis=0), atol=1e-5)
    np.testing.assert_allclose(effects["predicted"], np.mean(predicted, axis=0), atol=1e-5)


def test_one_of_several_predictions_is_found(compared, adata):
    label = adata.uns["label"]
    adata.obsm[f"predicted_{label}"] = adata.obsm.pop("predicted")
    adata.uns["predicted"] = {
        "perturbations": ["GENE_999", label],
        "obsm": ["nowhere", f"predicted_{label}"],
        "params": {},
    }
    comparison = compared(adata, label)
    assert comparison.label == label
    with pytest.raises(KeyError, match="predict_perturbation"):
        compared(adata, "GENE_999")


def test_genes_that_the_flow_does_not_know_are_left_out(compared, adata):
    label = adata.uns["label"]
    whole = compared(adata, label)
    adata.varm["predicted_sd"].iloc[[0, 7]] = np.nan
    comparison = compared(adata, label)
    kept = np.setdiff1d(np.arange(adata.n_vars), [0, 7])
    assert comparison.genes.tolist() == adata.var_names[kept].tolist()
    for name, effect in comparison.mean_effects().items():
        np.testing.assert_allclose(effect, whole.mean_effects()[name][kept])


def test_new_control_cells_have_the_fields_of_the_flow(compared, adata, monkeypatch):
    label, fields = adata.uns["label"], read_fields(adata)
    controls = adata[(adata.obs["perturbation"] == "control").to_numpy()].copy()
    controls.obs = controls.obs.drop(columns="perturbation")
    del controls.uns["perturbation_fields"]
    controls.uns["flow"] = {}
    controls.uns["predicted"]["params"] = {"key": "flow", "covariates": {}}
    flow = SimpleNamespace(fields=fields, fitted_splits=("train",))
    monkeypatch.setattr("perturbflow.pl._predictions.read_flow", lambda adata, key: flow)
    comparison = compared(controls, label, covariates={"cell_type": "type_2"})
    is_type = (controls.obs["cell_type"] == "type_2").to_numpy()
    assert not comparison.is_observed
    np.testing.assert_array_equal(comparison.predicted.toarray(), controls.obsm["predicted"][is_type].toarray())
    np.testing.assert_array_equal(comparison.sources()["control"], controls.X[np.flatnonzero(is_type)].toarray())


def test_dose_selects_the_observed_cells(compared, adata):
    label = adata.uns["label"]
    of_label = (adata.obs["perturbation"] == label).to_numpy()
    adata.obs["dose"] = np.where(of_label & (np.arange(adata.n_obs) % 2 == 0), "0.5+1", "1")
    keys: dict[str, Any] = {"perturbation_key": "perturbation", "control": "control", "dose_key": "dose"}
    setup_perturbation(adata, covariate_keys=["cell_type"], **keys)
    adata.uns["predicted"]["params"] = {"dose": "0.5+1"}
    comparison = compared(adata, label)
    np.testing.assert_array_equal(comparison.observed, np.flatnonzero(of_label & (adata.obs["dose"] == "0.5+1")))
    assert comparison.title(None) == f"{label}, dose 0.5+1"


@pytest.mark.parametrize("entry", [None, 3, np.zeros(3)])
def test_what_is_no_prediction_is_refused(registered, entry):
    registered.uns["predicted"] = entry
    with pytest.raises(KeyError, match=r"Expected predicted cells of 'A' .* Run pf.tl.predict_perturbation"):
        pl.expression(registered, "A")

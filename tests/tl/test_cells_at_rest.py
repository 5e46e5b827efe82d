"""Snapshots from registration to responses, beside the flow's registration on the same AnnData."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest

import perturbflow as pf


@pytest.fixture(scope="module")
def fitted():
    adata = pf.datasets.simulated_perturb_seq(
        n_cells=1200, n_genes=30, n_perturbations=6, n_combinations=2, cell_types=2, n_regulators=8
    )
    pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control", covariate_keys=["cell_type"])
    pf.pp.setup_dynamics(adata, regulators="is_regulator")
    pf.tl.fit_dynamics(adata)
    pf.tl.infer_graph(adata, n_bootstraps=4)
    return adata


def screen(adata):
    new = ad.AnnData(adata.X, obs=adata.obs, var=adata.var)
    return new.copy()


def test_the_registration_of_the_flow_is_reused(fitted):
    fields = fitted.uns["dynamics_fields"]
    assert fields["perturbation_key"] == "perturbation"
    assert fields["context_keys"] == ["cell_type"]
    assert "time_key" not in fields
    assert "perturbation_fields" in fitted.uns


def test_all_pairs_are_ranked_and_the_true_ones_come_first(fitted):
    edges = fitted.uns["dynamics_graph"]["edges"]
    assert len(edges) == 8 * 29
    assert edges["evidence"].is_monotonic_decreasing
    truth = fitted.varp["true_network"].toarray() != 0
    places = [fitted.var_names.get_indexer(edges[end]) for end in ("source", "target")]
    is_true = truth[places[0], places[1]]
    precision = (np.cumsum(is_true) / np.arange(1, len(is_true) + 1))[is_true].mean()
    assert precision > 1.8 * is_true.mean()


def test_the_graph_has_the_edges_that_are_kept(fitted):
    edges = fitted.uns["dynamics_graph"]["edges"]
    kept = edges[edges["kept"]]
    assert (kept["confidence"] >= 0.5).all()
    assert len(kept) == fitted.varp["dynamics_graph"].nnz == pf.tl.to_networkx(fitted).number_of_edges()
    assert (kept["sign"] == np.sign(kept["weight"])).all()


def test_a_measured_knockout_is_reproduced_also_from_a_file(fitted, tmp_path):
    label = next(name for name in fitted.uns["dynamics"]["perturbations"] if "+" not in name)
    cells = np.asarray(fitted[fitted.obs["perturbation"] == label].X.mean(axis=0)).ravel()
    level = float(cells[fitted.var_names.get_loc(label)])
    pf.tl.simulate_knockout(fitted, {label: level})
    fitted.write_h5ad(tmp_path / "cells.h5ad")
    again = ad.read_h5ad(tmp_path / "cells.h5ad")
    pf.tl.simulate_knockout(again, {label: level})
    response, copy = fitted.uns["knockout"], again.uns["knockout"]
    assert response["perturbed"] == pytest.approx(copy["perturbed"])
    control = np.asarray(fitted[fitted.obs["perturbation"] == "control"].X.mean(axis=0)).ravel()
    free = fitted.var_names != label
    change = response["perturbed"] - response["unperturbed"]
    assert np.corrcoef(change[free], (cells - control)[free])[0, 1] > 0.9
    assert (response["perturbed_sd"] >= 0).all()


def test_combinations_and_kinds_have_a_level(fitted):
    first, second = fitted.uns["dynamics"]["perturbations"][0].split("+")[0], "GENE_029"
    genes = [first, second] if first != second else [first]
    pf.tl.simulate_knockout(fitted, genes, kind="knockdown", key_added="both")
    assert fitted.uns["both"]["interventions"]["gene"].tolist() == genes
    assert np.isfinite(fitted.uns["both"]["response"].iloc[:, 1:].to_numpy()).all()


def test_kinds_of_one_perturbation_are_conditions_of_their_own(fitted):
    adata = screen(fitted)
    adata.obs["kind"] = np.where(np.arange(adata.n_obs) % 2, "CRISPRi", "CRISPRa")
    pf.pp.setup_dynamics(adata, perturbation_key="perturbation", perturbation_type_key="kind")
    pf.tl.fit_dynamics(adata)
    names = adata.uns["dynamics"]["perturbations"]
    singles = [name for name in names if "+" not in name]
    assert len({name.split("|")[0] for name in singles}) * 2 == len(singles)


def test_cells_without_perturbations_have_a_graph(fitted):
    adata = screen(fitted)
    pf.pp.setup_dynamics(adata)
    pf.tl.fit_dynamics(adata)
    pf.tl.infer_graph(adata, n_bootstraps=0)
    assert len(adata.uns["dynamics_graph"]["edges"]) == 30 * 29


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trajectory_key": "cell_type"}, "found no `time_key`"),
        ({"perturbation_type_key": "cell_type"}, "Expected `perturbation_key` together with"),
        ({"perturbation_key": "cell_type"}, "none of which is a gene"),
        ({"perturbation_key": "perturbation", "control": "untreated"}, "at least 10 cells without"),
        ({"time_key": "time", "perturbation_type_key": "cell_type"}, "only without a time"),
    ],
)
def test_wrong_registrations_are_refused_before_anything_is_written(fitted, options, message):
    adata = screen(fitted)
    if options.get("control") == "untreated":
        adata = adata[adata.obs["perturbation"] != "control"].copy()
    with pytest.raises(ValueError, match=message):
        pf.pp.setup_dynamics(adata, **options)
    assert "dynamics_fields" not in adata.uns


def test_what_needs_a_time_says_so(fitted):
    with pytest.raises(ValueError, match="Expected dynamics along time"):
        pf.tl.forecast(fitted)
    with pytest.raises(ValueError, match="no option but `seed`"):
        pf.tl.fit_dynamics(fitted, effort=0.5)
    with pytest.raises(ValueError, match="neither `until` nor `start`"):
        pf.tl.simulate_knockout(fitted, "GENE_000", until=3.0)
    with pytest.raises(ValueError, match="to be 'jacobian' for cells at steady state"):
        pf.tl.infer_graph(fitted, method="correlation")
    with pytest.raises(KeyError, match="Similar names"):
        pf.tl.simulate_knockout(fitted, "GENE_00")


def test_damaged_dynamics_are_refused(fitted):
    adata = screen(fitted)
    stored = dict(fitted.uns["dynamics"])
    adata.uns["dynamics"] = {**stored, "evidence": stored["evidence"][:, ::-1]}
    with pytest.raises(ValueError, match="checksum"):
        pf.tl.simulate_knockout(adata, "GENE_000")


def test_few_cells_and_unmeasured_genes_are_left_out_with_a_warning(fitted):
    adata = screen(fitted)
    labels = adata.obs["perturbation"].astype(str)
    perturbed = np.flatnonzero(labels != "control")
    labels.iloc[perturbed[:3]] = "GENE_029"
    labels.iloc[perturbed[3:30]] = "XIST"
    adata.obs["perturbation"] = labels
    with pytest.warns(UserWarning, match="are omitted") as caught:
        pf.pp.setup_dynamics(adata, perturbation_key="perturbation")
    said = " ".join(str(warning.message) for warning in caught)
    assert "GENE_029" in said
    assert "XIST" in said


def test_a_knockout_of_scaled_expression_is_questioned(fitted, recwarn):
    x = fitted.X.toarray() if hasattr(fitted.X, "toarray") else np.asarray(fitted.X)
    scaled = ad.AnnData((x - x.mean(axis=0)) / (x.std(axis=0) + 0.1) - 1, obs=fitted.obs.copy(), var=fitted.var.copy())
    pf.pp.setup_dynamics(scaled, regulators="is_regulator", perturbation_key="perturbation")
    pf.tl.fit_dynamics(scaled)
    gene = scaled.var_names[scaled.var["is_regulator"]][0]
    for kind in ("knockout", "knockdown"):
        with pytest.warns(UserWarning, match=rf"The {kind} of \['{gene}'\] .* does not mean that a gene is off"):
            pf.tl.simulate_knockout(scaled, gene, kind=kind)
    recwarn.clear()
    pf.tl.simulate_knockout(scaled, {gene: -2.0})
    pf.tl.simulate_knockout(fitted, gene)
    assert not any("does not mean" in str(one.message) for one in recwarn)


def test_a_regulator_on_which_no_gene_depends_is_named(fitted):
    constant = ad.concat(
        [
            ad.AnnData(fitted.X, obs=fitted.obs, var=fitted.var),
            ad.AnnData(np.full((fitted.n_obs, 1), 3.0), obs=fitted.obs),
        ],
        axis=1,
        merge="first",
    )
    constant.var_names = [*fitted.var_names, "constant"]
    constant.X = constant.X.tocsr() if hasattr(constant.X, "tocsr") else constant.X
    regulators = [*fitted.var_names[fitted.var["is_regulator"]], "constant"]
    pf.pp.setup_dynamics(constant, regulators=regulators, perturbation_key="perturbation")
    with pytest.warns(UserWarning, match="cannot be part of any edge"):
        pf.tl.fit_dynamics(constant)
    with pytest.warns(UserWarning, match=r"Holding \['constant'\] changes no other gene: no gene depends on them"):
        pf.tl.simulate_knockout(constant, "constant")

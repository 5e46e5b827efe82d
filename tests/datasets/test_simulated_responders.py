from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perturbflow.datasets import simulated_responders

SMALL: Any = {"fractions": (0.2, 0.7), "n_controls": 300, "n_cells": 400}


def cells_of(adata, label, genes):
    return adata[adata.obs["perturbation"] == label, genes].X.toarray()


def program_of(adata, name):
    return adata.varm["programs"][name].to_numpy()


def correlation(values):
    return np.corrcoef(values.T)[np.triu_indices(values.shape[1], k=1)].mean()


def test_fractions_are_those_asked_for():
    adata = simulated_responders(**SMALL)
    responds = adata.obsm["responds"].groupby(adata.obs["perturbation"].to_numpy()).mean()
    assert responds.loc["control"].tolist() == [0, 0]
    # The standard error of a fraction of 400 cells is at most 0.025.
    assert abs(responds.loc["P0", "P0"] - 0.2) < 0.08
    assert abs(responds.loc["P1", "P1"] - 0.7) < 0.08
    assert responds.loc["P0", "P1"] == 0
    assert adata.varm["programs"].sum().tolist() == [15, 15]


def test_genes_of_a_program_rise_together_in_responders_only():
    adata = simulated_responders(**SMALL)
    genes = program_of(adata, "P1")
    control, perturbed = cells_of(adata, "control", genes), cells_of(adata, "P1", genes)
    responds = adata.obsm["responds"].loc[(adata.obs["perturbation"] == "P1").to_numpy(), "P1"].to_numpy()
    assert correlation(control) < 0.03
    assert correlation(perturbed) > 0.15
    assert perturbed[responds].mean() > 2 * control.mean()
    np.testing.assert_allclose(perturbed[~responds].mean(), control.mean(), atol=0.05)


def test_responders_of_a_state_are_low_in_it():
    adata = simulated_responders("state", **SMALL)
    of_state = ~adata.varm["programs"].any(axis=1).to_numpy()
    control = cells_of(adata, "control", of_state)
    axis = np.linalg.svd(control - control.mean(axis=0), full_matrices=False)[2][0]
    responds = adata.obsm["responds"].loc[(adata.obs["perturbation"] == "P1").to_numpy(), "P1"].to_numpy()
    state = cells_of(adata, "P1", of_state) @ axis
    assert abs(np.corrcoef(state, responds)[0, 1]) > 0.3


def test_correlations_change_without_the_means():
    adata = simulated_responders("correlation", fractions=(0.2, 0.9), n_controls=1500, n_cells=3000)
    genes = program_of(adata, "P1")
    control, perturbed = cells_of(adata, "control", genes), cells_of(adata, "P1", genes)
    assert correlation(perturbed) > 0.1
    # The mean of exp(0.9 f - 0.9^2 / 2) over 3000 cells has a standard error of 0.02.
    assert abs(np.expm1(perturbed).mean() / np.expm1(control).mean() - 1) < 0.08


def test_homogeneous_cells_all_respond():
    adata = simulated_responders("homogeneous", **SMALL)
    genes = program_of(adata, "P1")
    assert adata.obsm["responds"].loc[(adata.obs["perturbation"] == "P1").to_numpy(), "P1"].all()
    assert correlation(cells_of(adata, "P1", genes)) < 0.03


def test_combinations_are_in_every_type_and_the_same_seed_is_the_same_screen():
    adata = simulated_responders(n_combinations=2, cell_types=2, n_controls=20, n_cells=10)
    counts = adata.obs.value_counts(["perturbation", "cell_type"])
    assert (counts[counts.index.get_level_values(0) != "control"] == 10).all()
    assert len(counts) == 2 * 8
    again = simulated_responders(n_combinations=2, cell_types=2, n_controls=20, n_cells=10)
    assert (adata.X != again.X).nnz == 0


def test_programs_overlap_only_where_genes_do_not_suffice():
    few = simulated_responders(n_genes=20, n_responding=15, n_controls=5, n_cells=5)
    assert few.varm["programs"].sum().tolist() == [15] * 5
    assert simulated_responders(n_controls=5, n_cells=5).varm["programs"].sum(axis=1).max() == 1


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"heterogeneity": "none"}, "Expected `heterogeneity` to be one of"),
        ({"fractions": ()}, "Expected `fractions` between 0 and 1"),
        ({"fractions": (0.5, 1.0)}, "Expected `fractions` between 0 and 1"),
        ({"n_cells": 0}, "Expected `n_cells` to be at least 1, found 0"),
        ({"n_genes": 2.5}, "Expected `n_genes` to be a whole number"),
        ({"effect": np.nan}, "Expected `effect` to be from -100 to 100"),
        ({"n_responding": 200}, "Expected `n_responding` of at most 100 genes, found 200"),
        ({"n_combinations": 11}, "Expected `n_combinations` of at most 10"),
    ],
)
def test_bad_input(options, match):
    with pytest.raises((TypeError, ValueError), match=match):
        simulated_responders(**options)

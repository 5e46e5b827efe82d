from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perturbflow.datasets import simulated_contexts

SMALL: Any = {"n_contexts": 4, "n_perturbations": 6, "n_genes": 50, "n_controls": 40, "n_cells": 20}


def expected(adata, part="all"):
    """Expected expression (contexts, conditions, genes), controls first."""
    n_contexts, n_perturbations = len(adata.uns["context_factors"]), len(adata.uns["perturbation_factors"])
    return adata.uns["expected"][part].to_numpy().reshape(n_contexts, n_perturbations + 1, -1)


def test_expected_values_are_those_of_the_cells():
    adata = simulated_contexts(2, 2, n_genes=100, n_controls=4000, n_cells=2000, n_factors=1)
    label = adata.obs["context"].astype(str) + "|" + adata.obs["perturbation"].astype(str)
    for name, truth in adata.uns["expected"]["all"].iterrows():
        cells = adata[(label == name).to_numpy()].X.toarray()
        errors = (cells.mean(axis=0) - truth) / (cells.std(axis=0) / np.sqrt(len(cells)))
        assert 0.8 < np.sqrt(np.square(errors).mean()) < 1.25


def test_every_perturbation_is_in_every_context():
    adata = simulated_contexts(**SMALL)
    counts = adata.obs.value_counts(["context", "perturbation"])
    assert len(counts) == 4 * 7
    assert (counts.xs("control", level="perturbation") == 40).all()
    assert (counts.drop("control", level="perturbation") == 20).all()
    assert adata.varm["conserved"].shape == (50, 6)


def test_sizes_are_those_asked_for():
    adata = simulated_contexts(
        6, 30, n_genes=200, conserved=0.4, interaction=0.2, learnable=0.5, n_controls=1, n_cells=1
    )
    assert np.sqrt(np.square(adata.varm["conserved"]).to_numpy().mean()) == pytest.approx(0.4)
    factors = (adata.uns["perturbation_factors"], adata.uns["context_factors"], adata.varm["gene_factors"])
    interactions = np.einsum("pk,ck,gk->pcg", *factors)
    assert np.square(interactions).mean() == pytest.approx(0.5 * 0.2**2)
    np.testing.assert_allclose(adata.uns["context_factors"].sum(), 0, atol=1e-12)


def test_nothing_to_learn_and_nothing_else():
    nothing = simulated_contexts(**SMALL, learnable=0.0)
    np.testing.assert_array_equal(expected(nothing, "learnable"), expected(nothing, "conserved"))
    everything = simulated_contexts(**SMALL, learnable=1.0)
    np.testing.assert_array_equal(expected(everything, "learnable"), expected(everything))
    conserved = simulated_contexts(**SMALL, interaction=0.0)
    np.testing.assert_array_equal(expected(conserved, "conserved"), expected(conserved))
    assert (expected(everything)[:, 1:] != expected(everything, "conserved")[:, 1:]).any()
    np.testing.assert_array_equal(expected(everything)[:, 0], expected(everything, "conserved")[:, 0])


def test_context_factors_are_read_from_controls_as_far_as_asked():
    def explained(readable):
        adata = simulated_contexts(12, 1, n_genes=400, n_factors=2, readable=readable, n_controls=1, n_cells=1)
        level = np.log(expected(adata)[:, 0])
        level -= level.mean(axis=0)
        factors = np.linalg.qr(adata.uns["context_factors"])[0]
        return np.square(factors.T @ level).sum() / np.square(level).sum()

    assert explained(1.0) > 0.9
    assert explained(0.0) < 0.35
    assert 0.5 < explained(0.5) < 0.8


def test_the_same_seed_is_the_same_screen():
    adata, again, other = (simulated_contexts(**SMALL, seed=seed) for seed in (1, 1, 2))
    assert (adata.X != again.X).nnz == 0
    assert (adata.X != other.X).nnz > 0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n_contexts": 0}, "Expected `n_contexts` to be at least 1, found 0"),
        ({"n_factors": 1.5}, "Expected `n_factors` to be a whole number"),
        ({"conserved": -0.1}, "Expected `conserved` to be from 0 to 100"),
        ({"interaction": np.inf}, "Expected `interaction` to be from 0 to 100, found inf"),
        ({"learnable": 1.1}, "Expected `learnable` to be from 0 to 1, found 1.1"),
        ({"readable": np.nan}, "Expected `readable` to be from 0 to 1"),
    ],
)
def test_bad_input(options, match):
    with pytest.raises((TypeError, ValueError), match=match):
        simulated_contexts(**SMALL | options)

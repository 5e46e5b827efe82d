"""What responses consist of, on screens whose true effects are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from perturbflow.datasets import simulated_contexts
from perturbflow.evaluation._response_parts import (
    PARTS,
    Responses,
    response_parts,
    split_half_reliability,
    summary_of_parts,
)
from perturbflow.pp import setup_perturbation
from perturbflow.tl import explain_response


def exact(effects, contexts, doses):
    """Effects without noise."""
    zeros = np.zeros(len(effects))
    return Responses(
        np.asarray(effects, dtype=float), zeros, zeros, zeros.astype(int), np.array(contexts), sparse.csr_matrix(doses)
    )


def registered(adata):
    setup_perturbation(adata, perturbation_key="perturbation", control="control", covariate_keys=["context"])
    return adata


def true_parts(adata, table, part="all"):
    """The same formula for the expected values of the simulation."""
    expected = adata.uns["expected"][part]
    names = sorted(set(table["perturbation"]))
    rows = list(zip(table["perturbation"], table["context"], strict=True))
    effects = [expected.loc[f"{c}|{p}"] - expected.loc[f"{c}|control"] for p, c in rows]
    contexts = [int(context[-1]) for _, context in rows]
    return response_parts(exact(effects, contexts, np.eye(len(names))[[names.index(p) for p, _ in rows]]))


def test_parts_by_hand():
    # Two genes, perturbations A and B in two contexts: both raise the first gene by 1; A alone raises the second, by 2
    # in one context and by 4 in the other.
    effects = [[1, 2], [1, 0], [1, 4], [1, 0]]
    parts = response_parts(exact(effects, [0, 0, 1, 1], np.tile(np.eye(2), (2, 1))))
    np.testing.assert_allclose(parts["total"], [2.5, 0.5, 8.5, 0.5])
    np.testing.assert_allclose(parts["template"], [0.5, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(parts["conserved"], [4, 0, 4, 0])  # (2 x 4) / 2 genes
    np.testing.assert_allclose(parts["interaction"], [-2, 0, 4, 0])
    np.testing.assert_allclose(sum(parts[part] for part in PARTS), parts["total"])


def test_the_template_is_of_conditions_without_any_common_component():
    doses = [[1, 0, 0], [2, 0, 0], [1, 1, 0], [0, 0, 1]]  # A, A at another dose, A+B, C
    template = exact([[1.0], [2.0], [4.0], [8.0]], [0, 0, 0, 0], doses).template()
    np.testing.assert_allclose(template.ravel(), [8, 8, 8, 7 / 3])
    alone = exact([[1.0]], [0], [[1, 0, 0]])
    assert np.isnan(alone.template()).all()
    assert np.isnan(response_parts(alone)["interaction"]).all()
    assert response_parts(alone)["effect"].tolist() == [1]


@pytest.mark.parametrize("learnable", [0.0, 1.0])
def test_parts_are_those_of_the_true_effects(learnable):
    found, truth, planted = [], [], []
    for seed in range(3):
        adata = registered(simulated_contexts(5, 16, n_genes=60, learnable=learnable, seed=seed, n_cells=40))
        explain_response(adata, seed=seed)
        table = adata.uns["response_parts"]
        np.testing.assert_allclose(table[list(PARTS)].sum(axis=1), table["total"], rtol=1e-10)
        true = true_parts(adata, table)
        found.append(table[["effect", "template", "conserved", "interaction"]].mean())
        truth.append([true[name].mean() for name in found[-1].index])
        planted.append(true_parts(adata, table, "conserved")["effect"].mean())
    found, truth = np.mean(found, axis=0), np.mean(truth, axis=0)
    assert np.abs(found - truth).max() < 0.04 * truth[0]
    # Interactions of a perturbation sum to 0 over the contexts where they are of factors, and are counted for more.
    conserved = np.mean(planted) - (0 if learnable == 0 else (truth[0] - np.mean(planted)) / 4)
    assert found[1] + found[2] == pytest.approx(conserved, abs=0.06 * truth[0])


def test_noise_is_the_total_where_nothing_happens():
    totals, effects = [], []
    for seed in range(5):
        adata = registered(simulated_contexts(3, 8, n_genes=40, conserved=0, interaction=0, n_cells=30, seed=seed))
        explain_response(adata)
        table = adata.uns["response_parts"]
        totals.append(table["total"].mean())
        effects.append(table[["effect", "template", "conserved", "interaction"]].mean())
    effects = np.array(effects) / np.mean(totals)
    assert (np.abs(effects.mean(axis=0)) < 0.08).all()
    assert (effects < 0).any()  # not cut at 0
    assert (table["own_reliability"] < 0).any()


def test_reliability_is_that_of_new_cells():
    adata = registered(simulated_contexts(3, 20, n_genes=60, n_cells=60, seed=1))
    explain_response(adata)
    table = adata.uns["response_parts"]
    again = registered(simulated_contexts(3, 20, n_genes=60, n_cells=60, seed=1))
    rng = np.random.default_rng(0)
    # Cells of the same conditions, each drawn from a Poisson distribution of the same mean, would be another screen; shuffled
    # halves of one screen, each as large as a half, have the reliability before the correction.
    order = rng.permutation(again.n_obs)
    halves = [again[np.sort(order[: again.n_obs // 2])].copy(), again[np.sort(order[again.n_obs // 2 :])].copy()]
    for half in halves:
        explain_response(half, min_cells=4)
    expected = np.mean([half.uns["response_parts"]["reliability"].mean() for half in halves])
    assert expected < table["reliability"].mean() < 1
    effect = 1 - table["noise"].sum() / table["total"].sum()  # the closed form of the same, over all conditions
    assert table["reliability"].mean() == pytest.approx(effect, abs=0.05)


def test_reliability_by_hand():
    doses = np.eye(2)
    first, second = exact([[1, 2, 3], [1, 0, 0]], [0, 1], doses), exact([[2, 4, 6], [0, 1, 0]], [0, 1], doses)
    r = [1, -0.5]
    np.testing.assert_allclose(split_half_reliability([(first, second)]), r)
    half = exact([[1, 2, 3], [1, 0, 0]], [0, 1], doses), exact([[1, 3, 2], [1, 0, 0]], [0, 1], doses)
    np.testing.assert_allclose(split_half_reliability([half]), [2 * 0.5 / 1.5, 1])


def test_one_context_and_one_perturbation():
    adata = simulated_contexts(1, 4, n_genes=20, seed=0)
    setup_perturbation(adata, perturbation_key="perturbation", control="control")
    explain_response(adata)
    table, summary = adata.uns["response_parts"], adata.uns["response_parts_summary"].set_index("part")
    assert table[["conserved", "interaction"]].isna().all(axis=None)
    np.testing.assert_allclose(table["template"] + table["own"] + table["noise"], table["total"])
    assert summary.loc["template", "n_conditions"] == 4
    assert np.isnan(summary.loc["conserved", "share_of_effect"])
    one = adata[adata.obs["perturbation"].isin(["control", "P000"])].copy()
    explain_response(one)
    assert one.uns["response_parts"]["effect"].notna().all()
    assert one.uns["response_parts_summary"][["share_of_effect", "lower", "upper"]].isna().all(axis=None)


def test_a_single_perturbation_is_conserved_or_not():
    # The same in two of three contexts, and the opposite in the third: no template to take from it.
    parts = response_parts(exact([[2.0], [2.0], [-2.0]], [0, 1, 2], np.ones((3, 1))))
    assert np.isnan(parts["template"]).all()
    np.testing.assert_allclose(parts["own"], parts["effect"])
    np.testing.assert_allclose(parts["conserved"], [0, 0, -4])
    np.testing.assert_allclose(parts["interaction"], [4, 4, 8])
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"perturbation": "A", **parts})
    summary = summary_of_parts(table, n_resamples=10, rng=rng).set_index("part")
    assert summary.loc["conserved", "share_of_effect"] == pytest.approx(-4 / 12)
    assert np.isnan(summary.loc["template", "share_of_effect"])


def test_intervals_are_over_perturbations():
    table = pd.DataFrame({"perturbation": ["A", "A", "B"], "effect": [1.0, 1.0, 2.0], "total": [2.0, 2.0, 3.0]})
    table = table.assign(template=[1.0, 1.0, 0.0], conserved=0.0, interaction=[0.0, 0.0, 2.0], noise=1.0)
    summary = summary_of_parts(table, n_resamples=200, rng=np.random.default_rng(0)).set_index("part")
    assert summary["share_of_effect"].tolist()[:3] == [0.5, 0.0, 0.5]
    assert summary.loc["template", ["lower", "upper"]].tolist() == [0, 1]  # either perturbation alone
    assert summary["share_of_total"].sum() == pytest.approx(1)


def test_small_conditions_are_left_out():
    adata = registered(simulated_contexts(2, 3, n_genes=10, n_cells=12, seed=0))
    few = np.flatnonzero((adata.obs["perturbation"] == "P001") & (adata.obs["context"] == "context_1"))
    adata = adata[np.setdiff1d(np.arange(adata.n_obs), few[:5])].copy()
    with pytest.warns(UserWarning, match="Left out 1 conditions with fewer than 10 cells"):
        explain_response(adata)
    table = adata.uns["response_parts"]
    assert len(table) == 5
    assert table.loc[table["perturbation"] == "P001", "interaction"].isna().all()
    assert table["template"].notna().all()


def test_where_it_writes(unchanged):
    adata = registered(simulated_contexts(2, 3, n_genes=10, seed=0))
    with unchanged(adata):
        copy = explain_response(adata, key_added="mine", copy=True)
    assert isinstance(copy, AnnData)
    assert {"mine", "mine_summary"} <= set(copy.uns)
    explain_response(copy, key_added="mine")  # an earlier one is replaced


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_cells": 3}, "Expected `min_cells` to be at least 4, found 3"),
        ({"n_resamples": 0}, "Expected `n_resamples` to be at least 1, found 0"),
        ({"seed": -1}, "Expected `seed` to be at least 0, found -1"),
        ({"min_cells": 5000}, r"Expected conditions with at least 5000 cells .* found none of 6. Lower `min_cells`"),
        ({"key_added": "flow"}, "Expected `key_added` to be an unused key"),
    ],
)
def test_wrong_settings(options, message, unchanged):
    adata = registered(simulated_contexts(2, 3, n_genes=10, seed=0))
    with unchanged(adata), pytest.raises(ValueError, match=message):
        explain_response(adata, **options)


def test_without_fields():
    with pytest.raises(KeyError, match=r"pf.pp.setup_perturbation"):
        explain_response(AnnData(np.ones((4, 2), dtype=np.float32)))

"""Which perturbations to measure next, on screens where that is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from anndata import AnnData

from perturbflow.datasets import simulated_contexts, simulated_perturb_seq
from perturbflow.flow import mean_expression
from perturbflow.pp import setup_perturbation
from perturbflow.predict import read_flow
from perturbflow.predict._next_measurements import Measurable, greedy_choice, measurable
from perturbflow.tl import fit_flow, interaction_scores, next_perturbations

KEYS = ["perturbation", "context"]
UNCALIBRATED: Any = {"calibrate": False}


def fitted(adata, keep):
    """The cells that are kept, with a flow fitted on them; labels of the others are known."""
    adata = adata.copy()
    setup_perturbation(adata, perturbation_key="perturbation", control="control", covariate_keys=["context"])
    adata.obs["split"] = np.where(keep, "train", "test")
    fit_flow(adata, preset="prior", plan_kwargs=UNCALIBRATED, progress_bar=False)
    return adata


def first_cells(adata, numbers):
    """Which cells are kept: so many of every condition in a mapping, all of the others."""
    rank = adata.obs.groupby(KEYS, observed=True).cumcount().to_numpy()
    most = [numbers.get(pair, np.inf) for pair in zip(*(adata.obs[key].astype(str) for key in KEYS), strict=True)]
    return rank < np.array(most)


@pytest.fixture(scope="module")
def screen():
    """P002 was measured in one context of three, P004 in all with few cells, P005 nowhere."""
    adata = simulated_contexts(3, 6, n_genes=40)
    numbers = {("P002", "context_1"): 0, ("P002", "context_2"): 0}
    numbers |= {("P004", f"context_{k}"): 4 for k in range(3)} | {("P005", f"context_{k}"): 0 for k in range(3)}
    return fitted(adata, first_cells(adata, numbers))


def chosen(adata, *args, **options):
    copy = next_perturbations(adata, *args, copy=True, **options)
    assert copy is not None
    return copy.uns["next_perturbations"]


def test_what_is_least_known_is_measured_first(screen):
    table = chosen(screen, n=18)
    assert not table.duplicated(KEYS).any()
    assert len(table) == 18  # 6 perturbations in 3 contexts
    order = list(zip(table["perturbation"], table["context"], strict=True))
    unknown = [("P005", f"context_{k}") for k in range(3)] + [("P002", "context_1"), ("P002", "context_2")]
    assert set(order[:8]) == {*unknown, *(("P004", f"context_{k}") for k in range(3))}
    assert order[0] in unknown
    first = table[table["perturbation"] == "P005"]
    assert first["reduction"].is_monotonic_decreasing
    assert first["kind"].tolist() == ["unseen"] * 3
    assert table["kind"].value_counts().to_dict() == {"seen": 13, "unseen": 3, "new context": 2}
    assert table.set_index(KEYS).loc[[("P004", "context_1")], "n_training_cells"].tolist() == [4]
    assert table["reduction"].is_monotonic_decreasing
    np.testing.assert_allclose(table["reduction_per_cell"], table["reduction"] / 100)
    np.testing.assert_allclose(table["cumulative_share"], table["share_of_variance"].cumsum())
    assert table["cumulative_share"].iloc[-1] < 1


def test_more_cells_tell_more_and_each_of_them_less(screen):
    few, many = (chosen(screen, ["P005"], n=1, n_cells=n).iloc[0] for n in (20, 200))
    assert few["reduction"] < many["reduction"] < 10 * few["reduction"]
    infinite = chosen(screen, ["P005"], n=3, n_cells=10**9)
    assert infinite["cumulative_share"].iloc[-1] == pytest.approx(1)


def test_only_candidates_count(screen):
    assert set(chosen(screen, ["P000", "P001"], n=4)["perturbation"]) == {"P000", "P001"}
    pairs = chosen(screen, ["P000", "P001"], n=9, combinations=True)
    assert pairs["perturbation"].value_counts().to_dict() == {"P000+P001": 3, "P000": 3, "P001": 3}
    assert pairs["perturbation"].iloc[0] == "P000+P001"  # with both errors and what is not known of interactions


def test_variances_are_those_of_predictions_without_those_of_controls(screen):
    flow = read_flow(screen)
    prior = flow.flow.prior
    contexts = [prior.context(np.array([k])) for k in range(3)]
    doses = flow.vocabulary.encode_perturbations(["P002"]).toarray()[0]
    found = measurable(flow, doses, contexts)
    own = np.einsum("ccg->cg", found.covariance)
    for k in (1, 2):  # where it was not measured
        control_sd = mean_expression(prior, np.zeros_like(doses), contexts[k])[1]
        stated = mean_expression(prior, doses, contexts[k])[1]
        assert (own[k] <= stated**2 * 1.01).all()
        assert own[k].sum() == pytest.approx((stated**2 - control_sd**2).sum(), rel=0.15)
    values = np.linalg.eigvalsh(found.covariance.transpose(2, 0, 1))
    assert values.min() > -1e-9


def test_expected_reduction_is_that_of_normal_errors():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(3, 3))
    covariance = (root @ root.T)[..., None] * np.array([1.0, 2.0])
    one = Measurable(covariance, np.array([[2.0, 3.0]] * 3), ("seen",) * 3)
    after = one.measured(1, 10)
    assert one.variance - after.variance == pytest.approx(one.reductions(10)[1])
    # Conditioning by the textbook: the precision of what is measured is added.
    for gene, noise in enumerate((0.2, 0.3)):
        precision = np.linalg.inv(covariance[..., gene])
        precision[1, 1] += 1 / noise
        np.testing.assert_allclose(after.covariance[..., gene], np.linalg.inv(precision))
    choices, variance = greedy_choice([one].__getitem__, 1, n=5, n_cells=10)
    order = [choice.context for choice in choices]
    assert variance == pytest.approx(one.variance)
    assert choices[1].reduction == pytest.approx(one.measured(order[0], 10).reductions(10)[order[1]])
    assert sorted(order) == [0, 1, 2]
    assert order[0] == int(one.reductions(10).argmax())


def error(adata, expected):
    """Squared error of the predicted effects, summed over all conditions and genes."""
    flow = read_flow(adata)
    prior, total = flow.flow.prior, 0.0
    for code, name in enumerate(dict(flow.vocabulary.covariates)["context"]):
        context = prior.context(np.array([code]))
        control = mean_expression(prior, np.zeros(len(prior.trained)), context)[0]
        for k, label in enumerate(flow.vocabulary.components):
            effect = mean_expression(prior, np.eye(len(prior.trained))[k], context)[0] - control
            true = expected.loc[f"{name}|{label}"] - expected.loc[f"{name}|control"]
            total += float(np.square(effect - true.to_numpy()).sum())
    return total


def test_chosen_conditions_help_more_than_random_ones():
    better, gained, expected = 0, [], []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        adata = simulated_contexts(3, 10, n_genes=30, n_cells=80, conserved=0.5, interaction=0.3, seed=seed)
        pairs = [(f"P{p:03d}", f"context_{c}") for p in range(10) for c in range(3)]
        numbers = {pair: int(rng.choice([0, 5, 40])) for pair in pairs}
        before = fitted(adata, first_cells(adata, numbers))
        start = error(before, adata.uns["expected"]["all"])

        def after(some, numbers=numbers, adata=adata):
            more = numbers | {pair: numbers[pair] + 40 for pair in some}
            return error(fitted(adata, first_cells(adata, more)), adata.uns["expected"]["all"])

        table = chosen(before, n=6, n_cells=40)
        own = after(list(zip(table["perturbation"], table["context"], strict=True)))
        others = [after([pairs[k] for k in rng.choice(len(pairs), 6, replace=False)]) for _ in range(3)]
        better += sum(own < other for other in others)
        gained.append([start - own, start - np.mean(others)])
        expected.append(table["reduction"].sum())
    gained = np.mean(gained, axis=0)
    assert better >= 5
    assert gained[0] > 1.3 * gained[1]
    assert 0.25 < np.mean(expected) / gained[0] < 1.5  # what was promised has come


def test_doses_are_candidates_of_their_own():
    adata = simulated_perturb_seq(n_cells=300, n_genes=20, n_perturbations=3, n_combinations=0)
    adata.obs["dose"] = np.where(np.arange(adata.n_obs) % 2, 1.0, 10.0)
    setup_perturbation(adata, perturbation_key="perturbation", control="control", dose_key="dose")
    adata.obs["split"] = "train"
    fit_flow(adata, preset="prior", plan_kwargs=UNCALIBRATED, progress_bar=False)
    assert set(chosen(adata, n=6)["dose"]) == {"1", "10"}
    assert set(chosen(adata, n=3, dose=10)["dose"]) == {"10"}


def test_a_context_that_was_never_registered_is_the_least_known(screen):
    new = screen[screen.obs["perturbation"] == "control"].copy()
    new.obs["context"] = new.obs["context"].astype(str).replace({"context_2": "elsewhere"})
    new.X = new.X.multiply((new.obs["context"] == "elsewhere").to_numpy()[:, None] * 0.5 + 1).tocsr()
    with pytest.warns(UserWarning, match="'elsewhere' was not in training"):
        table = chosen(new, ["P000", "P001"], n=6)
    assert table["context"].iloc[:2].tolist() == ["elsewhere", "elsewhere"]
    assert set(table["context"]) == {"context_0", "context_1", "elsewhere"}
    with pytest.warns(UserWarning, match="'elsewhere' was not in training"):
        interaction_scores(new, ["P000+P001"])
    assert new.uns["interaction_scores"]["source"].tolist() == ["predicted"] * 3


def test_where_it_writes(screen, unchanged):
    with unchanged(screen):
        copy = next_perturbations(screen, key_added="mine", n=1, copy=True)
    assert isinstance(copy, AnnData)
    assert copy.uns["mine_params"]["variance"] > copy.uns["mine"]["reduction"].iloc[0] > 0
    next_perturbations(copy, key_added="mine", n=2)
    assert len(copy.uns["mine"]) == 2


@pytest.mark.parametrize(
    ("options", "error_type", "message"),
    [
        ({"n": 0}, ValueError, "Expected `n` to be at least 1, found 0"),
        ({"n_cells": 0}, ValueError, "Expected `n_cells` to be at least 1, found 0"),
        ({"candidates": []}, ValueError, "Expected at least one perturbation in `candidates`"),
        ({"candidates": ["control"]}, ValueError, "Expected perturbations in `candidates`, found 'control'"),
        ({"candidates": ["P0000"]}, ValueError, "Expected a known perturbation, found 'P0000'"),
        ({"key": "other"}, KeyError, "other"),
        ({"key_added": "flow"}, ValueError, "Expected `key_added`"),
    ],
)
def test_wrong_settings(screen, options, error_type, message, unchanged):
    with unchanged(screen), pytest.raises(error_type, match=message):
        next_perturbations(screen, **options)

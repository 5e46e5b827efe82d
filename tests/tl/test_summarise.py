from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
import pandas as pd
import pytest

import perturbflow as pf

if TYPE_CHECKING:
    from anndata import AnnData

CELLS = "Perturbed cells"
QUICK: dict[str, Any] = {
    "metrics": ["energy_distance", "cosine_of_mean_effects"],
    "n_permutations": 20,
    "n_resamples": 50,
    "progress_bar": False,
}


def findings(adata: AnnData, part: str = CELLS, **options: str):
    return pf.tl.summarise(adata, **options).parts[part]


def said(sentences, *words: str) -> list[str]:
    """Sentences with all of some words."""
    plain = [one.replace("\N{NO-BREAK SPACE}", " ") for one in sentences]
    return [one for one in plain if all(word in one for word in words)]


def calls(found) -> list[str]:
    return [step.call for step in found.next_steps]


@pytest.fixture(scope="module")
def judged(_fitted) -> AnnData:
    adata = _fitted.copy()
    pf.tl.evaluate(adata, **QUICK)
    return adata


@pytest.fixture
def evaluated(judged) -> AnnData:
    return judged.copy()


def scores(values: dict[str, list[float]], *, metric: str = "energy_distance", split: str = "test") -> pd.DataFrame:
    """Scores of models at conditions P0, P1, ..."""
    return pd.DataFrame(
        [
            {"split": split, "perturbation": f"P{k}", "model": model, "metric": metric, "value": value, "n_cells": 50}
            for model, each in values.items()
            for k, value in enumerate(each)
        ]
    )


def with_scores(
    adata: AnnData, *tables: pd.DataFrame, verdicts: pd.DataFrame | None = None, fitted=("train",)
) -> AnnData:
    """Cells with an evaluation that is known."""
    from perturbflow.evaluation import summary_table

    table = pd.concat(tables)
    names = [name for name in dict.fromkeys(table["model"]) if name not in {"flow", "other", "ceiling"}]
    summary = summary_table(table, baselines=names, n_resamples=200, rng=np.random.default_rng(0))
    left_out = pd.DataFrame(columns=["split", "perturbation", "reason"], dtype=object)
    adata.uns["evaluation"], adata.uns["evaluation_summary"] = table, summary
    adata.uns["evaluation_verdicts"] = pd.DataFrame() if verdicts is None else verdicts
    adata.uns["evaluation_params"] = {
        "fitted_splits": list(fitted),
        "left_out": left_out,
        "metrics": [],
        "report": left_out,
    }
    return adata


BETTER = {"flow": [1.0, 2.0, 1.5, 1.2], "control cells": [9.0, 8.0, 9.5, 9.2], "mean effect": [3.0, 4.5, 3.2, 3.9]}


def test_registration_alone_says_what_to_do(registered):
    del registered.obs["split"], registered.uns["split"]
    found = findings(registered)
    assert found.asked[0] == (
        "6 perturbations (4 single, 2 combinations) in 2 contexts (cell_type): 600 cells, of which "
        f"{(registered.obs['perturbation'] == 'control').sum()} are controls, and 40 genes."
    )
    assert said(found.asked, "No condition is held out")
    assert found.found == ()
    assert calls(found) == ["pf.pp.split_perturbations(adata, task='combination')", "pf.tl.fit_flow(adata)"]


def test_what_is_held_out_is_counted(registered):
    found = findings(registered)
    assert found.asked[1] == (
        "Held out for the task 'combination': 2 for test and 2 for validation, of 12 perturbed conditions (a perturbation "
        "in a context)."
    )
    assert calls(found) == ["pf.tl.fit_flow(adata)"]


def test_a_fit_is_described_and_an_evaluation_is_next(fitted, unchanged):
    with unchanged(fitted):
        found = findings(fitted)
    assert said(found.found, "with 10 training steps to the cells of train and valid.")
    assert said(found.found, "use entry time 0.5, correction scale 1", "on 2 validation conditions.")
    assert said(found.not_measurable, "chosen on only 2 validation conditions")
    assert calls(found) == ["pf.tl.evaluate(adata)"]


def test_where_the_prior_alone_predicts_this_is_said(registered):
    pf.tl.fit_flow(registered, preset="prior", plan_kwargs={"calibrate": False}, progress_bar=False)
    found = findings(registered)
    assert said(found.found, "without training a network")
    assert said(found.found, "Predictions use the prior alone, since no network was trained")
    # Its two validation conditions are asked by nothing: more of them would change nothing.
    assert not said([*found.found, *found.not_measurable], "chosen")
    assert calls(found) == ["pf.tl.evaluate(adata)"]


def test_interrupted_fits_are_named(fitted):
    fitted.uns["flow"] = _interrupted(fitted)
    found = findings(fitted)
    assert said(found.not_measurable, "this one was interrupted")
    assert "pf.tl.fit_flow(adata, checkpoint='checkpoint')" in calls(found)


def _interrupted(adata: AnnData) -> dict[str, Any]:
    from perturbflow.predict import read_flow

    flow = read_flow(adata)
    flow.settings["interrupted"] = True
    return flow.to_dict()


def test_fits_without_validation_conditions_chose_nothing(fitted):
    fitted.obs["split"] = fitted.obs["split"].astype(str).replace("valid", "test").astype("category")
    assert said(findings(fitted).not_measurable, "without validation conditions, none were chosen")


def test_a_winner_is_told_with_its_interval(registered):
    ceiling = {"ceiling": [0.1, 0.2, 0.1, 0.2]}
    found = findings(with_scores(registered, scores(BETTER | ceiling)))
    (winner,) = said(found.found, "On 4 held-out conditions of the split 'test', flow is better on average")
    assert (
        "energy distance ↓ 1.43, compared with 3.65 for the best baseline (mean effect); difference -2.23, 95 %"
        in winner
    )
    (way,) = said(found.found, "From floor to ceiling")
    # (8.925 - 1.425) / (8.925 - 0.15), and (8.925 - 3.65) / (8.925 - 0.15)
    assert "flow covers 85.5 %" in way
    assert "the best baseline, mean effect, 60.1 %" in way
    assert said(found.not_measurable, "intervals over 4 conditions are too narrow")
    table = found.tables[found.headline]
    assert table["flow"].tolist() == ["1.43"]
    assert table["flow is"].tolist() == ["better"]


def test_a_loser_is_told_too(registered):
    losing = BETTER | {"flow": BETTER["mean effect"], "mean effect": BETTER["flow"]}
    found = findings(with_scores(registered, scores(losing)))
    assert said(found.found, "flow is worse on average than the best baseline")
    assert said([step.reason for step in found.next_steps], "Use the simpler model: mean effect is better")


def test_metrics_whose_higher_values_are_better_have_the_other_arrow(registered):
    cosine = {"flow": [0.9, 0.8, 0.85, 0.9], "control cells": [0.0] * 4, "mean effect": [0.5, 0.3, 0.4, 0.2]}
    found = findings(with_scores(registered, scores(BETTER), scores(cosine, metric="cosine_of_mean_effects")))
    (both,) = said(found.found, "Of 2 metrics")
    assert (
        "better than the respective best baseline on 2 (energy distance ↓ and cosine of mean effects ↑), worse on 0"
        in both
    )


def test_one_condition_says_nothing_of_others(registered):
    one = {model: values[:1] for model, values in BETTER.items()}
    found = findings(with_scores(registered, scores(one)))
    assert said(found.found, "On 1 held-out condition", "a single condition has no interval")
    assert said(found.not_measurable, "only one was evaluated")
    assert found.tables[found.headline]["flow is"].tolist() == ["one condition only"]


def test_conditions_of_the_fit_are_marked(registered):
    found = findings(with_scores(registered, scores(BETTER, split="train")))
    assert said(found.found, "On 4 conditions of the split 'train', which were used in the fit")
    assert "(used in the fit)" in found.headline
    assert said(found.not_measurable, "no held-out condition was evaluated")
    assert "pf.tl.evaluate(adata, splits='test')" in calls(found)


def test_validation_conditions_have_chosen_settings(registered):
    found = findings(with_scores(registered, scores(BETTER, split="valid")))
    assert said(found.not_measurable, "settings were chosen on these conditions")


@pytest.mark.parametrize(
    ("split", "why"), [("test", "two halves of the real cells"), ("train", "these cells were used in the fit")]
)
def test_a_ceiling_that_is_beaten_is_explained(split, why, registered):
    found = findings(with_scores(registered, scores(BETTER | {"ceiling": [2.0] * 4}, split=split)))
    assert said(found.found, "flow is better than the ceiling", why)


def test_baselines_that_are_the_same_share_a_column(registered):
    same = dict.fromkeys(("matching mean", "additive effect"), BETTER["mean effect"])
    found = findings(with_scores(registered, scores(BETTER | same)))
    (table,) = (table for title, table in found.tables.items() if title.startswith("All models"))
    assert "mean effect, matching mean, additive effect" in table.columns
    assert said(found.found, "have identical scores", "mean effect, matching mean and additive effect")


def test_a_model_never_shares_a_column_with_a_baseline(registered):
    found = findings(with_scores(registered, scores(BETTER | {"flow": BETTER["mean effect"]})))
    (table,) = (table for title, table in found.tables.items() if title.startswith("All models"))
    assert {"flow", "mean effect"} <= set(table.columns)
    assert said(found.found, "not significantly different from the best baseline")


def test_columns_and_metrics_without_values_are_left_out(registered):
    rank = scores(dict.fromkeys(BETTER, [np.nan] * 4), metric="normalised_rank")
    found = findings(with_scores(registered, scores(BETTER), rank))
    assert "ceiling" not in found.tables[found.headline].columns
    assert found.tables[found.headline]["metric"].str.contains("rank").sum() == 0
    assert said(found.not_measurable, "undefined for these conditions: normalised rank ↓")


def test_verdicts_name_losses_harm_and_what_cannot_be_seen(registered):
    verdicts = pd.DataFrame(
        {
            "split": "test",
            "perturbation": ["P0", "P1", "P2", "P3"],
            "cell_type": ["T", "T", "T", "U"],
            "model": "flow",
            "n_cells_needed": [10.0, 10.0, 10.0, 300.0],
            "worse_than_controls": [0.0, 1.0, 0.0, 0.0],
            "worse_than_prior": 0.0,
            "verdict": [
                "model better",
                "a baseline is better",
                "no difference could be shown",
                "not measurable at this number of cells",
            ],
        }
    )
    found = findings(with_scores(registered, scores(BETTER), verdicts=verdicts))
    assert said(found.found, "better than every baseline in 1, a baseline is better in 1 (P1 in T), and no difference")
    assert said(found.found, "In 1 condition, flow is significantly worse than predicting no effect: P1 in T.")
    assert said(found.not_measurable, "1 condition without a detectable effect", "P3 in U. About 300 cells each")
    assert "pf.pl.verdicts(adata, split='test')" in calls(found)


def test_conditions_of_few_cells_are_named(registered):
    adata = with_scores(registered, scores(BETTER))
    adata.uns["evaluation_params"]["left_out"] = pd.DataFrame(
        {"split": ["test"], "perturbation": ["Z"], "cell_type": ["T"], "reason": ["3 real cells"]}
    )
    assert said(findings(adata).not_measurable, "1 condition with too few cells: Z in T.")


def test_several_models_are_each_answered(registered):
    found = findings(with_scores(registered, scores(BETTER | {"other": [7.0, 7.5, 7.2, 7.1]})))
    assert said(found.found, "flow is better on average")
    assert said(found.found, "other is worse on average")


def test_baselines_alone_are_no_answer(registered):
    found = findings(with_scores(registered, scores({name: BETTER[name] for name in ("control cells", "mean effect")})))
    assert said(found.found, "Only baselines were evaluated, on 4 held-out conditions of the split 'test'")
    assert found.headline.startswith("All models")


def test_a_real_evaluation_reads_the_same_after_a_file(evaluated, tmp_path):
    before = str(pf.tl.summarise(evaluated))
    evaluated.write_h5ad(tmp_path / "cells.h5ad")
    assert str(pf.tl.summarise(anndata.read_h5ad(tmp_path / "cells.h5ad"))) == before
    assert "On 2 held-out conditions of the split 'test'" in " ".join(before.split())


def test_a_single_perturbation_has_few_columns(registered):
    labels = registered.obs["perturbation"].isin(["control", "A"])
    one = registered[labels].copy()
    del one.uns["split"], one.obs["split"]
    pf.pp.setup_perturbation(one, perturbation_key="perturbation", control="control")
    one.obs["split"] = "train"
    pf.tl.evaluate(one, key=None, **QUICK)
    found = findings(one)
    (table,) = (table for title, table in found.tables.items() if title.startswith("All models"))
    shared = [column for column in table.columns if "," in column]
    assert sum(column.count(",") + 1 for column in shared) >= 4
    assert said(found.asked, "1 perturbation (1 single): ")


def test_time_courses_at_every_stage(time_courses, fitted_dynamics):
    registered = findings(time_courses, "Dynamics")
    assert registered.asked == (
        "Which of 5 regulators drive which of 5 genes, from 160 cells along `adata.obs['time']`.",
    )
    assert calls(registered) == ["pf.tl.fit_dynamics(adata)"]

    fit = findings(fitted_dynamics, "Dynamics")
    assert said(fit.found, "Dynamics of 5 genes were fitted to 8 trajectories")
    path = fitted_dynamics.uns["dynamics"]["sparsity_path"]
    error = float(path.loc[path["chosen"], "valid_error"].iloc[0])
    assert said(fit.found, "relative error", f"held-out data ↓ is {error:.3g}")
    assert "pf.tl.infer_graph(adata)" in calls(fit)

    pf.tl.infer_graph(fitted_dynamics, n_bootstraps=0)
    graph = findings(fitted_dynamics, "Dynamics")
    n_kept = int(fitted_dynamics.uns["dynamics_graph"]["edges"]["kept"].sum())
    assert said(graph.found, f"The graph has {n_kept} edge", "inferred from the fitted dynamics")
    assert said(graph.not_measurable, "The confidence of the edges")
    assert "pf.tl.infer_graph(adata)" in calls(graph)
    assert said(graph.not_measurable, "requires a known network")
    assert len(graph.tables["Edges with the strongest evidence"]) == min(n_kept, 10)


def test_confidence_is_counted_over_bootstraps(fitted_dynamics):
    pf.tl.infer_graph(fitted_dynamics, n_bootstraps=0)
    record = fitted_dynamics.uns["dynamics_graph"]
    record["parameters"]["n_bootstraps"] = 9
    record["edges"]["confidence"] = np.where(np.arange(len(record["edges"])) < 2, 0.95, 0.4)
    record["edges"]["kept"] = np.arange(len(record["edges"])) < 5
    found = findings(fitted_dynamics, "Dynamics")
    assert said(found.found, "2 of these edges were found in at least 90% of 9 bootstrap fits")
    table = found.tables["Edges with the strongest evidence"]
    assert table["confidence ↑"].tolist() == ["0.95", "0.95", "0.40", "0.40", "0.40"]


def test_graphs_of_baselines_know_no_dynamics(time_courses):
    pf.tl.infer_graph(time_courses, method="correlation")
    assert said(
        findings(time_courses, "Dynamics").found, "from the baseline 'correlation', which does not model dynamics"
    )


def test_interrupted_dynamics_are_named(fitted_dynamics):
    from perturbflow.predict._dynamics_store import StoredDynamics

    stored = StoredDynamics.from_dict(fitted_dynamics.uns["dynamics"])
    stored.settings["interrupted"] = True
    fitted_dynamics.uns["dynamics"] = stored.to_dict()
    assert said(findings(fitted_dynamics, "Dynamics").not_measurable, "this one was interrupted")


def test_both_halves_of_one_screen():
    screen = pf.datasets.simulated_perturb_seq(n_cells=300, n_genes=20, n_perturbations=4, n_combinations=0)
    pf.pp.setup_perturbation(screen, perturbation_key="perturbation", control="control")
    pf.pp.setup_dynamics(screen)
    pf.tl.fit_dynamics(screen)
    summary = pf.tl.summarise(screen)
    assert list(summary.parts) == [CELLS, "Dynamics"]
    assert said(summary.parts["Dynamics"].asked, "assumed to be at steady state (no time is registered)")
    assert said(
        summary.parts["Dynamics"].found,
        "Steady-state dynamics of 20 genes were fitted to the control cells and 4 measured perturbations",
    )
    assert said(calls(summary.parts["Dynamics"]), "pf.tl.simulate_knockout(adata, genes=")


def test_names_of_ones_own_are_in_the_calls(fitted):
    fitted.uns["mine"] = fitted.uns.pop("flow")
    found = findings(fitted, key="mine")
    assert calls(found) == ["pf.tl.evaluate(adata, key='mine')"]


def test_it_prints_itself_and_is_a_page_in_notebooks(registered):
    summary = pf.tl.summarise(with_scores(registered, scores(BETTER)))
    text = str(summary)
    assert repr(summary) == text
    assert text.startswith("Perturbed cells\n===============\n\nData and question\n  - 6 perturbations")
    assert max(map(len, text.splitlines())) < 140
    assert "\n      pf.tl.fit_flow(adata)" in text  # calls are whole lines
    page = summary._repr_html_()
    assert page.count("<h2>") == 1
    assert "<table" in page
    assert "<code>pf.tl.fit_flow(adata)</code>" in page


def test_text_of_the_data_is_no_html(registered):
    verdicts = pd.DataFrame(
        {
            "split": ["test"],
            "perturbation": ["<b>P0"],
            "model": ["flow"],
            "worse_than_controls": [0.0],
            "verdict": ["a baseline is better"],
        }
    )
    page = pf.tl.summarise(with_scores(registered, scores(BETTER), verdicts=verdicts))._repr_html_()
    assert "&lt;b&gt;P0" in page
    assert "<b>P0" not in page


def test_nothing_registered_is_an_error(registered):
    del registered.uns["perturbation_fields"]
    with pytest.raises(KeyError, match=r"Expected registered cells, found neither .* Run `pf.pp.setup_perturbation"):
        pf.tl.summarise(registered)


@pytest.mark.parametrize("name", ["key", "evaluation_key", "split_key", "dynamics_key", "graph_key"])
def test_keys_are_text(name, registered):
    options: dict[str, Any] = {name: 1}
    with pytest.raises(TypeError, match=f"Expected `{name}` to be a string"):
        pf.tl.summarise(registered, **options)


def test_other_content_under_a_key_is_refused(registered):
    registered.uns["flow"] = {"something": "else"}
    with pytest.raises(ValueError, match="Expected a fitted flow in"):
        pf.tl.summarise(registered)


def test_what_is_read_has_a_short_text(fitted, fitted_dynamics):
    from perturbflow.predict import read_dynamics, read_flow

    flow = repr(read_flow(fitted))
    assert flow == (
        "FittedFlow(4 perturbations, 40 genes, covariates ['cell_type'], 10 training steps on ['train', 'valid'])"
    )
    dynamics = repr(read_dynamics(fitted_dynamics))
    assert dynamics.startswith("StoredDynamics(5 genes, 5 regulators, 8 trajectories, ")
    assert len(dynamics) < 100

from __future__ import annotations

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest

from perturbflow.datasets import simulated_perturb_seq
from perturbflow.flow import mean_expression
from perturbflow.pp import setup_perturbation, split_perturbations
from perturbflow.predict import read_flow
from perturbflow.tl import fit_flow, predict_perturbation, rank_perturbations


def ranking(adata, target, **options):
    copy = rank_perturbations(adata, target, copy=True, **options)
    assert copy is not None
    return copy.uns[options.get("key_added", "ranked_perturbations")]


def profile(adata, perturbation, cell_type="type_1"):
    """Predicted mean profile of a perturbation, and the Series by gene."""
    flow = read_flow(adata)
    prior = flow.flow.prior
    code = dict(flow.vocabulary.covariates)["cell_type"].index(cell_type)
    doses = flow.vocabulary.encode_perturbations([perturbation]).toarray()[0]
    distribution = prior.distribution(doses, prior.context(np.array([code])))
    return pd.Series(distribution.expressed * distribution.mean, index=list(flow.genes))


@pytest.fixture(scope="module")
def screen():
    adata = simulated_perturb_seq(n_cells=4000, n_genes=100, n_perturbations=10, n_combinations=12, seed=1)
    setup_perturbation(adata, perturbation_key="perturbation", control="control", covariate_keys=["cell_type"])
    split_perturbations(adata, task="combination", test_fraction=0.3, valid_fraction=0.1, seed=0)
    fit_flow(adata, preset="prior", progress_bar=False)
    return adata


def test_real_perturbed_cells_are_reached_by_their_own_perturbation(screen):
    ranks, errors = [], []
    labels = screen.obs.groupby("perturbation", observed=True)["split"].first().drop("control")
    for label in labels.index[::2]:
        try:
            table = ranking(
                screen,
                {"perturbation": label, "cell_type": "type_1"},
                from_cells={"cell_type": "type_1"},
                combinations=True,
            )
        except ValueError as error:
            errors.append(str(error))
            continue
        ranks.append((labels[label], int(np.flatnonzero(table["perturbation"] == label)[0])))
    assert all("differs from the control cells" in error for error in errors)
    assert len(ranks) > 6
    assert np.mean([rank == 0 for split, rank in ranks if split != "test"]) >= 0.8
    assert np.mean([rank < 3 for split, rank in ranks if split == "test"]) >= 0.6  # of 55 candidates


def test_a_perturbation_reaches_its_own_profile_and_its_opposite_leads_away(fitted):
    controls = profile(fitted, "control")
    effect = profile(fitted, "A") - controls
    start = fitted.X[((fitted.obs["perturbation"] == "control") & (fitted.obs["cell_type"] == "type_1")).to_numpy()]
    mean = pd.Series(np.asarray(start.mean(axis=0)).ravel(), index=fitted.var_names)
    goal = (mean + effect).clip(lower=0)
    table = ranking(fitted, 10 * effect.abs() + goal, from_cells={"cell_type": "type_1"}).set_index("perturbation")
    assert (table["score"] <= 1).all()
    reached = ranking(fitted, goal, from_cells={"cell_type": "type_1"}).set_index("perturbation")
    assert reached.index[0] == "A"
    assert reached.loc["A", "cosine"] > 0.95
    away = ranking(fitted, (mean - effect).clip(lower=0), from_cells={"cell_type": "type_1"})
    assert away.set_index("perturbation").loc["A", "score"] < 0
    assert away.set_index("perturbation").loc["A", "probability_better_than_none"] < 0.5


def test_table(fitted):
    rank_perturbations(fitted, {"cell_type": "type_2"}, from_cells={"cell_type": "type_1"}, combinations=True)
    table = fitted.uns["ranked_perturbations"]
    assert sorted(table["perturbation"]) == ["A", "A+B", "A+C", "A+D", "B", "B+C", "B+D", "C", "C+D", "D"]
    assert (np.diff(table["score"]) <= 1e-12).all()
    assert (table["sd"] > 0).all()
    assert ((table["lower"] < table["score"]) & (table["score"] <= table["upper"])).all()
    assert table["probability_best"].sum() == pytest.approx(1)
    assert table["probability_better_than_none"].between(0, 1).all()
    assert set(table["kind"]) <= {"seen", "combination", "new context", "unseen"}
    by_name = table.set_index("perturbation")
    seen = fitted.obs["split"].isin(["train", "valid"]) & (fitted.obs["perturbation"] == "A")
    assert by_name.loc["A", "n_training_cells"] == seen.sum()
    assert by_name.loc["A+B", "n_training_cells"] == 0
    distance = fitted.uns["ranked_perturbations_params"]["distance"]
    np.testing.assert_allclose(table["score"], 1 - (table["distance"] / distance) ** 2, atol=1e-6)


def test_order_of_candidates_and_of_components_does_not_matter(fitted):
    target = {"cell_type": "type_2"}
    one = ranking(fitted, target, candidates=["A", "D+B", "C"])
    other = ranking(fitted, target, candidates=["C", "A", "B+D"])
    pd.testing.assert_frame_equal(one, other)
    assert set(one["perturbation"]) == {"A", "B+D", "C"}


def test_targets_can_be_named_in_any_way(fitted):
    named = ranking(fitted, {"cell_type": "type_2", "perturbation": ["A", "control"]})
    mask = ((fitted.obs["cell_type"] == "type_2") & fitted.obs["perturbation"].isin(["A", "control"])).to_numpy()
    pd.testing.assert_frame_equal(named, ranking(fitted, mask))
    mean = np.asarray(fitted.X[mask].mean(axis=0)).ravel()
    by_gene = pd.Series(mean, index=fitted.var_names)[::-1]
    pd.testing.assert_frame_equal(ranking(fitted, mean), ranking(fitted, by_gene))
    assert ranking(fitted, mean)["perturbation"].tolist() == named["perturbation"].tolist()


def test_metric_and_level(fitted):
    target = {"cell_type": "type_2"}
    narrow, wide = (ranking(fitted, target, level=level).set_index("perturbation") for level in (0.5, 0.95))
    assert (narrow["lower"] > wide["lower"]).all()
    standardised = ranking(fitted, target, metric="standardised").set_index("perturbation")
    assert (standardised.loc[narrow.index, "score"] != narrow["score"]).any()


def test_survives_a_file(fitted, tmp_path):
    rank_perturbations(fitted, {"cell_type": "type_2"})
    fitted.write_h5ad(tmp_path / "cells.h5ad")
    again = anndata.read_h5ad(tmp_path / "cells.h5ad")
    pd.testing.assert_frame_equal(
        again.uns["ranked_perturbations"], fitted.uns["ranked_perturbations"], check_dtype=False, check_index_type=False
    )
    rank_perturbations(again, {"cell_type": "type_2"})  # an earlier ranking may be replaced


@pytest.mark.parametrize(
    ("target", "options", "error", "message"),
    [
        ({"cell_type": "type_2"}, {"candidates": ["E"]}, ValueError, "Expected a known perturbation, found 'E'"),
        ({"cell_type": "type_2"}, {"candidates": ["control"]}, ValueError, "found 'control' or a dose of 0"),
        ({"cell_type": "type_2"}, {"candidates": []}, ValueError, "at least one perturbation in `candidates`"),
        ({"cell_type": "type_3"}, {}, ValueError, r"found \['type_3'\]"),
        ({"tissue": "lung"}, {}, KeyError, "Expected 'tissue' in `adata.obs`"),
        (np.zeros(600, dtype=bool), {}, ValueError, "Expected cells in `target`, found none"),
        (np.zeros(7, dtype=bool), {}, ValueError, "one boolean for each of 600 cells"),
        (np.zeros(7), {}, ValueError, "one number for each of 40 genes"),
        (np.full(40, np.nan), {}, ValueError, "Expected `target` to be one mean"),
        (pd.Series({"x": 1.0}), {}, ValueError, "found that 40 are missing"),
        ({"perturbation": "control"}, {}, ValueError, "differs from the control cells by more than sampling"),
        (
            {"cell_type": "type_2"},
            {"from_cells": {"perturbation": "A"}},
            ValueError,
            "control cells among `from_cells`",
        ),
        ({"cell_type": "type_2"}, {"metric": "cosine"}, ValueError, "Expected `metric` to be one of"),
        ({"cell_type": "type_2"}, {"level": 1.0}, ValueError, "Expected `level` to be from"),
        ({"cell_type": "type_2"}, {"key": "none"}, KeyError, "pf.tl.fit_flow"),
        (
            {"cell_type": "type_2"},
            {"key_added": "flow"},
            ValueError,
            "found 'flow', which is reserved for pf.tl.fit_flow",
        ),
    ],
)
def test_bad_input_leaves_everything_as_it_is(fitted, unchanged, target, options, error, message):
    with unchanged(fitted), pytest.raises(error, match=message):
        rank_perturbations(fitted, target, **options)


def test_missing_genes(fitted):
    fewer = fitted[:, :30].copy()
    with pytest.raises(ValueError, match="10 are missing"):
        rank_perturbations(fewer, {"cell_type": "type_2"})


def test_uncertainty_of_predictions(fitted):
    predict_perturbation(fitted, ["A", "A+B"])
    table, sds = fitted.uns["predicted"]["uncertainty"], fitted.varm["predicted_sd"]
    flow = read_flow(fitted)
    assert table["perturbation"].tolist() == ["A", "A", "A+B", "A+B"]
    assert table["cell_type"].tolist() == ["type_1", "type_2"] * 2
    assert table["kind"].tolist() == ["seen"] * 2 + ["combination"] * 2
    assert list(sds.columns) == ["A", "A+B"]
    assert list(sds.index) == list(flow.genes)
    assert (sds.to_numpy() > 0).all()
    prior = flow.flow.prior
    doses = flow.vocabulary.encode_perturbations(["A"]).toarray()[0]
    parts = [mean_expression(prior, doses, prior.context(np.array([code])))[1] for code in range(2)]
    parts = [flow.calibration.factor("seen", sd) * sd for sd in parts]
    np.testing.assert_allclose(table["rms_sd"][:2], np.sqrt(np.square(parts).mean(axis=1)))
    shares = fitted.obs.loc[fitted.obs["perturbation"] == "control", "cell_type"].value_counts()[["type_1", "type_2"]]
    np.testing.assert_allclose(sds["A"], np.average(parts, axis=0, weights=shares))


def test_untrained_perturbations_warn(fitted):
    fitted.uns["flow"]["prior"]["trained"][:] = [False, True, True, True]
    del fitted.uns["flow"]["checksum"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(ranking(fitted, {"cell_type": "type_2"})["perturbation"]) == {"B", "C", "D"}
    with pytest.warns(UserWarning, match="No training cells"):
        table = ranking(fitted, {"cell_type": "type_2"}, candidates=["A", "B"]).set_index("perturbation")
    assert table.loc["A", "kind"] == "unseen"


def test_targets_are_read_by_name(fitted):
    mask = fitted.obs["cell_type"] == "type_2"
    expected = ranking(fitted, {"cell_type": "type_2"})
    pd.testing.assert_frame_equal(ranking(fitted, mask[::-1]), expected)
    controls = fitted.obs["cell_type"] == "type_1"
    pd.testing.assert_frame_equal(
        ranking(fitted, mask, from_cells=controls[::-1]), ranking(fitted, mask, from_cells={"cell_type": "type_1"})
    )
    mean = fitted[mask.to_numpy()].to_df().mean()
    pd.testing.assert_frame_equal(ranking(fitted, mean[::-1]), ranking(fitted, mean.to_numpy()))
    pd.testing.assert_frame_equal(ranking(fitted, mean[::-1].to_frame().T), ranking(fitted, mean))


def test_targets_of_other_names_are_refused(fitted):
    mask = (fitted.obs["cell_type"] == "type_2").add_prefix("other")
    with pytest.raises(ValueError, match="all 600 cells in `target`, found that 600 are missing"):
        ranking(fitted, mask)
    with pytest.raises(TypeError, match="Expected `target` to be an array.*found AnnData"):
        ranking(fitted, fitted)


def test_a_signature_is_reversed_by_what_does_the_opposite(fitted):
    start = {"from_cells": {"cell_type": "type_1"}}
    effect = profile(fitted, "A") - profile(fitted, "control")
    follow = ranking(fitted, effect, goal="follow", **start).set_index("perturbation")
    reverse = ranking(fitted, effect, goal="reverse", **start).set_index("perturbation")
    assert follow.index[0] == "A"
    assert follow.loc["A", "score"] == pytest.approx(1, abs=0.02)
    assert follow.loc["A", "cosine"] == pytest.approx(1, abs=1e-3)
    assert reverse.index[-1] == "A"
    for name in ("score", "cosine"):
        np.testing.assert_allclose(reverse[name], -follow.loc[reverse.index, name], atol=1e-12)
    np.testing.assert_allclose(reverse["sd"], follow.loc[reverse.index, "sd"])
    np.testing.assert_allclose(
        reverse["probability_better_than_none"],
        1 - follow.loc[reverse.index, "probability_better_than_none"],
        atol=1e-12,
    )
    assert "distance" not in follow.columns
    half = ranking(fitted, 2 * effect, goal="follow", **start).set_index("perturbation")
    np.testing.assert_allclose(half["score"], follow["score"].loc[half.index] / 2)  # twice as much is asked for


def test_sets_of_genes_score_by_their_mean_change(fitted):
    start = {"from_cells": {"cell_type": "type_1"}}
    effect = profile(fitted, "A") - profile(fitted, "control")
    up, down = effect.nlargest(2).index.tolist(), effect.nsmallest(3).index.tolist()
    found = ranking(fitted, {"up": up, "down": down}, goal="follow", **start).set_index("perturbation")
    expected = (effect[up].sum() - effect[down].sum()) / 5
    assert found.loc["A", "score"] == pytest.approx(expected, rel=1e-5)
    alone = ranking(fitted, {"down": down}, goal="reverse", **start).set_index("perturbation")
    assert alone.loc["A", "score"] == pytest.approx(effect[down].mean(), rel=1e-5)
    with pytest.warns(UserWarning, match=r"1 of 3 genes of the signature are not among those of the flow: \['NONE'\]"):
        rank_perturbations(fitted, {"up": [*up, "NONE"]}, goal="follow", copy=True)


def test_cells_are_a_signature_by_their_difference_from_controls(fitted):
    start = {"from_cells": {"cell_type": "type_1"}}
    target = {"perturbation": "A", "cell_type": "type_1"}
    found = ranking(fitted, target, goal="reverse", **start).set_index("perturbation")
    assert found.index[-1] == "A"
    assert found.loc["A", "score"] == pytest.approx(-1, abs=0.3)
    standardised = ranking(fitted, target, goal="reverse", metric="standardised", **start)
    assert standardised["perturbation"].iloc[-1] == "A"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"up": ["NONE"]}, "Expected a signature of finite numbers"),
        (pd.Series({"NONE": 1.0}), "Expected a signature of finite numbers"),
        (np.ones(3), r"Expected `target` to have one number for each of .* genes, found shape \(3,\)"),
        ({"up": [], "down": []}, "Expected a signature of finite numbers"),
    ],
)
def test_wrong_signatures(fitted, target, message, unchanged):
    with unchanged(fitted), pytest.raises(ValueError, match=message):
        rank_perturbations(fitted, target, goal="reverse")


def test_wrong_goal(fitted):
    with pytest.raises(ValueError, match="Expected `goal` to be one of"):
        rank_perturbations(fitted, {"cell_type": "type_2"}, goal="away")  # type: ignore[arg-type]

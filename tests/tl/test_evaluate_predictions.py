"""Evaluation of cells that other tools predicted, its intervals and its verdicts."""

from __future__ import annotations

import re
from contextlib import nullcontext
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest

from perturbflow.metrics import METRICS
from perturbflow.pp import setup_perturbation
from perturbflow.tl import evaluate
from tests.tl.test_evaluate import SPLIT, screen

QUICK: dict[str, Any] = {"key": None, "metrics": ["energy_distance", "rmse_of_mean_effects"], "progress_bar": False}
MODEL_BETTER, TIE, BASELINE_BETTER, NOT_MEASURABLE = (
    "model better",
    "no difference could be shown",
    "a baseline is better",
    "not measurable at this number of cells",
)


def table(adata, model):
    found = adata.uns["evaluation"]
    return found[found["model"] == model].set_index(["perturbation", "cell_type", "metric"])["value"]


def judged(predicted, **options):
    """What was found, and the report of changes; a report comes with a warning."""
    adata = screen()
    with (
        pytest.warns(UserWarning, match="changed, left out or missing")
        if options.pop("warns", False)
        else nullcontext()
    ):
        evaluate(adata, predicted, **(QUICK | options))
    return adata, adata.uns["evaluation_params"]["report"].set_index("what")


def test_order_of_genes_and_controls_do_not_matter():
    plain, report = judged(screen(seed=1))
    assert report.empty
    other = screen(seed=1)[:, ::-1].copy()
    extra = screen(seed=2)[:30].copy()
    extra.obs["perturbation"] = "control"
    extra.obs["cell_type"] = "V"
    more = anndata.concat([other, extra[:, other.var_names]], index_unique="-")
    found, report = judged(more, warns=True)
    assert set(report.index) == {"genes in a different order, sorted"}
    np.testing.assert_allclose(table(found, "predicted"), table(plain, "predicted"), rtol=1e-9)


@pytest.mark.parametrize(
    ("column", "old", "new", "unmatched", "missing"),
    [
        ("perturbation", "A+B", "A_B", "['A_B']", "['A+B in T', 'A+B in U']"),
        ("perturbation", "A+B", "A+C", "['A+C in T', 'A+C in U']", "['A+B in T', 'A+B in U']"),
        ("perturbation", "C", "never seen", "['never seen']", "['C in T', 'C in U']"),
        ("cell_type", "U", "V", "['A in V', 'A+B in V', 'B in V', 'C in V']", "['A in U', 'A+B in U', 'B in U', 'C in U']"),
    ],
    ids=["spelling", "combination", "unknown", "context"],
)  # fmt: skip
def test_predictions_of_no_real_condition_are_named_with_those_that_have_none(
    unchanged, column, old, new, unmatched, missing
):
    predictions, adata = screen(seed=1), screen()
    predictions.obs[column] = predictions.obs[column].astype(str).replace({old: new})
    match = rf"conditions with real cells in predicted\['mine'\], found .*{re.escape(unmatched)}.*have no prediction: .*{re.escape(missing)}"
    with unchanged(adata), pytest.raises(ValueError, match=match):
        evaluate(adata, {"mine": predictions}, **QUICK)


def test_predictions_of_other_splits_than_the_judged_are_no_fault():
    found, report = judged(screen(seed=1), splits=["test"])
    assert report.empty
    assert set(table(found, "predicted").index.get_level_values(0)) == {"A+B"}
    rest = screen(seed=1)
    rest = rest[rest.obs["perturbation"] != "A+B"].copy()
    match = (
        r"Expected predictions of the evaluated conditions, \['A\+B in T', 'A\+B in U'\], .* found only \['A in T', "
    )
    with pytest.raises(ValueError, match=match):
        judged(rest, splits=["test"])


def test_doses_are_a_part_of_what_is_matched():
    predictions, adata = screen(seed=1), screen()
    for cells, dose in ((adata, 10.0), (predictions, 20.0)):
        cells.obs["dose"] = np.where(cells.obs["perturbation"] == "control", 0.0, dose)
    setup_perturbation(adata, perturbation_key="perturbation", control="control", dose_key="dose")
    with pytest.raises(
        ValueError,
        match=r"found 4 others: \['A \(20\)', .* 4 conditions with real cells have no prediction: \['A \(10\)'",
    ):
        evaluate(adata, predictions, **QUICK)


def test_further_genes_are_left_out_and_missing_ones_refused():
    both = anndata.concat([screen(seed=1), _renamed(screen(seed=1))], axis=1, merge="same")
    found, report = judged(both, warns=True)
    assert report.loc["genes that were not observed, left out", "n"] == 6
    np.testing.assert_array_equal(table(found, "predicted"), table(judged(screen(seed=1))[0], "predicted"))
    adata = screen()
    before = set(adata.uns)
    with pytest.raises(ValueError, match=r"predicted\['mine'\] cannot be compared .* 1 are missing: \['g0'\]"):
        evaluate(adata, {"mine": screen(seed=1)[:, 1:].copy()}, **QUICK)
    assert set(adata.uns) == before


def test_doses_may_be_lists():
    adata, other = screen(), screen(seed=1)
    adata.obs["dose"] = np.where(adata.obs["perturbation"] == "control", 0, 2)
    other.obs["dose"] = pd.Series([[float(dose)] for dose in adata.obs["dose"]], index=other.obs_names)
    setup_perturbation(
        adata, perturbation_key="perturbation", control="control", covariate_keys=["cell_type"], dose_key="dose"
    )
    evaluate(adata, other, **QUICK)
    assert adata.uns["evaluation_params"]["report"].empty
    assert np.isfinite(table(adata, "predicted")).all()


def _renamed(adata):
    adata.var_names = [f"other {name}" for name in adata.var_names]
    return adata


def test_missing_conditions_are_reported_and_have_no_score():
    predictions = screen(seed=1)
    predictions = predictions[predictions.obs["perturbation"] != "C"].copy()
    adata = screen()
    with pytest.warns(
        UserWarning, match=r"Held-out conditions without a prediction of 'predicted': \['C in T', 'C in U'\]"
    ):
        evaluate(adata, predictions, **QUICK)
    found, report = judged(predictions, warns=True)
    assert (report.loc[["no prediction of at least 4 cells"], "model"] == "predicted").all()
    assert len(report) == 2
    assert set(table(found, "predicted").index.get_level_values(0)) == {"A", "B", "A+B"}
    summary = found.uns["evaluation_summary"]
    assert "predicted" not in set(summary.loc[summary["split"] == "valid", "model"])


def test_a_file_is_read(tmp_path):
    screen(seed=1).write_h5ad(tmp_path / "cells.h5ad")
    found, _ = judged({"file": tmp_path / "cells.h5ad"})
    np.testing.assert_array_equal(table(found, "file"), table(judged(screen(seed=1))[0], "predicted"))


def test_the_scale_is_said_and_never_guessed():
    linear = screen(seed=1)
    linear.X = np.expm1(linear.X)
    with pytest.raises(ValueError, match=re.escape("(scale='log1p'), found values up to")):
        judged(linear)
    found, _ = judged(linear, scale="linear")
    np.testing.assert_allclose(table(found, "predicted"), table(judged(screen(seed=1))[0], "predicted"), rtol=1e-4)
    with pytest.raises(ValueError, match="scale"):
        judged(linear, scale="counts")
    negative = screen(seed=1)
    negative.X = -negative.X
    with pytest.raises(ValueError, match="values of at least 0"):
        judged(negative, scale="linear")


def test_missing_columns_are_refused():
    predictions = screen(seed=1)
    del predictions.obs["cell_type"]
    with pytest.raises(KeyError, match="registered columns"):
        judged(predictions)


def test_what_has_no_cells_is_refused():
    with pytest.raises(TypeError, match="AnnData, the path of an h5ad or zarr file, or a fitted sampler"):
        judged({"mine": 3})


def test_not_a_number_is_refused():
    predictions = screen(seed=1)
    predictions.X = predictions.X.toarray() * np.nan
    with pytest.raises(ValueError, match="finite values"):
        judged(predictions)


def verdicts(predictions, **sizes):
    adata = screen(**sizes)
    evaluate(adata, {"mine": predictions}, **QUICK, splits=["valid", "test"])
    return adata.uns["evaluation_verdicts"].set_index(["perturbation", "cell_type"])


def test_a_model_is_better_where_baselines_fail():
    found = verdicts(screen(seed=1, n_cells=90), n_cells=90)
    # What C does, no baseline can know; A and B add.
    assert (found.loc["C", "verdict"] == MODEL_BETTER).all()
    assert (found.loc["C", "upper"] < 0).all()
    assert (found.loc["A+B", "verdict"] != NOT_MEASURABLE).all()
    assert (found["p_value"] < 0.05).all()
    assert (found["n_cells_needed"] < 90).all()


def test_a_model_that_says_nothing_is_no_better_than_no_effect():
    controls = screen(seed=1)
    controls.X = controls.X.toarray()
    for label in ("A", "B", "C", "A+B"):
        rows = controls.obs["perturbation"] == label
        controls.X[np.flatnonzero(rows)] = controls.X[np.flatnonzero(controls.obs["perturbation"] == "control")]
    found = verdicts(controls)
    assert found["verdict"].isin([TIE, BASELINE_BETTER]).all()
    assert (found.loc["A+B", "verdict"] == BASELINE_BETTER).any()  # A and B add, and baselines know


def test_a_model_that_is_worse_than_no_effect_is_called_so():
    wrong = screen(seed=1)
    wrong.X = wrong.X.toarray()
    wrong.X[(wrong.obs["perturbation"] != "control").to_numpy(), 3:] += 6.0
    with pytest.warns(UserWarning, match="on a different scale from the observed ones"):
        found = verdicts(wrong)
    assert (found["verdict"] == BASELINE_BETTER).all()
    assert found["finding"].str.contains("no effect (control cells)", regex=False).all()
    assert (found["lower"] > 0).all()


def test_what_has_no_effect_is_not_measurable():
    adata = screen(n_cells=24)
    adata.X = adata.X.toarray()
    same = adata.obs["perturbation"] == "C"
    adata.X[np.flatnonzero(same)] = screen(n_cells=24, seed=5).X.toarray()[
        np.flatnonzero(adata.obs["perturbation"] == "control")
    ]
    evaluate(adata, screen(seed=1), **QUICK, splits=["valid"])
    found = adata.uns["evaluation_verdicts"]
    assert list(found["perturbation"]) == ["C", "C"]
    measurable = found["p_value"] <= 0.05
    assert (found.loc[~measurable, "verdict"] == NOT_MEASURABLE).all()
    assert (~measurable).any()
    assert (found.loc[~measurable, "n_cells_needed"] > 24).all()


def test_intervals_hold_the_mean_and_differences_are_paired():
    adata, _ = judged(screen(seed=1))
    summary = adata.uns["evaluation_summary"]
    means = summary[summary["metric"].isin(METRICS)]
    assert ((means["lower"] <= means["mean"]) & (means["mean"] <= means["upper"])).all()
    scores = adata.uns["evaluation"]
    for (split, metric), part in means.groupby(["split", "metric"], observed=True):
        part = part.set_index("model")
        own = part.loc["predicted"]
        best = own["best_baseline"]
        assert own["difference"] == pytest.approx(own["mean"] - part.loc[best, "mean"])
        assert own["difference_lower"] <= own["difference"] <= own["difference_upper"]
        candidates = part.drop(index=["predicted", "ceiling"])
        assert candidates["mean"].min() == part.loc[best, "mean"]
        assert len(scores[(scores["split"] == split) & (scores["metric"] == metric)]) == len(part) * 2 * (
            1 + (split == "train")
        )


def test_results_go_through_a_file(tmp_path):
    adata, _ = judged(screen(seed=1), splits=["test"])
    adata.write_h5ad(tmp_path / "judged.h5ad")
    again = anndata.read_h5ad(tmp_path / "judged.h5ad")
    for name in ("evaluation", "evaluation_summary", "evaluation_verdicts"):
        assert list(again.uns[name].columns) == list(adata.uns[name].columns)
    assert set(SPLIT.values()) == {"train", "valid", "test"}


@pytest.mark.parametrize("change", [{"n_resamples": 0}, {"n_permutations": -1}])
def test_bad_numbers(change):
    (name,) = change
    with pytest.raises(ValueError, match=f"Expected `{name}` to be at least"):
        judged(screen(seed=1), **change)


def test_without_permutations_there_are_no_verdicts():
    adata, _ = judged(screen(seed=1), n_permutations=0)
    assert adata.uns["evaluation_verdicts"].empty


def test_very_few_predicted_cells_are_refused(unchanged):
    predictions = screen(seed=1)
    rows = np.flatnonzero(predictions.obs["perturbation"] == "A")
    predictions = predictions[np.setdiff1d(np.arange(predictions.n_obs), rows[3:40])].copy()
    adata = screen()
    with (
        unchanged(adata),
        pytest.raises(ValueError, match=r"at least 4 predicted cells per condition .* found fewer for \['A in T'\]"),
    ):
        evaluate(adata, predictions, **QUICK)
    judged(predictions, splits=["valid", "test"])


def test_counts_are_refused_however_small():
    counts = screen(seed=1)
    counts.X = np.round(counts.X.toarray())
    with pytest.raises(ValueError, match=r"found only whole numbers, up to \d+: raw counts"):
        judged(counts)


def test_predictions_of_other_perturbations_are_refused():
    predictions = screen(seed=1)
    predictions.obs["perturbation"] = "never seen"
    with pytest.raises(
        ValueError, match=r"found 1 others: \['never seen'\]. 8 conditions with real cells have no prediction"
    ):
        judged(predictions)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"predicted\['mine'\] to be the path of an h5ad or zarr file, found no file"
    ):
        judged({"mine": tmp_path / "missing.h5ad"})

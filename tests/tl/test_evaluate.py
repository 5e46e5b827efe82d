"""Evaluation with samplers whose score is known: what the real cells, the controls and a constant would get."""

from __future__ import annotations

from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse

from perturbflow.baselines import BASELINES, ControlCells
from perturbflow.datasets import simulated_perturb_seq
from perturbflow.evaluation import registered_cells
from perturbflow.metrics import METRICS, SUITES, energy_distance, rmse_of_mean_effects
from perturbflow.pp import setup_perturbation
from perturbflow.screen import read_fields
from perturbflow.tl import evaluate, fit_flow

GENES = 6
EFFECTS = {"control": (), "A": (0,), "B": (1,), "A+B": (0, 1), "C": (2,)}
SPLIT = {"control": "train", "A": "train", "B": "train", "C": "valid", "A+B": "test"}
ENERGY: dict[str, Any] = {"metrics": ["energy_distance"], "progress_bar": False, "key": None}


def screen(*, n_cells=40, seed=0, sizes=None, with_split=True):
    """Cells of two types whose first three genes rise by 2 under A, B and C; half of the entries are zero."""
    rng = np.random.default_rng(seed)
    obs, x = [], []
    for cell_type, level in (("T", 3.0), ("U", 4.0)):
        for label, raised in EFFECTS.items():
            n = (sizes or {}).get((label, cell_type), n_cells)
            block = rng.normal(level, 0.5, (n, GENES)) * (rng.random((n, GENES)) < 0.5)
            block[:, list(raised)] += 2.0
            x.append(np.clip(block, 0, None))
            obs += [{"perturbation": label, "cell_type": cell_type, "split": SPLIT[label]}] * n
    adata = AnnData(
        sparse.csr_matrix(np.vstack(x).astype(np.float32)),
        obs=pd.DataFrame(obs, index=[f"cell{i}" for i in range(len(obs))]),
        var=pd.DataFrame(index=[f"g{i}" for i in range(GENES)]),
    )
    if not with_split:
        del adata.obs["split"]
    setup_perturbation(adata, perturbation_key="perturbation", control="control", covariate_keys=["cell_type"])
    return adata


class Oracle:
    """Returns other real cells of the condition that is asked for."""

    def __init__(self, adata):
        self.cells: Any = registered_cells(adata)
        self.asked = []

    def sample(self, controls, perturbation, covariates, *, rng):
        self.asked.append((controls.shape, tuple(perturbation), tuple(covariates)))
        same = (self.cells.perturbations.toarray() == perturbation).all(axis=1)
        rows = np.flatnonzero(same & (self.cells.covariates == covariates).all(axis=1))
        return self.cells.x[rows].toarray()


class Fixed:
    """Returns what it was given."""

    def __init__(self, value):
        self.value = value

    def sample(self, controls, perturbation, covariates, *, rng):
        return self.value(controls, rng)


@pytest.fixture(scope="module")
def judged():
    adata = screen()
    evaluate(adata, key=None, predicted={"oracle": Oracle(screen(seed=1))}, progress_bar=False)
    return adata


def values(adata, **where):
    table = adata.uns["evaluation"]
    for column, value in where.items():
        table = table[table[column] == value]
    return table["value"].to_numpy()


def evaluated(adata, **options):
    """A copy with the tables, after a look that the original has not changed."""
    before = set(adata.uns)
    copy = evaluate(adata, copy=True, **options)
    assert copy is not None
    assert set(adata.uns) == before
    return copy


def summarised(adata, split, model, metric):
    table = adata.uns["evaluation_summary"]
    found = table[(table["split"] == split) & (table["model"] == model) & (table["metric"] == metric)]
    assert len(found) == 1
    return found.iloc[0]


def test_table_has_every_condition_model_and_metric_once(judged):
    table = judged.uns["evaluation"]
    assert list(table.columns) == ["split", "perturbation", "cell_type", "model", "metric", "value", "n_cells"]
    assert not table.duplicated(["split", "perturbation", "cell_type", "model", "metric"]).any()
    assert set(table["model"]) == {"oracle", *BASELINES, "ceiling", "interpolated duplicate"}
    assert set(table["metric"]) == {name for name in SUITES["default"] if METRICS[name].scope != "dataset"}
    conditions = table[["split", "perturbation", "cell_type"]].drop_duplicates()
    assert sorted(conditions.itertuples(index=False, name=None)) == sorted(
        (SPLIT[label], label, cell_type) for label in ("A", "B", "C", "A+B") for cell_type in ("T", "U")
    )
    means = {name for name in SUITES["default"] if METRICS[name].kind in {"effect", "panel"}}
    of_conditions = {name for name in SUITES["default"] if METRICS[name].scope != "dataset"}
    assert len(table) == 8 * ((len(BASELINES) + 2) * len(of_conditions) + len(means))
    assert list(dict.fromkeys(table["split"])) == ["train", "valid", "test"]
    assert (table["n_cells"] == 40).all()


def test_oracle_scores_about_the_ceiling_and_controls_the_floor(judged):
    for split in ("train", "valid", "test"):
        fraction = {
            model: summarised(judged, split, model, "dynamic_range_fraction")["mean"]
            for model in ("oracle", "control cells", "ceiling")
        }
        assert fraction["control cells"] == 0
        assert fraction["ceiling"] == 1
        # The energy distance of 40 cells has a standard deviation of about 0.05, the effects one of about 1.
        assert fraction["oracle"] == pytest.approx(1, abs=0.15)
    assert (values(judged, model="control cells", metric="cosine_of_mean_effects") == 0).all()


def test_additive_effect_finds_the_combination_and_mean_effect_does_not(judged):
    scores = {
        model: summarised(judged, "test", model, "rmse_of_mean_effects")["mean"]
        for model in ("additive effect", "mean effect", "control cells")
    }
    assert scores["additive effect"] < scores["mean effect"] < scores["control cells"]


def test_values_are_those_of_the_metrics(judged):
    cells: Any = registered_cells(judged)
    obs = judged.obs
    real = cells.x[((obs["perturbation"] == "A+B") & (obs["cell_type"] == "U")).to_numpy()]
    controls = cells.x[((obs["perturbation"] == "control") & (obs["cell_type"] == "U")).to_numpy()]
    where = {"model": "control cells", "perturbation": "A+B", "cell_type": "U"}
    assert values(judged, metric="energy_distance", **where) == pytest.approx(energy_distance(controls, real))
    expected = rmse_of_mean_effects(controls, real, controls)
    assert values(judged, metric="rmse_of_mean_effects", **where) == pytest.approx(expected)


def test_ranks_compare_conditions_of_one_context_and_split(judged):
    assert (values(judged, model="oracle", metric="normalised_rank", split="train") == 0).all()
    # Of a half of 20 cells one in a while is closer to another perturbation.
    assert (values(judged, model="ceiling", metric="normalised_rank", split="train") < 0.5).all()
    assert (values(judged, model="control cells", metric="normalised_rank", split="train") == 0.5).all()
    # One condition in each context: no rank.
    assert np.isnan(values(judged, metric="normalised_rank", split="test")).all()
    assert summarised(judged, "test", "oracle", "normalised_rank")["n_conditions"] == 0


def test_rank_of_the_ceiling_compares_different_cells():
    adata = screen(n_cells=20)
    rng = np.random.default_rng(0)
    adata.X = adata.X[rng.permutation(adata.n_obs)]  # no perturbation has an effect
    evaluate(adata, key=None, metrics=["normalised_rank"], progress_bar=False)
    assert (values(adata, model="ceiling", split="train") > 0).any()


def test_summary_is_that_of_the_table(judged):
    row = summarised(judged, "train", "oracle", "mmd")
    scores = values(judged, split="train", model="oracle", metric="mmd")
    assert row["mean"] == pytest.approx(scores.mean())
    assert row["sd"] == pytest.approx(scores.std(ddof=1))
    assert row["n_conditions"] == 4
    energy = {
        model: values(judged, split="train", model=model, metric="energy_distance").sum()
        for model in ("oracle", "control cells", "ceiling")
    }
    expected = (energy["control cells"] - energy["oracle"]) / (energy["control cells"] - energy["ceiling"])
    assert summarised(judged, "train", "oracle", "dynamic_range_fraction")["mean"] == pytest.approx(expected)


def test_every_sampler_gets_the_training_controls_of_the_context():
    adata = screen()
    rows = np.flatnonzero((adata.obs["perturbation"] == "control") & (adata.obs["cell_type"] == "U"))
    adata.obs.iloc[rows[:15], adata.obs.columns.get_loc("split")] = "test"
    oracle = Oracle(adata)
    evaluate(adata, predicted={"oracle": oracle}, splits=["test"], **ENERGY)
    first, second = ((40, GENES), (1, 1, 0), (0,)), ((25, GENES), (1, 1, 0), (1,))
    assert oracle.asked == [first, first, second, second]


def test_baselines_are_fitted_on_training_cells_only(judged):
    adata = screen()
    is_training = (adata.obs["split"] == "train").to_numpy()
    adata.X = sparse.csr_matrix(adata.X.multiply(is_training[:, None]))
    evaluate(adata, metrics=["rmse_of_mean_effects"], key=None, progress_bar=False)
    for model in BASELINES:
        where = {"model": model, "metric": "rmse_of_mean_effects", "split": "train"}
        np.testing.assert_array_equal(values(adata, **where), values(judged, **where))


def test_same_seed_same_table(judged):
    again = evaluated(screen(), key=None, predicted={"oracle": Oracle(screen(seed=1))}, progress_bar=False)
    pd.testing.assert_frame_equal(again.uns["evaluation"], judged.uns["evaluation"])
    pd.testing.assert_frame_equal(again.uns["evaluation_summary"], judged.uns["evaluation_summary"])
    other = evaluated(screen(), seed=1, **ENERGY)
    where = {"model": "ceiling", "metric": "energy_distance"}
    assert (values(other, **where) != values(judged, **where)).all()


def test_scores_depend_neither_on_other_models_nor_on_other_conditions():
    noisy = Fixed(lambda controls, rng: np.abs(controls + rng.normal(size=controls.shape)))
    adata = screen()
    several = evaluated(adata, predicted={"a": ControlCells().fit(registered_cells(adata)), "noisy": noisy}, **ENERGY)
    alone = evaluated(adata, predicted={"noisy": noisy}, splits=["test"], baselines=[], **ENERGY)
    where = {"split": "test", "model": "noisy"}
    np.testing.assert_array_equal(values(alone, **where), values(several, **where))
    assert len(values(alone, **where)) == 2
    assert set(alone.uns["evaluation"]["model"]) == {"noisy", "control cells", "ceiling"}


class Flow(Oracle):
    """A fitted flow with genes in another order, fitted on validation conditions too."""

    fitted_splits = ("train", "valid")

    def __init__(self, adata):
        self.genes = tuple(adata.var_names[::-1])
        self.cells: Any = registered_cells(adata[:, list(self.genes)])
        self.fields = read_fields(adata)
        self.flow = torch.nn.Identity()
        self.options = []

    def sample(self, controls, perturbation, covariates, *, rng, guidance=1.0, n_steps=None):
        self.options.append((guidance, n_steps))
        return self.cells.x[:30].toarray() + controls[:30, :1]


def test_flow_is_judged_with_its_own_genes_and_splits(monkeypatch):
    adata, other = screen(), screen(seed=1)
    flow = Flow(other)
    monkeypatch.setattr("perturbflow.tl._evaluate.read_flow", lambda adata, key: {"mine": flow}[key])
    evaluate(adata, key="mine", guidance=2.0, n_steps=7, metrics=["rmse_of_mean_effects"], progress_bar=False)
    assert set(flow.options) == {(2.0, 7)}
    params = adata.uns["evaluation_params"]
    assert params["fitted_splits"] == ["train", "valid"]
    assert (params["key"], params["guidance"], params["n_steps"], params["models"]) == ("mine", 2.0, 7, ["mine"])
    # The effect of C, a validation condition, is known to baselines that may see what the flow has seen.
    by_model = {
        model: values(adata, split="valid", model=model, metric="rmse_of_mean_effects").mean()
        for model in ("additive effect", "mean effect", "mine")
    }
    assert by_model["additive effect"] < 0.3 < by_model["mean effect"]

    cells: Any = registered_cells(adata[:, list(flow.genes)])
    is_first = ((adata.obs["perturbation"] == "A") & (adata.obs["cell_type"] == "T")).to_numpy()
    is_control = ((adata.obs["perturbation"] == "control") & (adata.obs["cell_type"] == "T")).to_numpy()
    controls = cells.x[is_control].toarray()
    predicted = flow.cells.x[:30].toarray() + controls[:30, :1]
    expected = rmse_of_mean_effects(predicted, cells.x[is_first], controls)
    assert values(adata, perturbation="A", cell_type="T", model="mine")[0] == pytest.approx(expected, rel=1e-6)


def test_n_cells_limits_controls_and_real_cells():
    adata = screen()
    oracle = Oracle(adata)
    evaluate(adata, predicted={"oracle": oracle}, n_cells=12, **ENERGY)
    assert {shape for shape, *_ in oracle.asked} == {(12, GENES)}
    assert (adata.uns["evaluation"]["n_cells"] == 12).all()


def test_small_groups_are_left_out_and_listed():
    adata = screen(sizes={("B", "U"): 9})
    with pytest.warns(UserWarning, match=r"Left out 1 conditions.*evaluation_params.*left_out"):
        evaluate(adata, **ENERGY)
    left_out = adata.uns["evaluation_params"]["left_out"]
    assert left_out[["split", "perturbation", "cell_type"]].to_numpy().tolist() == [["train", "B", "U"]]
    assert "9 real cells" in left_out["reason"].item()
    table = adata.uns["evaluation"]
    assert not ((table["perturbation"] == "B") & (table["cell_type"] == "U")).any()


@pytest.mark.filterwarnings("ignore:Left out")
def test_nothing_left_is_an_error():
    with pytest.raises(ValueError, match="all with fewer than 1000 cells. Lower `min_cells`"):
        evaluate(screen(), min_cells=1000, **ENERGY)


def test_doses_are_conditions():
    adata = screen()
    adata.obs["dose"] = np.where(np.arange(adata.n_obs) % 2, "1", "0.5")
    keys: dict[str, Any] = {"perturbation_key": "perturbation", "control": "control", "dose_key": "dose"}
    setup_perturbation(adata, covariate_keys=["cell_type"], **keys)
    evaluate(adata, splits=["test"], **ENERGY)
    table = adata.uns["evaluation"]
    assert list(table.columns)[:4] == ["split", "perturbation", "cell_type", "dose"]
    assert sorted(table["dose"].unique()) == ["0.5+0.5", "1+1"]
    assert (table["n_cells"] == 20).all()


def test_without_a_split_all_is_training():
    adata = screen(with_split=False)
    with pytest.warns(UserWarning, match=r"adata.obs\['split'\]` not found: every cell counts as 'train'"):
        evaluate(adata, **ENERGY)
    assert set(adata.uns["evaluation"]["split"]) == {"train"}


def test_context_without_controls_is_an_error():
    adata = screen()
    rows = (adata.obs["perturbation"] == "control") & (adata.obs["cell_type"] == "U")
    adata.obs.loc[rows, "split"] = "test"
    with pytest.raises(ValueError, match="control cells among the training cells of every context.*'cell_type': 'U'"):
        evaluate(adata, **ENERGY)
    assert "evaluation" not in adata.uns


@pytest.mark.parametrize(
    ("options", "match"),
    [
        pytest.param({"metrics": ["energy"]}, "Expected `metrics` to be different names from", id="metric"),
        pytest.param({"metrics": []}, "Expected `metrics`", id="no_metrics"),
        pytest.param({"baselines": ["additive"]}, "Expected `baselines` to be different names", id="baseline"),
        pytest.param({"min_cells": 3}, "`min_cells` to be at least 4, found 3", id="min_cells"),
        pytest.param({"n_cells": 2}, "`n_cells` to be at least 4, found 2", id="n_cells"),
        pytest.param({"predicted": {"ceiling": ControlCells()}}, "neither baselines nor 'ceiling'", id="model_name"),
        pytest.param({"splits": ["nothing"]}, r"Expected `splits` to be one of .*, found 'nothing'", id="splits"),
        pytest.param(
            {"predicted": {"short": Fixed(lambda controls, rng: controls[:, :2])}},
            "'short' to return .* 6 genes",
            id="shape",
        ),
        pytest.param(
            {"predicted": {"nan": Fixed(lambda controls, rng: controls * np.nan)}}, "'nan' to return finite", id="nan"
        ),
    ],
)
def test_bad_input(options, match):
    adata = screen(n_cells=12)
    before = set(adata.uns)
    with pytest.raises(ValueError, match=match):
        evaluate(adata, **{**ENERGY, **options})
    assert set(adata.uns) == before


def test_missing_fields_name_the_function_to_run():
    adata = screen(n_cells=12)
    del adata.uns["perturbation_fields"]
    with pytest.raises(KeyError, match="pf.pp.setup_perturbation"):
        evaluate(adata, key=None)


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_tables_survive_files(judged, tmp_path, suffix):
    # A zarr store in memory takes half the time of many small files.
    place = tmp_path / "cells" if suffix == "h5ad" else pytest.importorskip("zarr").storage.MemoryStore()
    getattr(judged, f"write_{suffix}")(place)
    read = getattr(anndata, f"read_{suffix}")(place)
    for name in ("evaluation", "evaluation_summary"):
        pd.testing.assert_frame_equal(read.uns[name], judged.uns[name], check_dtype=False, check_index_type=False)
    assert list(read.uns["evaluation_params"]["models"]) == ["oracle"]
    assert len(read.uns["evaluation_params"]["left_out"]) == 0


def test_a_failing_call_leaves_a_view_a_view():
    adata = simulated_perturb_seq(n_cells=600, n_genes=40, n_perturbations=4, n_combinations=2)
    setup_perturbation(adata, perturbation_key="perturbation", control="control")
    view = adata[:300]
    with pytest.raises(KeyError, match="fit_flow"):
        evaluate(view)
    assert view.is_view


@pytest.mark.parametrize("n_genes", [1, 2])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_small_panels_in_which_most_cells_are_silent_are_evaluated(n_genes):
    rng = np.random.default_rng(0)
    labels = np.repeat(["control", "A", "B"], [80, 40, 40])
    x = np.where(rng.random((160, n_genes)) < 0.1, rng.normal(2, 0.3, (160, n_genes)), 0).clip(0)
    x[labels == "A", 0] = rng.choice([3.1, 3.2], 40, p=[0.8, 0.2])
    obs = pd.DataFrame({"p": labels}, index=[f"cell_{i}" for i in range(160)])
    adata = AnnData(x.astype(np.float32), obs=obs)
    setup_perturbation(adata, perturbation_key="p", control="control")
    fit_flow(adata, preset="prior", progress_bar=False)
    evaluate(adata, metrics="all", progress_bar=False)
    values = (
        adata.uns["evaluation"].query("model == 'flow'").pivot_table("value", "metric", "perturbation", dropna=False)
    )
    assert values.loc["mmd"].isna().all()
    assert values.loc["energy_distance"].notna().all()
    assert (values.loc["rmse_of_mean_effects"] < 0.2).all()

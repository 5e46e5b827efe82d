from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from perturbflow import metrics
from perturbflow.evaluation import score_cells

RNG = np.random.default_rng(0)
CONTROL = RNG.poisson(1.0, (40, 6)).astype(np.float32)
REAL = {name: RNG.poisson(rate, (30, 6)).astype(np.float32) for name, rate in (("A", 2.0), ("B", 4.0))}
MINE = {name: RNG.poisson(rate, (25, 6)).astype(np.float32) for name, rate in (("A", 2.0), ("B", 3.0))}
NAMES = ["energy_distance", "rmse_of_mean_effects", "wasserstein_of_genes", "normalised_rank"]


def values(table):
    return table.set_index(["model", "perturbation", "metric"])["value"]


def test_values_are_those_of_the_metrics():
    found = values(score_cells({"mine": MINE}, REAL, CONTROL, metrics=NAMES))
    for name in REAL:
        expected = {
            "energy_distance": metrics.energy_distance(MINE[name], REAL[name]),
            "rmse_of_mean_effects": metrics.rmse_of_mean_effects(MINE[name], REAL[name], CONTROL),
            "wasserstein_of_genes": metrics.wasserstein_of_genes(MINE[name], REAL[name]),
            "normalised_rank": 0.0,
        }
        for metric, value in expected.items():
            assert found["mine", name, metric] == pytest.approx(value, rel=1e-5, abs=1e-5)
    assert found["control cells", "B", "energy_distance"] == pytest.approx(
        metrics.energy_distance(CONTROL, REAL["B"]), rel=1e-5
    )
    assert found["ceiling", "B", "energy_distance"] < 0.3 < found["control cells", "B", "energy_distance"]


def test_tables_are_put_in_order_and_sparse_cells_are_the_same():
    genes = list("abcdef")
    expected = values(score_cells({"mine": MINE}, REAL, CONTROL, metrics=NAMES))
    real = {name: pd.DataFrame(cells, columns=genes) for name, cells in REAL.items()}
    mixed = {name: pd.DataFrame(cells, columns=genes)[genes[::-1]] for name, cells in MINE.items()}
    found = values(score_cells({"mine": mixed}, real, pd.DataFrame(CONTROL, columns=genes), metrics=NAMES))
    pd.testing.assert_series_equal(found, expected)
    stored = {name: sparse.csr_matrix(cells) for name, cells in MINE.items()}
    pd.testing.assert_series_equal(values(score_cells({"mine": stored}, REAL, CONTROL, metrics=NAMES)), expected)


def test_a_model_may_lack_perturbations():
    found = score_cells({"mine": {"A": MINE["A"]}}, REAL, CONTROL, metrics=["energy_distance"])
    assert set(found.loc[found["model"] == "mine", "perturbation"]) == {"A"}


def test_targets_are_left_out():
    given = {"mine": {**MINE, "A": MINE["A"] + np.eye(6, dtype=np.float32)[2] * 50}}
    without = values(score_cells(given, REAL, CONTROL, metrics=["unbiased_mse"]))
    with_targets = score_cells(given, REAL, CONTROL, metrics=["unbiased_mse"], targets={"A": np.arange(6) == 2})
    assert values(with_targets)["mine", "A", "unbiased_mse"] < 1 < without["mine", "A", "unbiased_mse"]


@pytest.mark.parametrize(
    ("predicted", "real", "message"),
    [
        ({"mine": MINE}, {}, "real cells of at least one perturbation in `real`"),
        ({"ceiling": MINE}, REAL, r"other names for models than those of the bounds, found \['ceiling'\]"),
        ({"mine": {"C": MINE["A"]}}, REAL, r"perturbations with real cells in predicted\['mine'\], found also \['C'\]"),
        ({"mine": {}}, REAL, r"at least one perturbation in predicted\['mine'\]"),
        ({"mine": {"A": MINE["A"][:3]}}, REAL, r"at least 4 cells and 1 gene in `predicted\['mine'\]\['A'\]`"),
        ({"mine": {"A": MINE["A"][:, :5]}}, REAL, "Expected the same genes"),
    ],
)
def test_bad_input(predicted, real, message):
    with pytest.raises(ValueError, match=message):
        score_cells(predicted, real, CONTROL, metrics=["energy_distance"])


@pytest.mark.parametrize(
    ("predicted", "real", "message"),
    [
        (MINE["A"], REAL, "Expected `predicted` to be a dictionary of models"),
        ({"mine": MINE["A"]}, REAL, r"Expected `predicted\['mine'\]` to be a dictionary of cells by perturbation"),
        ({"mine": MINE}, REAL["A"], "Expected `real` to be a dictionary of cells by perturbation"),
    ],
)
def test_arrays_without_names_are_refused(predicted, real, message):
    with pytest.raises(TypeError, match=message):
        score_cells(predicted, real, CONTROL, metrics=["energy_distance"])


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ({"C": np.ones(3, dtype=bool)}, r"targets only for perturbations with real cells, found also \['C'\]"),
        ({"A": np.ones(3, dtype=bool)}, r"genes in targets\['A'\], found shape \(3,\)"),
    ],
)
def test_targets_have_to_fit(targets, message):
    with pytest.raises(ValueError, match=message):
        score_cells({"mine": MINE}, REAL, CONTROL, metrics=["energy_distance"], targets=targets)


def test_unknown_metrics_are_refused():
    with pytest.raises(ValueError, match="Expected `metrics` to be"):
        score_cells({"mine": MINE}, REAL, CONTROL, metrics=["nothing"])

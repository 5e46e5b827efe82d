"""Genetic interactions, on effects whose coefficients are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from perturbflow.pp import setup_perturbation
from perturbflow.predict import Pair, interaction_fit
from perturbflow.tl import fit_flow, interaction_scores

N_GENES = 60
TRUTH = {
    "A+B": (1.0, 1.0, 0.0),
    "A+C": (1.8, 1.8, 0.0),
    "A+D": (1.0, 0.0, 0.0),
    "B+C": (0.5, 0.5, 0.0),
    "B+D": (0.5, 0.5, 2.0),
}
CLASS = {"A+B": "additive", "A+C": "synergistic", "A+D": "epistatic", "B+C": "suppressive", "B+D": "neomorphic"}  # fmt: skip


def effects():
    """Effects of A to D, and of pairs by their truth."""
    rng = np.random.default_rng(0)
    single = {name: rng.normal(0, 0.4, N_GENES) for name in "ABCD"}
    new = rng.normal(0, 0.4, N_GENES)
    pairs = {
        label: first * single[label[0]] + second * single[label[2]] + other * new
        for label, (first, second, other) in TRUTH.items()
    }
    return single | pairs


@pytest.fixture(scope="module")
def screen():
    """Expression is never zero, so that means add up; D+E has no single E."""
    rng = np.random.default_rng(1)
    known = effects()
    labels = ["control"] * 300 + [label for label in known for _ in range(150)] + ["D+E"] * 50
    shift = {"control": 0.0, "D+E": 0.0} | known
    x = np.stack([rng.normal(4.0 + shift[label], 0.5, N_GENES) for label in labels])
    obs = pd.DataFrame({"perturbation": labels}, index=[f"cell{k}" for k in range(len(labels))])
    adata = AnnData(x.astype(np.float32), obs=obs, var=pd.DataFrame(index=[f"g{k}" for k in range(N_GENES)]))
    setup_perturbation(adata, perturbation_key="perturbation", control="control")
    adata.obs["split"] = np.where(adata.obs["perturbation"].isin(["A+C", "B+D"]), "test", "train")
    fit_flow(adata, preset="prior", plan_kwargs={"calibrate": False}, progress_bar=False)
    return adata


@pytest.fixture(scope="module")
def scored(screen):
    return interaction_scores(screen, copy=True)


def test_measured_coefficients_and_classes_are_the_true_ones(scored):
    table = scored.uns["interaction_scores"]
    measured = table[table["source"] == "measured"].set_index("perturbation")
    assert measured["class"].to_dict() == CLASS
    true = effects()
    for label, row in measured.iterrows():
        single = np.stack([true[label[0]], true[label[2]]])
        expected = np.linalg.solve(single @ single.T, single @ true[label])
        for k, value in enumerate(expected):
            assert row[f"coefficient_{k + 1}"] == pytest.approx(value, abs=0.1)
            assert row[f"coefficient_{k + 1}_lower"] < row[f"coefficient_{k + 1}"] < row[f"coefficient_{k + 1}_upper"]
        rest = true[label] - single.sum(axis=0)
        assert row["interaction_rms"] == pytest.approx(np.sqrt(np.mean(rest**2)), abs=0.03)
        assert row["n_cells"] == 150
    assert measured.loc["A+B", "fit"] == pytest.approx(1, abs=0.02)
    assert measured.loc["B+D", "fit"] < 0.5
    assert measured.loc["A+D", "dominance"] > 0.8


def test_predictions_stand_beside(scored):
    table = scored.uns["interaction_scores"]
    predicted = table[table["source"] == "predicted"].set_index("perturbation")
    assert len(predicted) == 6
    assert predicted.loc["A+C", "kind"] == predicted.loc["B+D", "kind"] == "combination"
    assert predicted.loc["A+B", "kind"] == "seen"
    assert predicted.loc["A+C", "magnitude"] == pytest.approx(1, abs=0.15)  # nothing is known of it
    assert predicted.loc["B+C", "magnitude"] == pytest.approx(0.5, abs=0.1)  # in training
    assert predicted.loc["B+C", "class"] == "suppressive"
    wide, narrow = (
        predicted.loc[label, "magnitude_upper"] - predicted.loc[label, "magnitude_lower"] for label in ("A+C", "B+C")
    )
    assert wide > 2 * narrow
    assert (predicted["n_cells"] == 0).all()
    assert "D+E" not in set(table.loc[table["source"] == "measured", "perturbation"])  # E was never alone


def test_interactions_of_genes(scored):
    true = effects()
    for label in TRUTH:
        rest = true[label] - true[label[0]] - true[label[2]]
        found = scored.varm["interaction_scores_measured"][label]
        sd = scored.varm["interaction_scores_measured_sd"][label]
        assert np.mean(np.abs(found - rest) < 2 * sd) > 0.85
        np.testing.assert_allclose(sd, 0.5 * np.sqrt(3 / 150 + 1 / 300), rtol=0.2)
    assert scored.varm["interaction_scores_measured"]["D+E"].isna().all()
    size = scored.varm["interaction_scores"]["A+C"].std() / scored.varm["interaction_scores_measured"]["A+C"].std()
    assert size < 0.3
    assert (
        np.corrcoef(scored.varm["interaction_scores"]["B+C"], scored.varm["interaction_scores_measured"]["B+C"])[0, 1]
        > 0.9
    )


@pytest.mark.parametrize("truth", [(1.0, 1.0, 0.0), (0.5, 1.5, 0.0), (0.8, 0.8, 1.0)])
def test_intervals_hold_what_they_should(truth):
    rng = np.random.default_rng(2)
    variances = [rng.uniform(0.02, 0.3, 200) / n for n in (100, 60, 60, 300)]
    hits, values = [], []
    for _ in range(150):
        first, second = rng.normal(0, 0.1, (2, 200))
        both = truth[0] * first + truth[1] * second + truth[2] * rng.normal(0, 0.1, 200)
        single = np.stack([first, second])
        expected = np.linalg.solve(single @ single.T, single @ both)
        noise = [rng.normal(0, np.sqrt(each)) for each in variances]
        noisy = [each + own - noise[3] for each, own in zip((first, second, both), noise, strict=False)]
        found = interaction_fit(Pair(*noisy, *variances), level=0.9)
        hits.append(found["coefficient_1_lower"] < expected[0] < found["coefficient_1_upper"])
        values.append([found["coefficient_1"] - expected[0], found["coefficient_2"] - expected[1]])
    assert 0.83 < np.mean(hits) < 0.98
    assert np.abs(np.mean(values, axis=0)).max() < 0.02  # not drawn to 0 by noise


def test_exact_effects_give_exact_coefficients():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 20))
    nothing: Any = np.zeros(20)
    found = interaction_fit(
        Pair(first, second, 2 * first - 0.5 * second, nothing, nothing, nothing, nothing), level=0.9
    )
    assert (found["coefficient_1"], found["coefficient_2"]) == pytest.approx((2, -0.5))
    assert found["magnitude_lower"] == found["magnitude_upper"] == pytest.approx(np.sqrt(4.25 / 2))
    assert found["dominance"] == pytest.approx(0.6)
    assert found["fit"] == pytest.approx(1)
    assert found["class"] == "epistatic"
    silent = interaction_fit(Pair(nothing, second, first, nothing, nothing, nothing, nothing), level=0.9)
    assert silent["class"] == "not measurable"
    assert np.isnan(silent["magnitude_upper"])


def test_codependent_errors_widen_intervals():
    first, second, both = np.random.default_rng(0).normal(size=(3, 20))
    small = np.full(20, 0.01)
    widths = []
    for codependence in (1.0, 4.0):
        found: Any = interaction_fit(Pair(first, second, both, small, small, small, small, codependence), level=0.9)
        widths.append(found["magnitude_upper"] - found["magnitude_lower"])
    assert widths[1] == pytest.approx(2 * widths[0])


def test_of_cells_of_another_kind_there_are_predictions_only(screen):
    controls = screen[screen.obs["perturbation"] == "control"].copy()
    with pytest.raises(ValueError, match="Expected combinations of two perturbations in `adata`, found none"):
        interaction_scores(controls)
    interaction_scores(controls, "A+C")
    assert controls.uns["interaction_scores"]["source"].tolist() == ["predicted"]
    other = screen.copy()
    other.obs["perturbation"] = other.obs["perturbation"].astype(str).replace({"A+B": "A+NEW"})
    interaction_scores(other, ["A+B", "A+C"])
    assert other.uns["interaction_scores"]["source"].tolist() == ["predicted", "measured", "predicted"]


def test_where_it_writes(screen, unchanged):
    with unchanged(screen):
        copy = interaction_scores(screen, ["A+B"], key_added="mine", copy=True)
    assert isinstance(copy, AnnData)
    assert list(copy.varm["mine_sd"].columns) == ["A+B"]
    interaction_scores(copy, ["A+C"], key_added="mine")
    assert list(copy.varm["mine"].columns) == ["A+C"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"combinations": ["A"]}, "Expected combinations of two perturbations, found 'A'"),
        ({"combinations": ["A+B+C"]}, "Expected combinations of two perturbations, found"),
        ({"combinations": []}, "Expected at least one combination"),
        ({"combinations": ["A+X"]}, "Expected a known perturbation, found 'X'"),
        ({"level": 1.5}, "Expected `level`"),
        ({"min_cells": 1}, "Expected `min_cells` to be at least 2"),
        ({"key_added": "split"}, "Expected `key_added`"),
    ],
)
def test_wrong_settings(screen, options, message, unchanged):
    with unchanged(screen), pytest.raises(ValueError, match=message):
        interaction_scores(screen, **options)

"""Curves over doses, on responses whose half-maximal dose is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from perturbflow.pp import setup_perturbation
from perturbflow.predict import HillPosterior, hill
from perturbflow.predict._dose_curves import bliss, loewe, readout_weights
from perturbflow.tl import dose_response, fit_flow

DOSES = [1.0, 10.0, 100.0, 1000.0]
# Half-maximal dose and plateau of the first two genes: A is covered, B far above the doses, C does nothing.
TRUTH = {"A": (20.0, 1.2), "B": (1e5, 1.2), "C": (1.0, 0.0), "D": (20.0, 1.2)}


@pytest.fixture(scope="module")
def screen():
    """Four drugs at four doses; A and D together act independently at (10, 10), and as more than that at (100, 100)."""
    rng = np.random.default_rng(0)
    rows, x = [("control", "0", 0.0)] * 400, []
    for name, (half, plateau) in TRUTH.items():
        for dose in DOSES:
            rows += [(name, f"{dose:g}", plateau * dose / (dose + half))] * 100
    # Bliss, in units of the plateau, expects 1/3 + 1/3 - 1/9 = 5/9 and 5/6 + 5/6 - 25/36 = 35/36.
    rows += [("A+D", "10+10", 1.2 * 5 / 9)] * 100 + [("A+D", "100+100", 1.2 * 35 / 36 - 0.4)] * 100
    for _, _, effect in rows:
        values = rng.normal(3.0, 0.4, 12)
        values[:2] += effect
        x.append(values)
    obs = pd.DataFrame(rows, columns=["perturbation", "dose", "effect"], index=[f"cell{k}" for k in range(len(rows))])
    adata = AnnData(
        np.array(x, dtype=np.float32),
        obs=obs[["perturbation", "dose"]],
        var=pd.DataFrame(index=[f"g{k}" for k in range(12)]),
    )
    setup_perturbation(adata, perturbation_key="perturbation", control="control", dose_key="dose")
    adata.obs["split"] = np.where(adata.obs["dose"] == "100+100", "test", "train")
    fit_flow(adata, preset="prior", plan_kwargs={"calibrate": False}, progress_bar=False)
    return adata


@pytest.fixture(scope="module")
def curves(screen):
    return dose_response(screen, ["g0", "g1"], copy=True)


def test_the_half_maximal_dose_and_what_is_known_of_it(curves):
    table = curves.uns["dose_response"].set_index(["source", "perturbation"])
    assert len(table) == 8
    for source in ("measured", "predicted"):
        a, b, c = (table.loc[(source, name)] for name in "ABC")
        assert a["status"] == "covered"
        assert a["ec50_lower"] < 22 < a["ec50_upper"]  # with some luck of the draw
        assert a["ec50"] == pytest.approx(20, rel=0.4)
        assert a["plateau_lower"] < 1.2 < a["plateau_upper"]
        assert b["status"] in {"no response", "above the highest dose"}
        assert b["ec50_upper"] > 1e4
        assert c["status"] == "no response"
        assert c["plateau_lower"] < 0 < c["plateau_upper"]
        assert (a["n_doses"], a["lowest_dose"], a["highest_dose"]) == (4, 1, 1000)


def test_points_are_means_of_the_readout(screen, curves):
    points = curves.uns["dose_response_points"]
    readout = np.asarray(screen.X)[:, :2].mean(axis=1)
    control = readout[(screen.obs["perturbation"] == "control").to_numpy()]
    for row in points[points["source"] == "measured"].itertuples():
        own = readout[
            ((screen.obs["perturbation"] == row.perturbation) & (screen.obs["dose"] == f"{row.dose:g}")).to_numpy()
        ]
        assert row.effect == pytest.approx(own.mean() - control.mean(), abs=1e-5)
        assert row.sd == pytest.approx(np.sqrt(own.var(ddof=1) / 100 + control.var(ddof=1) / 400), rel=1e-3)
        assert row.n_cells == 100
    assert (points.loc[points["source"] == "predicted", "n_cells"] == 0).all()
    curve = curves.uns["dose_response_curves"]
    assert (curve["lower"] <= curve["effect"]).all()
    assert (curve["effect"] <= curve["upper"]).all()
    assert curve.groupby(["perturbation", "source"]).size().unique().tolist() == [41]


def test_excess_over_bliss_and_loewe(curves):
    table = curves.uns["dose_response_combinations"].set_index(["source", "dose"])
    assert set(table["perturbation"]) == {"A+D"}
    independent, less = table.loc[("measured", "10+10")], table.loc[("measured", "100+100")]
    assert independent["bliss_expected"] == pytest.approx(5 / 9, abs=0.06)
    assert independent["bliss_excess_lower"] < 0 < independent["bliss_excess_upper"]
    assert less["bliss_excess"] == pytest.approx(-1 / 3, abs=0.08)
    assert less["bliss_excess_upper"] < 0
    # 10 and 10 of what is one drug are 20, which is half; 200 is 10/11 of the plateau.
    assert independent["loewe_expected"] == pytest.approx(0.5, abs=0.06)
    assert less["loewe_expected"] == pytest.approx(10 / 11, abs=0.06)
    predicted = table.loc[("predicted", "100+100")]
    assert predicted["n_cells"] == 0
    width = [row["bliss_excess_upper"] - row["bliss_excess_lower"] for row in (predicted, less)]
    assert width[0] > width[1]
    half = dose_response_of(curves, ["g0", "g1"], full_effect=2.4)
    np.testing.assert_allclose(half.loc[("measured", "10+10"), "response"], independent["response"] / 2, rtol=0.1)


def dose_response_of(adata, readout, **options):
    copy = dose_response(adata, readout, copy=True, **options)
    assert copy is not None
    return copy.uns["dose_response_combinations"].set_index(["source", "dose"])


@pytest.mark.parametrize("truth", [(100.0, 1.0, 1.0), (30.0, 2.0, -0.5), (0.3, 1.0, 1.0), (3e4, 1.0, 1.0)])
def test_intervals_hold_what_they_should(truth):
    rng = np.random.default_rng(1)
    doses = np.array([1.0, 10, 100, 1000, 10000])
    covariance = np.diag(np.full(5, 0.05**2)) + 0.02**2  # the controls are in all
    held = []
    for _ in range(100):
        responses = hill(doses, *truth) + rng.multivariate_normal(np.zeros(5), covariance)
        _, low, high = HillPosterior.of(doses, responses, covariance).half_maximal_dose(0.9)
        held.append(low <= truth[0] <= high)
    assert np.mean(held) >= 0.8


def test_without_noise_the_curve_is_found():
    doses = np.geomspace(1, 1e4, 9)
    fit = HillPosterior.of(doses, hill(doses, 100.0, 1.0, 2.0), np.eye(9) * 1e-8)
    middle, low, high = fit.half_maximal_dose(0.95)
    assert (low, middle, high) == pytest.approx((100, 100, 100), rel=0.12)  # to the grid
    assert fit.plateau_moments()[0] == pytest.approx(2, rel=1e-3)
    np.testing.assert_allclose(fit.response(doses)[0], hill(doses, 100.0, 1.0, 2.0), atol=1e-3)
    assert fit.status(0.95) == "covered"
    few = HillPosterior.of(doses[:2], hill(doses[:2], 100.0, 1.0, 2.0), np.eye(2) * 1e-8)
    assert few.status(0.95) == "too few doses"
    late = HillPosterior.of(doses[-3:], hill(doses[-3:], 1.0, 4.0, 2.0), np.eye(3) * 1e-4)
    assert late.status(0.95) == "below the lowest dose"


def test_bliss_and_loewe_by_hand():
    assert bliss(np.array([0.5]), np.array([0.4]))[0] == pytest.approx(0.7)
    curve = tuple(np.array([value]) for value in (10.0, 1.0, 0.8))
    # A drug with itself is no synergy: two halves of a dose are the dose.
    assert loewe((5.0, 5.0), (curve, curve))[0] == pytest.approx(hill(10.0, *curve)[0])
    assert loewe((1e-9, 5.0), (curve, curve))[0] == pytest.approx(hill(5.0, *curve)[0])
    weak = tuple(np.array([value]) for value in (10.0, 1.0, 0.3))
    assert loewe((1000.0, 20.0), (weak, curve))[0] == pytest.approx(
        hill(20.0, *curve)[0]
    )  # beyond what the weak can do
    nothing = tuple(np.array([value]) for value in (10.0, 1.0, -0.5))
    assert loewe((5.0, 5.0), (nothing, nothing))[0] == 0


def test_readouts():
    genes = ["a", "b", "c"]
    assert readout_weights("b", genes).tolist() == [0, 1, 0]
    assert readout_weights(["a", "c"], genes).tolist() == [0.5, 0, 0.5]
    assert readout_weights({"a": 3, "b": -1}, genes).tolist() == [0.75, -0.25, 0]
    assert readout_weights(pd.Series({"c": 2.0}), genes).tolist() == [0, 0, 1]
    with pytest.raises(KeyError, match="'d'"):
        readout_weights("d", genes)
    none: Any = [[], {"a": 0.0}, {"a": np.nan}]
    for wrong in none:
        with pytest.raises(ValueError, match="Expected at least one gene with a finite weight"):
            readout_weights(wrong, genes)
    with pytest.raises(ValueError, match="Name each once"):
        readout_weights(["a", "a"], genes)


def test_of_controls_alone_there_are_predictions(screen):
    controls = screen[screen.obs["perturbation"] == "control"].copy()
    dose_response(controls, "g0", ["A"])
    assert controls.uns["dose_response"]["source"].tolist() == ["predicted"]
    assert controls.uns["dose_response_combinations"].empty
    del controls.obs["dose"]  # that controls need not have
    dose_response(controls, "g0", ["A", "D"])
    assert controls.uns["dose_response_combinations"]["dose"].tolist() == ["10+10"]  # of training


def test_where_it_writes(screen, unchanged):
    with unchanged(screen):
        copy = dose_response(screen, "g0", ["A"], key_added="mine", copy=True)
    assert isinstance(copy, AnnData)
    assert copy.uns["mine_params"]["readout"] == {"g0": 1.0}
    dose_response(copy, "g1", key_added="mine")
    assert copy.uns["mine_params"]["readout"] == {"g1": 1.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"perturbations": ["A+D"]}, r"Expected single perturbations in `perturbations`, found 'A\+D'"),
        ({"perturbations": []}, "Expected perturbations that were measured at two doses or more"),
        ({"perturbations": ["X"]}, "Expected a known perturbation, found 'X'"),
        ({"full_effect": 0.0}, "Expected `full_effect` to be finite and not 0, found 0.0"),
        ({"level": 0.0}, "Expected `level`"),
        ({"min_cells": 1}, "Expected `min_cells` to be at least 2"),
        ({"key_added": "flow"}, "Expected `key_added`"),
    ],
)
def test_wrong_settings(screen, options, message, unchanged):
    with unchanged(screen), pytest.raises(ValueError, match=message):
        dose_response(screen, "g0", **options)


def test_without_doses(fitted):
    with pytest.raises(ValueError, match="Expected registered doses, found none"):
        dose_response(fitted, fitted.var_names[0])

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.stats import norm

from perturbflow import pp, tl
from perturbflow.datasets import simulated_perturb_seq
from perturbflow.pl import _calibration as module
from perturbflow.pl import calibration
from perturbflow.predict import read_flow

LEVELS = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]


@pytest.fixture(scope="module")
def fitted():
    adata = simulated_perturb_seq(n_cells=1500, n_genes=40, n_perturbations=5, n_combinations=4)
    pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    pp.split_perturbations(adata, task="combination", seed=0)
    tl.fit_flow(adata, model_kwargs={"width": 16, "n_blocks": 1}, max_steps=5, progress_bar=False)
    return adata


def test_coverage_rises_with_the_level_and_is_that_of_the_conditions(fitted):
    ax: Any = calibration(fitted, split="test")
    (curve,) = [line for line in ax.lines if len(line.get_xdata()) == len(LEVELS)]
    np.testing.assert_allclose(curve.get_xdata(), LEVELS)
    assert (np.diff(curve.get_ydata()) >= 0).all()
    assert curve.get_color() == "#009E73"
    (thin,) = [each for each in ax.collections if hasattr(each, "get_segments") and each.get_label().startswith("_")][
        :1
    ]
    segments = np.array(thin.get_segments())
    np.testing.assert_allclose(segments[:, :, 1].mean(axis=0), curve.get_ydata())
    off = np.abs(np.asarray(curve.get_ydata()) - LEVELS).mean()
    n = fitted.obs.loc[fitted.obs["split"] == "test", "perturbation"].nunique()
    assert len(segments) == n
    noun = "condition" if n == 1 else "conditions"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        f"combination: {n} {noun}, mean deviation {off:.2f}"
    ]
    assert ax.get_xlabel() == "nominal level of the interval"
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 1), (0, 1))


def test_true_means_and_standard_deviations_follow_the_diagonal(fitted, monkeypatch):
    """A prediction that is right about the observed cells, but for errors of the size that it states."""
    rng = np.random.default_rng(0)
    truth = np.asarray(fitted[fitted.obs["split"] == "test"].X.mean(axis=0)).ravel()
    errors = norm.ppf((rng.permutation(len(truth)) + 0.5) / len(truth))

    def states(prior, perturbation, context):
        return np.full(len(truth), 5.0) + errors, np.ones(len(truth))

    class Observed:
        mean = np.full(len(truth), 5.0)
        variance = np.zeros(len(truth))
        n_cells = 10

    class Believed:
        def interval(self, mean, sd, *, kind, level):
            half = norm.ppf((1 + level) / 2) * sd
            return mean - half, mean + half

    flow = read_flow(fitted, "flow")
    flow.calibration = Believed()
    monkeypatch.setattr(module, "read_flow", lambda adata, key: flow)
    monkeypatch.setattr(module, "mean_expression", states)
    monkeypatch.setattr(module, "moments_of", lambda *args, **options: Observed)
    ax: Any = calibration(fitted, split="test")
    (curve,) = [line for line in ax.lines if len(line.get_xdata()) == len(LEVELS)]
    np.testing.assert_allclose(curve.get_ydata(), LEVELS, atol=1 / len(truth))


def test_a_panel_for_every_split_that_says_what_was_fitted_on(fitted):
    axes: Any = calibration(fitted)
    titles = [ax.get_title(loc="left") for ax in axes]
    assert titles[0] == "train (used in the fit)"
    assert titles[-1] == "test"
    _, ax = plt.subplots()
    assert calibration(fitted, split="test", ax=ax) is ax
    options: Any = {"ax": ax}
    with pytest.raises(ValueError, match=r"Expected `split` to be one of \['train', .*when `ax` is given"):
        calibration(fitted, **options)


def test_the_band_is_binomial():
    rng = np.random.default_rng(0)
    levels = np.array([0.2, 0.5, 0.8])
    # Of 25 independent genes each.
    shares = rng.binomial(25, levels, (4000, 3)) / 25
    assert module._independent_genes(shares) == pytest.approx(25, rel=0.05)
    # Where all genes are covered or none, a condition is a single observation.
    assert module._independent_genes(rng.binomial(1, levels, (4000, 3)).astype(float)) == pytest.approx(1, abs=1e-3)
    assert module._independent_genes(shares[:1]) == 1.0


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"key": "other"}, KeyError, "fit_flow"),
        ({"split": "held out"}, ValueError, "Expected `split` to be one of .*found 'held out'"),
        ({"min_cells": 10_000}, ValueError, "Expected perturbed conditions with real cells, found none with 10000"),
        ({"min_cells": 1}, ValueError, "Expected `min_cells` to be at least 2"),
        ({"split_key": "fold"}, KeyError, "split_perturbations"),
    ],
)
def test_what_is_wrong_is_said(fitted, options, error, match):
    with pytest.raises(error, match=match):
        calibration(fitted, **options)

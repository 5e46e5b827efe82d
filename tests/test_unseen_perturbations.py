"""Perturbations without cells, from registered features to predicted distributions, in a simulated screen whose truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import perturbflow as pf
from perturbflow.evaluation import registered_cells
from perturbflow.flow import AdditiveHurdlePrior
from perturbflow.screen import read_fields
from perturbflow.screen._fields import read_feature_table

N_HELD_OUT = 10


@pytest.fixture(scope="module", params=[0, 1])
def screen(request):
    """40 perturbed regulators of 4 pathways, 10 of them without cells in training."""
    adata = pf.datasets.simulated_perturb_seq(
        5000, 200, n_perturbations=40, n_combinations=0, cell_types=1, n_pathways=4, effect_strength=3.0,
        control_fraction=0.1, seed=request.param,
    )  # fmt: skip
    rng = np.random.default_rng(request.param)
    held_out = rng.choice(sorted(adata.uns["simulation"]["perturbation_modes"]), N_HELD_OUT, replace=False)
    return adata, held_out, adata.uns["perturbation_embedding"]


def evaluate(screen, table, *, use=True):
    """Cosine and RMSE of predicted changes of mean expression in held-out perturbations, and the stated sd."""
    adata, held_out, _ = screen
    labels = adata.obs["perturbation"].astype(str).to_numpy()
    training = adata[~np.isin(labels, held_out)].copy()
    pf.pp.setup_perturbation(training, perturbation_key="perturbation", control="control")
    pf.pp.perturbation_features(training, table)
    components = np.array(read_fields(training).vocabulary.components)
    assert set(held_out) < set(components)
    features = read_feature_table(training) if use else None
    prior = AdditiveHurdlePrior.fit(registered_cells(training), features=features)
    context = prior.context(np.zeros(0, dtype=int))
    base = prior.distribution(np.zeros(len(components)), context)
    control = adata.X[labels == "control"].toarray().mean(axis=0)
    scores = []
    for name in held_out:
        doses = (components == name).astype(np.float32)
        distribution = prior.distribution(doses, context)
        predicted = distribution.expressed * distribution.mean - base.expressed * base.mean
        measured = adata.X[labels == name].toarray().mean(axis=0) - control
        cosine = predicted @ measured / np.linalg.norm(predicted) / np.linalg.norm(measured)
        error = np.sqrt(np.mean((predicted - measured) ** 2))
        scores.append((cosine, error, prior.distribution_sd(doses, context).angle.mean()))
    return np.mean(scores, axis=0)


def test_informative_features_beat_the_mean_effect_and_shuffled_ones_do_not(screen):
    table = screen[2]
    shuffled = pd.DataFrame(np.random.default_rng(0).permutation(table.to_numpy()), table.index, table.columns)
    informed, mean_effect, uninformed = (
        evaluate(screen, table),
        evaluate(screen, table, use=False),
        evaluate(screen, shuffled),
    )
    assert informed[0] > mean_effect[0] + 0.05
    assert informed[1] < 1.02 * mean_effect[1]  # on average over screens it is lower, see the benchmark
    assert uninformed[0] < mean_effect[0] + 0.02
    assert uninformed[1] == pytest.approx(mean_effect[1], rel=0.02)
    assert uninformed[2] > 1.03 * informed[2]


def predicted_uncertainty(screen, table, warns, *, calibrate=True):
    """Fit and predict through the tools; the row of uncertainty and mean stated sd of a perturbation without cells."""
    adata, held_out, _ = screen
    training = adata[~np.isin(adata.obs["perturbation"].astype(str), held_out)].copy()
    pf.pp.setup_perturbation(training, perturbation_key="perturbation", control="control")
    pf.pp.perturbation_features(training, table)
    pf.tl.fit_flow(
        training,
        model_kwargs={"width": 16, "n_blocks": 1},
        max_steps=2,
        plan_kwargs={"calibrate": calibrate},
        progress_bar=False,
    )
    with pytest.warns(UserWarning, match=warns):
        pf.tl.predict_perturbation(training, held_out[0])
    has_cell = training.obsm["predicted"].getnnz(axis=1) > 0
    np.testing.assert_array_equal(has_cell, training.obs["perturbation"] == "control")
    return training.uns["predicted"]["uncertainty"].iloc[0], training.varm["predicted_sd"][held_out[0]].mean()


@pytest.mark.parametrize("screen", [0], indirect=True)
def test_tools_predict_from_features_and_say_how_far_and_how_sure(screen):
    table = screen[2]
    informed, sd = predicted_uncertainty(
        screen, table, "No training cells of .*: the prediction rests on their features"
    )
    assert informed["kind"] == "unseen"
    assert 0 < informed["feature_distance"] < 10
    shuffled = pd.DataFrame(np.random.default_rng(1).permutation(table.to_numpy()), table.index, table.columns)
    _, uninformed_sd = predicted_uncertainty(
        screen, shuffled, "the mean effect of perturbations, because their features explain nothing"
    )
    assert uninformed_sd > sd
    # Ten times as far from everything: little more than the mean effect.
    far = table.copy()
    far.loc[screen[1][0]] *= 10
    predicted_uncertainty(
        screen, far, r"\(\d+\.\d\)'\], the nearest .* more than 2 times as far as usual", calibrate=False
    )

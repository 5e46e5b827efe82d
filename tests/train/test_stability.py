from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from perturbflow.dynamics import DynamicsSettings, DynamicsTrainer, Trajectory, smooth
from perturbflow.pp import setup_dynamics
from perturbflow.predict import read_dynamics
from perturbflow.tl import fit_dynamics
from perturbflow.train import _graph
from perturbflow.train._graph import resample, stability, sure
from perturbflow.trajectories import trajectories_of

TIME = np.linspace(0, 1, 12)


def runs(n, *, n_held=0):
    rng = np.random.default_rng(0)
    return [
        Trajectory(
            f"run {k}",
            TIME,
            np.column_stack([np.exp(-(k + 1) * TIME), TIME]) + 0.05 * rng.normal(size=(12, 2)),
            np.ones(12),
            np.array([k >= n - n_held, False]),
        )
        for k in range(n)
    ]


def test_whole_trajectories_are_drawn_within_each_intervention():
    trajectories = runs(7, n_held=3)
    seen = set()
    for seed in range(20):
        drawn = resample(trajectories, np.random.default_rng(seed))
        assert len(drawn) == 7
        assert all(any(one is t for t in trajectories) for one in drawn)
        assert sum(one.clamped.any() for one in drawn) == 3
        seen.add(tuple(one.name for one in drawn))
    assert len(seen) > 15
    assert any(len(set(names)) < 7 for names in seen)


def test_residuals_are_drawn_where_there_are_few_trajectories():
    trajectories = runs(3)
    drawn = resample(trajectories, np.random.default_rng(0))
    for one, t in zip(drawn, trajectories, strict=True):
        curve = smooth(t)(TIME)
        residual, before = one.values - curve, t.values - curve
        # Rows keep what belongs together: every residual is one of those observed.
        for row in residual:
            assert np.isclose(before, row).all(axis=1).any()
        assert not np.allclose(residual, before)
        assert (one.name, one.time is t.time) == (t.name, True)
    again = resample(trajectories, np.random.default_rng(0))
    np.testing.assert_array_equal(again[0].values, drawn[0].values)


def test_agreement_of_fits(fitted_dynamics, monkeypatch):
    stored = read_dynamics(fitted_dynamics)
    made: list[DynamicsTrainer] = []
    original = DynamicsTrainer.__init__

    def remember(self, *args, **options) -> None:
        original(self, *args, **options)
        made.append(self)

    monkeypatch.setattr(DynamicsTrainer, "__init__", remember)
    found = stability(fitted_dynamics, stored, n_fits=2, n_jobs=1, seed=3)
    for part in (found.frequency, found.evidence, found.weight):
        assert part.shape == (5, 5)
        assert np.isfinite(part).all()
    assert set(np.unique(found.frequency)) <= {0, 0.5, 1}
    assert not found.frequency.diagonal().any()
    assert (found.weight[found.frequency == 0] == 0).all()
    # Every fit is at the strength and threshold of the fit, and has data and a seed of its own.
    assert [one.settings.strength for one in made] == [stored.model.strength] * 2
    assert [one.threshold for one in made] == [stored.model.threshold] * 2
    assert len({one.settings.seed for one in made}) == 2
    names = [[t.name for t in one.trajectories] for one in made]
    assert names[0] != names[1]
    # The mean of single fits.
    results = [one.result() for one in made]
    known = [one.support() & (one.evidence >= _graph.SURE_EVIDENCE) for one in results]
    np.testing.assert_allclose(found.frequency, np.mean(known, axis=0))
    np.testing.assert_allclose(found.evidence, np.mean([one.evidence for one in results], axis=0), rtol=1e-6)


def test_a_fit_is_sure_of_what_it_keeps_and_has_evidence_for():
    support = np.array([[True, True, False], [False, True, True]])
    evidence = np.array([[0.1, 0.31, 2.0], [0.0, 0.3, 0.29]])
    np.testing.assert_array_equal(sure(support, evidence), [[False, True, False], [False, True, False]])
    np.testing.assert_array_equal(sure(support, np.zeros((0, 0))), support)  # without elimination


def test_fits_side_by_side_give_the_same(fitted_dynamics, monkeypatch):
    from joblib import parallel_config

    stored = read_dynamics(fitted_dynamics)
    monkeypatch.setattr(_graph, "SHARE_OF_STEPS", 0.1)
    one = stability(fitted_dynamics, stored, n_fits=2, n_jobs=1, seed=3)
    with parallel_config(backend="threading"):
        two = stability(fitted_dynamics, stored, n_fits=2, n_jobs=2, seed=3)
    np.testing.assert_array_equal(one.evidence, two.evidence)
    other = stability(fitted_dynamics, stored, n_fits=2, n_jobs=1, seed=4)
    assert not np.array_equal(one.evidence, other.evidence)


@pytest.mark.parametrize(("effort", "expected"), [(0.3, 0.3), (0.6, 0.6), (0.8, 0.6), (1.0, 0.6), (2.0, 1.2)])
def test_fits_of_bootstraps_are_shorter_only_where_the_fit_is_long(fitted_dynamics, monkeypatch, effort, expected):
    stored = read_dynamics(fitted_dynamics)
    stored.settings["effort"] = effort
    asked = []

    def remember(*options):
        asked.append(options[2])
        return (np.zeros((5, 5)),) * 3

    monkeypatch.setattr(_graph, "_one", remember)
    stability(fitted_dynamics, stored, n_fits=1, n_jobs=1, seed=0)
    assert asked[0].matching_steps == round(expected * DynamicsSettings().matching_steps)


def test_prior_and_regulators_are_those_of_the_fit(time_courses, monkeypatch):
    prior = pd.DataFrame({"source": ["gene1"], "target": ["gene3"]})
    setup_dynamics(
        time_courses, time_key="time", trajectory_key="trajectory", regulators=["gene1", "gene2"], prior=prior
    )
    fit_dynamics(
        time_courses, effort=0.01, strength=0.01, eliminate=False, plan_kwargs={"prior_weight": 3.0}, progress_bar=False
    )
    stored = read_dynamics(time_courses)
    asked = []
    original = DynamicsTrainer.__init__

    def remember(self, *args, **options) -> None:
        asked.append(options["factors"].numpy().tolist())
        original(self, *args, **options)

    monkeypatch.setattr(DynamicsTrainer, "__init__", remember)
    # The order of the genes of the cells does not matter.
    found = stability(time_courses[:, ::-1].copy(), stored, n_fits=1, n_jobs=1, seed=0)
    assert asked == [[[1, 1], [1, 1], [1, 1], [0.25, 1], [1, 1]]]
    assert found.weight.shape == (5, 2)
    np.testing.assert_allclose(found.evidence, np.abs(found.weight))


def test_missing_cells_of_the_fit_are_named(fitted_dynamics):
    stored = read_dynamics(fitted_dynamics)
    stored.fields = replace(stored.fields, time_key="gone")
    with pytest.raises(KeyError, match=r"Expected 'gone' in `adata.obs`"):
        stability(fitted_dynamics, stored, n_fits=1, n_jobs=1, seed=0)


def test_what_does_not_move_in_a_bootstrap_has_no_edges_there(fitted_dynamics, monkeypatch):
    stored = read_dynamics(fitted_dynamics)
    config = replace(stored.model.config, at_rest=(4,), regulators=(0, 1, 3))
    drawn = [replace(t, values=t.values.copy()) for t in trajectories_of(fitted_dynamics, stored.fields)[:5]]
    for one in drawn:
        one.values[:, [2, 3]] = 1.0
    asked = []
    original = DynamicsTrainer.__init__

    def remember(self, *args, **options) -> None:
        asked.append((args[1].targets, args[1].regulators, options["factors"].tolist()))
        original(self, *args, **options)

    monkeypatch.setattr(DynamicsTrainer, "__init__", remember)
    settings = DynamicsSettings(strength=0.0, matching_steps=60, elimination_steps=10)
    factors = torch.arange(15.0).reshape(5, 3)  # of regulators 0, 1 and 3
    found = _graph._one(drawn, config, settings, factors, 0.0, 0)
    assert asked == [((0, 1), (0, 1), [[3 * k, 3 * k + 1] for k in range(5)])]
    for part in found:
        assert part.shape == (5, 3)
        assert not part[2:].any()
        assert not part[:, 2].any()
    for part in found[1:]:  # so short a fit is sure of nothing
        assert part[:2, :2].any()
    for one in drawn:
        one.values[:] = 1.0
    assert not np.any(_graph._one(drawn, config, settings, factors, 0.0, 0))

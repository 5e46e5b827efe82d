from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.linalg import expm

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
second_order_system = import_module("_physical_systems").second_order_system
lorenz96 = import_module("_physical_systems").lorenz96

# Of (x1, x2, x3, v1, v2, v3).
SYSTEM = np.array(
    [
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
        [-1.5, 0, 0, -0.5, 0, 0],
        [0, -2.7, 0, 0, -1.0, 0],
        [0, 0, -2.0, -1.0, -1.0, -0.1],
    ]
)
SMALL: dict[str, Any] = {"n_trajectories": 2, "n_times": 40, "burn_in": 10.0}


def states(adata, perturbation="control"):
    """Positions and velocities without noise (trajectories, times, 6), and the times."""
    rows = (adata.obs["perturbation"] == perturbation).to_numpy()
    both = np.concatenate([adata.layers["noise_free"][rows], adata.layers["velocity"][rows]], axis=1)
    n_times = adata.uns["simulation"]["n_times"]
    return both.reshape(-1, n_times, 6).astype(float), adata.obs["time"].to_numpy()[:n_times]


def exact(system, start, times):
    return np.stack([expm(system * time) @ start for time in times])


@pytest.fixture(scope="module")
def oscillators():
    return second_order_system(n_trajectories=3, interventions=["hold", "stiffen"])


def test_oscillators_follow_the_matrix_exponential(oscillators):
    runs, times = states(oscillators)
    np.testing.assert_allclose(runs[0, 0], [0.4, 0.7, 1.8, 0.3, 0.5, 1.0], rtol=1e-6)
    np.testing.assert_allclose(times, np.linspace(0, 10, 50))
    for run in runs:
        np.testing.assert_allclose(run, exact(SYSTEM, run[0], times), atol=2e-6)
    assert len(np.unique(runs[:, 0, 0])) == 3


def test_stiffening_changes_one_coefficient(oscillators):
    stiff = SYSTEM.copy()
    stiff[3, 0] = -12.0
    runs, times = states(oscillators, "stiff x1")
    np.testing.assert_array_equal(runs[:, 0], states(oscillators)[0][:, 0])
    for run in runs:
        np.testing.assert_allclose(run, exact(stiff, run[0], times), atol=2e-6)


def test_holding_keeps_position_and_stops_velocity(oscillators):
    held = SYSTEM.copy()
    held[[0, 3]] = 0.0
    runs, times = states(oscillators, "x1")
    assert (runs[:, :, 0] == np.float32(0.4)).all()
    assert (runs[:, :, 3] == 0).all()
    for run in runs:
        np.testing.assert_allclose(run, exact(held, run[0], times), atol=2e-6)
    rows = oscillators.obs["perturbation"] == "x1"
    assert (oscillators.obs.loc[rows, "held_at"] == 0.4).all()
    assert oscillators.obs.loc[~rows, "held_at"].isna().all()


def test_edges_of_the_oscillators(oscillators):
    effects = SYSTEM[3:].T  # row acts on column
    np.testing.assert_array_equal(oscillators.varp["true_graph"].toarray(), np.sign(effects[:3]))
    np.testing.assert_array_equal(oscillators.varp["true_graph_rate"].toarray(), np.sign(effects[3:]))
    table = oscillators.uns["true_edges"]
    assert len(table) == 8
    rate = table[table["acts_through"] == "rate"]
    assert set(zip(rate["source"], rate["target"], strict=True)) == {
        *(("x1", "x1"), ("x2", "x2"), ("x1", "x3"), ("x2", "x3"), ("x3", "x3"))
    }
    assert set(table["sign"]) == {-1}


def test_oscillators_without_interventions_are_the_same(oscillators):
    noisy, plain = (second_order_system(n_trajectories=3, noise=noise) for noise in (0.1, 0.0))
    control = oscillators[oscillators.obs["perturbation"] == "control"]
    np.testing.assert_allclose(plain.X, control.X, atol=1e-6)  # step sizes are those of all runs together
    np.testing.assert_array_equal(plain.X, plain.layers["noise_free"])
    np.testing.assert_array_equal(noisy.layers["noise_free"], plain.X)
    # 450 draws: the standard error of the standard deviation is 3 %.
    assert (noisy.X - plain.X).std() == pytest.approx(0.1 * plain.X.std(), rel=0.12)
    assert "held_at" not in plain.obs


@pytest.fixture(scope="module")
def atmosphere():
    return lorenz96(n_variables=6, **SMALL)


def lorenz_rates(x, forcing=8.0):
    """Written out, index by index."""
    p = len(x)
    return np.array([(x[(i + 1) % p] - x[i - 2]) * x[i - 1] - x[i] + forcing for i in range(p)])


def test_lorenz_follows_its_equations(atmosphere):
    fine = lorenz96(n_variables=6, **{**SMALL, "step": 0.002})
    x = fine.layers["noise_free"][:40].astype(float)
    rates = (x[2:] - x[:-2]) / 0.004
    expected = np.array([lorenz_rates(row) for row in x[1:-1]])
    np.testing.assert_allclose(rates, expected, atol=0.02)  # of rates up to about 30
    assert np.abs(expected).max() > 5
    np.testing.assert_allclose(x[25], atmosphere.layers["noise_free"][1], rtol=1e-5)  # the grid changes nothing


def test_lorenz_graph_is_the_sign_of_the_mean_jacobian(atmosphere):
    x, h = atmosphere.layers["noise_free"].astype(float), 1e-5
    jacobian = np.mean(
        [
            [(lorenz_rates(row + h * unit) - lorenz_rates(row - h * unit)) / (2 * h) for unit in np.eye(6)]
            for row in x[::4]
        ],
        axis=0,
    )
    np.testing.assert_allclose(np.diag(jacobian), -1.0, rtol=1e-6)  # the damping, which is no edge
    np.fill_diagonal(jacobian, 0.0)
    graph = atmosphere.varp["true_graph"].toarray()
    assert ((np.abs(jacobian) > 1e-6) == (graph != 0)).all()
    table = atmosphere.uns["true_edges"]
    assert len(table) == 18
    source, target = (atmosphere.var_names.get_indexer(table[end]) for end in ("source", "target"))
    np.testing.assert_array_equal(np.sign(table["mean_effect"]), table["sign"])
    np.testing.assert_array_equal(graph[source, target], table["sign"])
    signed = table["signed"].to_numpy()
    np.testing.assert_array_equal((target - source)[~signed] % 6, 1)
    np.testing.assert_array_equal(np.sign(jacobian[source, target])[signed], table["sign"][signed])


def test_lorenz_mean_effects_are_those_of_all_data(atmosphere):
    x = atmosphere.layers["noise_free"].astype(float)
    table = atmosphere.uns["true_edges"].set_index(["source", "target"])["mean_effect"]
    assert table["x4", "x3"] == pytest.approx(x[:, 1].mean(), rel=1e-5)
    assert table["x1", "x3"] == pytest.approx(-x[:, 1].mean(), rel=1e-5)
    assert table["x2", "x3"] == pytest.approx((x[:, 3] - x[:, 0]).mean(), rel=1e-4)


def test_lorenz_settles_under_weak_forcing_only():
    settled = lorenz96(n_variables=5, forcing=0.5, n_trajectories=1, n_times=10, burn_in=50.0)
    np.testing.assert_allclose(settled.X, 0.5, rtol=1e-5)  # all variables at F: stable below 8/9
    chaotic = lorenz96(n_variables=5, n_trajectories=1, n_times=10, burn_in=50.0)
    assert chaotic.X.std() > 1


@pytest.mark.parametrize(
    "simulate",
    [
        lambda seed: second_order_system(noise=0.05, interventions=["stiffen"], seed=seed),
        lambda seed: lorenz96(n_variables=4, noise=0.05, seed=seed, **SMALL),
    ],
    ids=["second_order_system", "lorenz96"],
)
def test_seed_and_round_trip(simulate, tmp_path):
    adata = simulate(1)
    np.testing.assert_array_equal(adata.X, simulate(1).X)
    assert not np.array_equal(adata.X, simulate(2).X)
    adata.write_h5ad(tmp_path / "runs.h5ad")
    read = ad.read_h5ad(tmp_path / "runs.h5ad")
    np.testing.assert_array_equal(read.X, adata.X)
    pd.testing.assert_frame_equal(
        read.uns["true_edges"], adata.uns["true_edges"], check_index_type=False, check_dtype=False
    )
    assert adata.X.dtype == adata.layers["noise_free"].dtype == np.float32
    ends = adata.obs.groupby("trajectory", observed=True)["time"]
    assert ends.apply(lambda time: (np.diff(time) > 0).all()).all()

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from perturbflow.datasets import hill_network
from perturbflow.pp import setup_dynamics
from perturbflow.tl import fit_dynamics, forecast

PERIOD = 2 * np.pi


def rotations(phases, *, offsets=0.0, tempo=1.0, n_times=41, step=0.25) -> AnnData:
    """Harmonic oscillators at some phases, with offsets, of three genes."""
    time = step * np.arange(n_times)
    parts, obs = [], []
    for k, phase in enumerate(phases):
        at = phase + tempo * time
        parts.append(np.column_stack([np.cos(at), np.sin(at), 0.5 * np.cos(at - 1)]) + offsets)
        obs.append(pd.DataFrame({"time": time, "trajectory": f"run{k}"}))
    table = pd.concat(obs, ignore_index=True)
    table.index = table.index.astype(str)
    adata = AnnData(np.concatenate(parts).astype(np.float32), obs=table)
    adata.var_names = ["a", "b", "c"]
    return adata


@pytest.fixture(scope="module")
def oscillators() -> AnnData:
    adata = rotations([0.0, 1.5, 3.0, 4.5])
    setup_dynamics(adata, time_key="time", trajectory_key="trajectory")
    fit_dynamics(
        adata,
        field="linear",
        sparsity="none",
        strength=0.0,
        eliminate=False,
        effort=0.3,
        progress_bar=False,
    )
    return adata


def first_part(adata: AnnData, until: float) -> AnnData:
    return adata[adata.obs["time"] < until].copy()


@pytest.mark.parametrize(("offset", "tempo"), [(0.0, 1.0), ([4.0, -3.0, 2.0], 1.0), (0.0, 1.25), (1.0, 0.8)])
def test_phase_offset_and_tempo_are_found(oscillators, offset, tempo):
    new = rotations([0.7, 5.0], offsets=offset, tempo=tempo)
    forecast(oscillators, observed=first_part(new, 6.9), until=10.0, n_times=41)
    found = oscillators.uns["forecast"]
    assert found["trajectories"].tolist() == ["run0", "run1"]
    assert found["observed_until"].tolist() == [6.75, 6.75]
    truth = new.X.reshape(2, 41, 3)
    np.testing.assert_allclose(found["time"], 0.25 * np.arange(41))
    assert np.abs(found["values"] - truth).max() < 0.25


def test_one_time_is_enough_where_levels_tell_the_state(oscillators):
    new = rotations([0.7])
    forecast(oscillators, observed=new[:1].copy(), until=6.0, n_times=25)
    found = oscillators.uns["forecast"]["values"][0]
    assert np.abs(found - new.X[:25]).max() < 0.3


def test_another_cycle_is_repeated(oscillators):
    new = rotations([0.0])
    new.X[:, 2] = np.cos(2 * np.asarray(new.obs["time"]))  # twice a cycle, which no trajectory of the fit does
    forecast(oscillators, observed=first_part(new, 7.9), until=10.0, n_times=41)
    late = oscillators.uns["forecast"]["values"][0, 33:, 2]
    assert np.abs(late - new.X[33:, 2]).max() < 0.35


def test_missing_frames_do_not_matter(oscillators):
    new = rotations([2.0])
    some = np.sort(np.random.default_rng(0).permutation(28)[:14])
    forecast(oscillators, observed=new[some].copy(), until=10.0, n_times=41)
    assert np.abs(oscillators.uns["forecast"]["values"][0, some[0] :] - new.X[some[0] :]).max() < 0.25


def test_later_beginnings_are_unknown_before(oscillators):
    new = rotations([0.0, 1.0])
    keep = (new.obs["trajectory"] == "run0") | (new.obs["time"] > 2)
    forecast(oscillators, observed=first_part(new[keep], 7.0), until=8.0, n_times=33)
    values, time = oscillators.uns["forecast"]["values"], oscillators.uns["forecast"]["time"]
    assert np.isnan(values[1, time < 2.25]).all()
    assert np.isfinite(values[1, time >= 2.25]).all()
    assert np.isfinite(values[0]).all()


def test_order_of_genes_and_further_genes_do_not_matter(oscillators):
    new = first_part(rotations([0.7]), 5.0)
    forecast(oscillators, observed=new, n_times=5)
    expected = oscillators.uns["forecast"]["values"]
    more = AnnData(np.hstack([new.X, np.ones((new.n_obs, 1), np.float32)]), obs=new.obs)
    more.var_names = [*new.var_names, "d"]
    forecast(oscillators, observed=more[:, ["c", "d", "a", "b"]].copy(), n_times=5)
    np.testing.assert_allclose(oscillators.uns["forecast"]["values"], expected, rtol=1e-5, atol=1e-6)


def test_held_genes_stay(fitted_dynamics):
    new = hill_network(n_genes=5, n_trajectories=2, n_times=6)
    new.obs["perturbation"] = "gene2"
    new.X[:, 2] = 0.4
    columns = fitted_dynamics.uns["dynamics_fields"]
    new.obs = new.obs.rename(columns={"perturbation": columns["perturbation_key"]})
    forecast(fitted_dynamics, observed=new, until=4.0, n_times=9)
    found = fitted_dynamics.uns["forecast"]
    np.testing.assert_allclose(found["values"][:, :, 2], 0.4, rtol=1e-6)
    assert np.isfinite(found["values"]).all()


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        (
            lambda x: x[:, :2].copy(),
            {},
            KeyError,
            r"3 genes that the dynamics were fitted to in `observed.var_names`.*missing: \['c'\]",
        ),
        (lambda x: x[:0].copy(), {}, ValueError, "Expected cells in `observed`, found none"),
        (lambda x: x.to_df(), {}, TypeError, "Expected `observed` to be an AnnData"),
        (lambda x: x, {"start": np.ones((1, 3))}, ValueError, "Expected `start` or `observed`, found both"),
        (lambda x: x, {"until": -1.0}, ValueError, "after the first observed time"),
        (
            lambda x: AnnData(x.X, obs=x.obs[["time"]], var=x.var),
            {},
            KeyError,
            r"Expected 'trajectory' in `observed\.obs`",
        ),
    ],
)
def test_bad_input(oscillators, unchanged, change, options, error, message):
    new = change(first_part(rotations([0.7]), 5.0))
    with unchanged(oscillators), pytest.raises(error, match=message):
        forecast(oscillators, observed=new, **options)


def test_cells_of_the_fit_have_to_be_there(oscillators):
    some = oscillators[oscillators.obs["trajectory"] != "run2"].copy()
    with pytest.raises(ValueError, match=r"cells of the 4 trajectories of the fit.*1 missing: \['run2'\]"):
        forecast(some, observed=first_part(rotations([0.7]), 5.0))

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from perturbflow.dynamics import (
    FieldConfig,
    FittedDynamics,
    Observed,
    ObservedForecasts,
    Trajectory,
    Units,
    VectorField,
)

FREE: dict[str, Any] = {"decay": False, "production": "free", "self_regulation": True}


class Known(VectorField):
    """A field with known equations."""

    def __init__(self, config, highest):
        super().__init__(config, config.targets)
        self.highest = highest

    def weights(self):
        return ()

    def network(self, inputs, weights):
        raise NotImplementedError

    def highest_rates(self, state, weights=None):
        return self.highest(state)


def lotka_volterra(s):
    x, y = s[:, 0], s[:, 1]
    return torch.stack([x - x * y, -y + x * y], dim=1)


def van_der_pol(s):
    return (1 - s[:, :1] ** 2) * s[:, 1:] - s[:, :1]


def growing(s):
    return -s[:, :1] + 0.2 * s[:, 1:]


def fitted(highest, starts, *, order=1, until=14.0, n_times=71):
    """A model that knows the equations, and its trajectories."""
    starts = np.array(starts, dtype=float)
    d = starts.shape[1] // order
    field = Known(FieldConfig(d, tuple(range(d)), order=order, **FREE), highest).double()
    time = np.linspace(0, until, n_times)

    def rate(_, s):
        with torch.no_grad():
            return field(torch.tensor(s)[None]).numpy()[0]

    states = [solve_ivp(rate, (0, until), s, t_eval=time, rtol=1e-8, atol=1e-8).y.T for s in starts]
    none = np.zeros(d, dtype=bool)
    runs = [Trajectory(f"run{k}", time, s[:, :d], np.ones(n_times), none) for k, s in enumerate(states)]
    model = FittedDynamics(
        field=field,
        units=Units(np.ones(d), 1.0),
        names=tuple(r.name for r in runs),
        start=starts,
        span=np.tile([0.0, until], (len(runs), 1)),
        clamped=np.zeros((len(runs), d), dtype=bool),
        states=np.concatenate(states).astype(np.float32),
        rates=np.zeros((d + 1, d)),
        evidence=np.zeros((0, 0), np.float32),
    )
    return model, runs


def seen(run: Trajectory, rows, *, offset=0.0) -> Observed:
    return Observed("new", run.time[rows], run.values[rows] + offset, run.clamped)


@pytest.fixture(scope="module")
def cycle():
    return fitted(van_der_pol, [[2.0, 0.0], [0.0, 2.0], [-1.5, -1.0], [0.1, 0.1]], order=2)


@pytest.mark.parametrize("offset", [0.0, 5.0])
def test_a_limit_cycle_is_followed_from_any_phase_and_offset(cycle, offset):
    model, runs = cycle
    new = fitted(van_der_pol, [[1.0, 1.0]], order=2)[1][0]
    forecasts = ObservedForecasts(model, runs, duration=14.0)
    found = forecasts.forecast(seen(new, slice(0, 36), offset=offset), new.time[36:66])
    assert np.sqrt(((found - new.values[36:66] - offset) ** 2).mean()) < 0.35  # levels go from -2 to 2


@pytest.mark.parametrize("rows", [slice(0, 1), slice(3, 5), slice(2, 36)])
def test_units_of_times_and_levels_do_not_matter(cycle, rows):
    model, runs = cycle
    hours, counts, until = 7.0, 30.0, slice(36, 50)
    other = replace(model, units=Units(np.full(1, counts), hours), span=hours * model.span)
    moved = [replace(run, time=hours * run.time + 100, values=counts * run.values) for run in runs]
    expected = ObservedForecasts(model, runs, duration=10.0).forecast(seen(runs[1], rows), runs[1].time[until])
    found = ObservedForecasts(other, moved, duration=hours * 10.0).forecast(seen(moved[1], rows), moved[1].time[until])
    np.testing.assert_allclose(found, counts * expected, rtol=1e-6, atol=1e-6)


def test_tempo_is_found(cycle):
    model, runs = cycle
    new = fitted(van_der_pol, [[2.0, 0.0]], order=2)[1][0]
    slow = Observed("slow", 1.3 * new.time[:36], new.values[:36], new.clamped)
    found = ObservedForecasts(model, runs, duration=20.0).forecast(slow, 1.3 * new.time[36:56])
    assert np.sqrt(((found - new.values[36:56]) ** 2).mean()) < 0.4


def test_orbits_that_are_no_limit_cycles_are_followed():
    model, runs = fitted(lotka_volterra, [[1.5, 1.0], [2.0, 1.0], [1.2, 0.8]])
    new = fitted(lotka_volterra, [[1.0, 0.4]])[1][0]
    forecasts = ObservedForecasts(model, runs, duration=14.0)
    found = forecasts.forecast(seen(new, slice(0, 40)), new.time[40:65])
    truth = new.values[40:65]
    assert ((found - truth) ** 2).mean() < 0.2 * ((truth - new.values[:40].mean(axis=0)) ** 2).mean()


@pytest.mark.parametrize("rows", [slice(0, 1), slice(0, 2), slice(0, 8), slice(0, 40)])
def test_forecasts_of_a_field_that_explodes_are_bounded(rows):
    model, runs = fitted(growing, [[1.0, 0.0], [0.0, 1.0]], order=2, until=8.0, n_times=41)
    found = ObservedForecasts(model, runs, duration=40.0).forecast(seen(runs[0], rows), np.linspace(8, 40, 200))
    levels = np.concatenate([r.values for r in runs])
    assert np.abs(found).max() < 1.5 * np.abs(levels).max()


def test_one_time_is_enough_where_it_tells_the_state():
    model, runs = fitted(lotka_volterra, [[1.5, 1.0], [2.0, 1.0], [1.2, 0.8]])
    forecasts = ObservedForecasts(model, runs, duration=6.0)
    found = forecasts.forecast(seen(runs[1], slice(7, 8)), runs[1].time[7:30])
    assert np.abs(found - runs[1].values[7:30]).max() < 0.6  # levels go from 0.4 to 2


def test_held_genes_stay():
    model, runs = fitted(lotka_volterra, [[1.5, 1.0], [2.0, 1.0]])
    held = Observed("held", runs[0].time[:9], np.tile([1.0, 3.0], (9, 1)), np.array([False, True]))
    found = ObservedForecasts(model, runs, duration=10.0).forecast(held, np.linspace(2, 10, 5))
    np.testing.assert_allclose(found[:, 1], 3.0)
    assert np.isfinite(found).all()


def test_many_times_are_averaged(cycle):
    model, runs = cycle
    many = fitted(van_der_pol, [[1.0, 1.0]], order=2, n_times=701)[1][0]
    forecasts = ObservedForecasts(model, runs, duration=14.0)
    found = forecasts.forecast(seen(many, slice(0, 361)), many.time[361:600:10])
    assert np.sqrt(((found - many.values[361:600:10]) ** 2).mean()) < 0.35


def test_bad_input(cycle):
    model, runs = cycle
    with pytest.raises(ValueError, match=r"Expected the 4 trajectories .* found 3"):
        ObservedForecasts(model, runs[:3], duration=1.0)
    with pytest.raises(ValueError, match=r"Expected increasing times .* in 'new'"):
        Observed("new", np.zeros(2), np.zeros((2, 1)), np.zeros(1, dtype=bool))
    with pytest.raises(ValueError, match="at least one"):
        Observed("new", np.zeros(0), np.zeros((0, 1)), np.zeros(1, dtype=bool))

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from perturbflow.dynamics._placement import FEWEST_TIMES, TEMPOS, Neighbours, Solutions, Spread

STEP = 0.1
GRID = STEP * np.arange(200)


@pytest.fixture(scope="module")
def solutions():
    phase = np.array([0.0, 2.0, 4.0])[:, None]
    levels = np.stack([np.cos(GRID + phase), np.sin(GRID + phase), np.cos(2 * GRID + phase)], axis=-1)
    return Solutions(levels, STEP, np.array([8.0, 6.0, 0.3]), Spread(np.full(3, 0.2), np.full(3, 0.02)))


def test_the_best_place_of_every_tempo_is_that_of_the_interpolated_solutions(solutions):
    time = np.array([0.0, 0.37, 0.9, 1.4])
    levels = solutions.levels[1, [5, 9, 14, 20]] + 0.3
    observed = levels @ solutions.basis
    found = solutions._search(np.arange(3), time, observed)
    for tempo in TEMPOS:
        for k, last in ((0, 8.0), (1, 6.0), (2, 0.4)):
            curve = CubicSpline(GRID, solutions.levels[k] @ solutions.basis)
            shifts = np.arange(0.0, last, 0.4)
            scores = [solutions._score(observed - curve(s + tempo * time), time, tempo) for s in shifts]
            mine = [place for place in found if place.solution == k and place.tempo == tempo]
            assert len(mine) == min(2, len(shifts))
            assert mine[0].score == pytest.approx(max(scores), rel=1e-9)
            assert mine[0].shift == pytest.approx(shifts[int(np.argmax(scores))])


def test_of_few_times_no_tempo_is_told(solutions):
    time = np.array([0.0, 0.4])
    assert len(time) < FEWEST_TIMES
    places = solutions.places(time, solutions.levels[0, [12, 16]], allowed=np.array([False, True, True]))
    assert {place.tempo for place in places} == {1.0}
    assert {place.solution for place in places} <= {1, 2}


def states_of(solutions):
    """Every state of the spans, one of three steps of the grid: number of the solution, and time along it."""
    return [(k, shift) for k, span in enumerate(solutions.span) for shift in np.arange(0.0, span, 3 * STEP)]


def expected_levels(solutions, levels, after, bandwidth, *, without=None):
    """Mean of the solutions through all states, some times after them, by a Gaussian of the distance of their components."""
    places = [(k, shift) for k, shift in states_of(solutions) if k != without]
    curves = [CubicSpline(GRID, each) for each in solutions.levels]
    states = np.array([curves[k](shift) for k, shift in places])
    square = (((levels - states) @ solutions.basis) ** 2).sum(axis=1)
    weight = np.exp(-(square - square.min()) / (2 * bandwidth))
    return np.average([curves[k](shift + after) for k, shift in places], axis=0, weights=weight)


def test_one_time_is_continued_as_the_states_that_are_near(solutions):
    levels, after = np.array([0.3, 0.8, -0.2]), np.array([0.5, 3.0])
    found = Neighbours(solutions, []).forecast(levels, after)
    every = np.concatenate([solutions.curves[k](shift)[None] @ solutions.basis for k, shift in states_of(solutions)])
    mean = expected_levels(solutions, levels, np.append(0.0, after), 0.05 * every.var(axis=0).sum())
    stays = (levels - mean[0]) * 0.02 / (0.02 + 0.2)  # as far as differences are offsets and no noise
    np.testing.assert_allclose(found, mean[1:] + stays, atol=1e-3)


@pytest.mark.parametrize("noise", [0.0, 0.5, 2.0])
def test_the_bandwidth_forecasts_runs_best_from_the_solutions_of_others(solutions, noise):
    rng = np.random.default_rng(0)
    runs: list[Any] = [(GRID[:60], solutions.levels[k, :60] + noise * rng.normal(size=(60, 3))) for k in range(3)]
    every = np.concatenate([solutions.curves[k](shift)[None] @ solutions.basis for k, shift in states_of(solutions)])
    errors = np.zeros(6)
    bandwidths = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
    for place, bandwidth in enumerate(bandwidths):
        for k, (time, levels) in enumerate(runs):
            for after in (1.0, 2.0, 4.0):  # after eight, nothing was seen
                for row in np.flatnonzero(time + after <= time[-1] + 1e-9)[::3]:
                    size = bandwidth * every.var(axis=0).sum()
                    mean = expected_levels(solutions, levels[row], np.array([after]), size, without=k)[0]
                    truth = np.array([np.interp(time[row] + after, time, gene) for gene in levels.T])
                    errors[place] += (((mean - truth) @ solutions.basis) ** 2).sum()
    assert Neighbours(solutions, runs).bandwidth == bandwidths[int(errors.argmin())]

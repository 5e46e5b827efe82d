from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from perturbflow.dynamics._placement import FEWEST_TIMES, TEMPOS, Solutions, Spread

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

"""Null models of human motion that are fitted to training sequences: gait cycles and linear recursions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
from _motion_protocol import Forecast, Motion, Task, errors_of, scores

from perturbflow.baselines import CONTINUATIONS

if TYPE_CHECKING:
    from _motion_protocol import FloatArray

hold_last, constant_rate, observed_mean, repeat_cycle, replay_analogue = CONTINUATIONS.values()

N_PHASES = 200
PERIODS = np.arange(28.0, 42.0, 0.25)  # of a walking stride, in frames
NEAR_TEMPO, ANY_TEMPO = (0.75, 1.33), (0.7, 2.0)
PENALTIES = 10.0 ** np.arange(-4, 4)
LARGEST = 1e6  # recursions that explode stop here


@dataclass(frozen=True)
class GaitCycle:
    """Mean cycle of training sequences as a Fourier series of the phase."""

    coefficients: FloatArray  # (1 + 2 k, d)
    period: float  # mean of the training sequences, in frames

    @classmethod
    def fit(cls, train: Sequence[FloatArray], *, n_harmonics: int = 6, n_rounds: int = 6) -> GaitCycle:
        """Fit the cycle and the phase and period of every sequence in turn, from the best series of the first one."""
        starts = [_series(train[:1], [(0.0, period)], n_harmonics) for period in PERIODS]
        cycle = cls(min(starts, key=lambda found: found[1])[0], float(np.mean(PERIODS)))
        for _ in range(n_rounds):
            placed = [cycle.place(x, PERIODS) for x in train]
            cycle = cls(_series(train, placed, n_harmonics)[0], float(np.mean([period for _, period in placed])))
        return cycle

    def at(self, phase: FloatArray) -> FloatArray:
        """Poses at phases between 0 and 1, repeated beyond."""
        return _basis(phase, (len(self.coefficients) - 1) // 2) @ self.coefficients

    def place(self, x: FloatArray, periods: FloatArray, *, with_offset: bool = False) -> tuple[float, float]:
        """Phase of the first frame and period that are nearest to some frames, with a free constant if asked."""
        grid = self.at(np.arange(N_PHASES) / N_PHASES)
        distance = (x**2).sum(axis=1)[:, None] - 2 * x @ grid.T + (grid**2).sum(axis=1)
        best, smallest = (0.0, float(periods[0])), np.inf
        for period in periods:
            steps = np.round(np.arange(len(x)) * N_PHASES / period).astype(int)
            places = (np.arange(N_PHASES)[:, None] + steps) % N_PHASES  # (phase, frame)
            error = distance[np.arange(len(x)), places].mean(axis=1)
            if with_offset:
                share = np.bincount(steps % N_PHASES, minlength=N_PHASES) / len(x)
                mean = np.array([np.roll(share, k) for k in range(N_PHASES)]) @ grid
                error = error - ((x.mean(axis=0) - mean) ** 2).sum(axis=1)
            at = int(error.argmin())
            if error[at] < smallest:
                smallest, best = error[at], (at / N_PHASES, float(period))
        return best

    def forecast(
        self,
        observed: FloatArray,
        n_frames: int,
        *,
        tempos: tuple[float, float] = NEAR_TEMPO,
        offset: Literal["none", "afterwards", "together"] = "none",
    ) -> FloatArray:
        """Continue from the phase and tempo of the observed frames, of one frame at the mean tempo.

        The mean difference of the observed frames from the cycle is added, if asked: once the cycle is placed, or with the
        cycle placed so that it is smallest about this mean.
        """
        periods = np.array([self.period]) if len(observed) == 1 else self._periods(tempos)
        phase, period = self.place(observed, periods, with_offset=offset == "together")
        cycle = self.at(phase + np.arange(len(observed) + n_frames) / period)
        shift = (observed - cycle[: len(observed)]).mean(axis=0) if offset != "none" else 0.0
        return cycle[len(observed) :] + shift

    def fitted_to(self, target: FloatArray) -> FloatArray:
        """Phase, tempo and offset fitted to the answer itself: what the cycle could do at best."""
        phase, period = self.place(target, self._periods(ANY_TEMPO), with_offset=True)
        cycle = self.at(phase + np.arange(len(target)) / period)
        return cycle + (target - cycle).mean(axis=0)

    def _periods(self, tempos: tuple[float, float]) -> FloatArray:
        return np.arange(self.period / tempos[1], self.period / tempos[0], 0.5)


def _basis(phase: FloatArray, n_harmonics: int) -> FloatArray:
    angle = 2 * np.pi * np.asarray(phase)[:, None] * np.arange(1, n_harmonics + 1)
    return np.concatenate([np.ones((len(angle), 1)), np.cos(angle), np.sin(angle)], axis=1)


def _series(
    train: Sequence[FloatArray], placed: Sequence[tuple[float, float]], n_harmonics: int
) -> tuple[FloatArray, float]:
    """Least-squares Fourier series of placed sequences, and its mean squared error."""
    phases = [phase + np.arange(len(x)) / period for x, (phase, period) in zip(train, placed, strict=True)]
    basis, values = _basis(np.concatenate(phases), n_harmonics), np.concatenate(train)
    coefficients = np.linalg.lstsq(basis, values, rcond=None)[0]
    return coefficients, float(((basis @ coefficients - values) ** 2).mean())


@dataclass(frozen=True)
class LinearRecursion:
    """Next frame as an affine function of the last one or two, fed back step by step.

    Of one observed frame, the frame before is an affine function of it, too.
    """

    weights: FloatArray  # (order d, d)
    intercept: FloatArray
    before: tuple[FloatArray, FloatArray]  # (d, d) and (d,), from a frame to the one before
    deviations: bool  # from the mean of the sequence, in the forecast of its observed part
    order: int

    @classmethod
    def fit(
        cls, train: Sequence[FloatArray], *, order: int, penalty: float, scale: float, deviations: bool = False
    ) -> LinearRecursion:
        """Ridge regression over all pairs or triples of training frames; the penalty is relative to the squared scale."""
        sequences = [x - x.mean(axis=0) if deviations else x for x in train]
        past = np.concatenate([_lagged(x, order)[:-1] for x in sequences])
        following = np.concatenate([x[order:] for x in sequences])
        weights, intercept = _ridge(past, following, penalty * scale**2)
        before = _ridge(
            np.concatenate([x[1:] for x in sequences]),
            np.concatenate([x[:-1] for x in sequences]),
            penalty * scale**2,
        )
        return cls(weights, intercept, before, deviations, order)

    def forecast(self, observed: FloatArray, n_frames: int) -> FloatArray:
        """Continue from the last observed frames."""
        mean = observed.mean(axis=0) if self.deviations else np.zeros(observed.shape[1])
        past = [observed[-1] - mean]
        if self.order == 2:
            past.append(observed[-2] - mean if len(observed) > 1 else past[0] @ self.before[0] + self.before[1])
        found = []
        for _ in range(n_frames):
            following = np.clip(np.concatenate(past) @ self.weights + self.intercept, -LARGEST, LARGEST)
            found.append(following)
            past = [following, *past[:-1]]
        return np.array(found) + mean


def _lagged(x: FloatArray, order: int) -> FloatArray:
    return np.concatenate([x[order - 1 - k : len(x) - k] for k in range(order)], axis=1)


def _ridge(x: FloatArray, y: FloatArray, penalty: float) -> tuple[FloatArray, FloatArray]:
    """Weights and a free intercept."""
    centre_x, centre_y = x.mean(axis=0), y.mean(axis=0)
    z = x - centre_x
    weights = np.linalg.solve(z.T @ z + penalty * np.eye(z.shape[1]), z.T @ (y - centre_y))
    return weights, centre_y - centre_x @ weights


def best_recursion(motion: Motion, task: Task, *, order: int, deviations: bool = False) -> Forecast:
    """Linear recursion with the penalty of smallest error on the validation sequences."""

    def error(recursion: LinearRecursion) -> float:
        return float(scores(errors_of(recursion.forecast, motion, task, splits=("valid",)))["score"].mean())

    fits = [
        LinearRecursion.fit(motion.train, order=order, penalty=penalty, scale=motion.scale, deviations=deviations)
        for penalty in PENALTIES
    ]
    return min(fits, key=error).forecast


def nulls(motion: Motion, task: Task) -> dict[str, Forecast]:
    """All null models of a task by name; those named "own" use more of the observed half than its last frames."""
    train = motion.train
    cycle = GaitCycle.fit(train)
    mean = np.concatenate(train).mean(axis=0)

    def continued(function: Callable[..., FloatArray], **options: object) -> Forecast:
        return partial(function, train, **options)

    one_frame = {
        "hold last frame": continued(hold_last),
        "training mean": lambda observed, n: np.tile(mean, (n, 1)),
        "mean gait cycle, aligned": cycle.forecast,
        "analogue": continued(replay_analogue),
        "analogue, shifted": continued(replay_analogue, shifted=True),
        "linear, 1st order": best_recursion(motion, task, order=1),
        "linear, 2nd order": best_recursion(motion, task, order=2),
    }
    if task == "first frame":
        return one_frame
    return one_frame | {
        "constant velocity": continued(constant_rate),
        "own mean": continued(observed_mean),
        "own cycle repeated": continued(repeat_cycle),
        "own cycle repeated, 5 frames compared": continued(repeat_cycle, overlap=5),
        "mean gait cycle + own offset": partial(cycle.forecast, offset="afterwards"),
        "mean gait cycle with own offset, any tempo": partial(cycle.forecast, offset="together", tempos=ANY_TEMPO),
        "linear, 1st order, own deviations": best_recursion(motion, task, order=1, deviations=True),
        "linear, 2nd order, own deviations": best_recursion(motion, task, order=2, deviations=True),
    }


def cheating(motion: Motion) -> Callable[[FloatArray], FloatArray]:
    """Prediction that is fitted to the answer: the mean gait cycle."""
    return GaitCycle.fit(motion.train).fitted_to

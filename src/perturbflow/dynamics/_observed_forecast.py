"""Forecasts of trajectories of which a part was observed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from perturbflow.dynamics._deviations import Covariances
from perturbflow.dynamics._fitted import FittedDynamics
from perturbflow.dynamics._integrate import MARGIN, Guard, held, solve_rk4
from perturbflow.dynamics._placement import FEWEST_TIMES, Neighbours, Solutions, Spread
from perturbflow.dynamics._shooting import MAX_STEP
from perturbflow.dynamics._trajectory import Trajectory

Array = NDArray[np.float64]

MOST = 1.5  # half ranges from the middle of observed levels
STEP = 0.1  # of solutions, in units of time
FASTEST = 2.0  # tempo that solutions are long enough for
MOST_SOLUTIONS = 24
MOST_TIMES = 120  # observed times are averaged into this many bins at most
AMPLITUDES = (0.0, 0.3, 0.6, 1.0)
FEWEST_TO_JUDGE = 8  # observed times, of which a half can be forecast from the other
JUDGED_BY = 4  # power of the ratio of both errors
LEAST_NOISE = 0.05  # in variances
LEAST_OFFSET = 0.02
LEAST_TEMPO = 0.1  # trajectories of other conditions differ by more than those of the fit
USUAL_NOISE = 0.2
EVIDENCE_PER_GENE = 1.5  # difference of log evidence that counts: neither genes nor neighbouring times are independent


@dataclass(frozen=True)
class Observed:
    """Observations of a new trajectory, at one time or more.

    Attributes
    ----------
    name
        What it is called in results.
    time
        Ascending times (n,).
    levels
        Levels (n, d), in the unit of the data.
    clamped
        Genes that an intervention holds (d,).

    Raises
    ------
    ValueError
        If shapes disagree, or times do not rise.

    Examples
    --------
    >>> import perturbflow as pf
    >>> pf.dynamics.Observed("new", np.zeros(1), np.ones((1, 2)), np.zeros(2, dtype=bool)).levels.shape
    (1, 2)
    """

    name: str
    time: Array
    levels: Array
    clamped: NDArray[np.bool_]

    def __post_init__(self) -> None:
        n, d = self.levels.shape
        if not n or self.time.shape != (n,) or self.clamped.shape != (d,) or not (np.diff(self.time) > 0).all():
            msg = (
                f"Expected increasing times ({n},), at least one, and clamped of shape ({d},) for levels of shape ({n}, {d}), found "
                f"{self.time.shape} and {self.clamped.shape}. Average levels at equal times in {self.name!r}."
            )
            raise ValueError(msg)

    def binned(self, n_bins: int) -> Observed:
        """Return means over consecutive times, in at most as many bins.

        Parameters
        ----------
        n_bins
            Number of bins.

        Returns
        -------
        What was observed, at the mean times of the bins.
        """
        if len(self.time) <= n_bins:
            return self
        run = Trajectory(self.name, self.time, self.levels, np.ones(len(self.time)), self.clamped).binned(n_bins)
        return replace(self, time=run.time, levels=run.values)


class ObservedForecasts:
    r"""Forecasts of new trajectories along the solutions of a fit, from what was observed of them.

    A new trajectory is :math:`x(t) = z(s + \tau t) + g(t)`: a solution z that is followed from a place s on at a tempo
    :math:`\tau`, and deviations g, a Gaussian process whose size the observed part tells. Places are weighted by their
    evidence, as are solutions of smaller amplitude; the mean of what was observed takes its share if it forecasts the
    second half of that as well from the first. How far trajectories usually are from solutions, and how much tempos
    differ, is measured on the trajectories of the fit, each along the solutions of the others. A trajectory that was
    observed at one or two times follows the mean of solutions through similar levels. Outside the range of observed
    states, with a margin of a tenth of its width, the field leads back, and no forecast is further from the middle of the
    levels of the fit and of the new trajectory than one and a half times half their range.

    Parameters
    ----------
    model
        The fitted model.
    trajectories
        The trajectories that it was fitted to, in its order.
    duration
        Longest time from the first observed one to the last forecast, in the unit of the data.

    Raises
    ------
    ValueError
        If these are not as many trajectories as those of the fit.

    Examples
    --------
    >>> import perturbflow as pf
    >>> time = np.linspace(0.0, 12.0, 61)
    >>> circle = np.column_stack([np.cos(time), np.sin(time)])  # dx/dt = -y, dy/dt = x
    >>> run = pf.dynamics.Trajectory("run", time, circle, np.ones(61), np.zeros(2, dtype=bool))
    >>> config = pf.dynamics.FieldConfig(
    ...     2, (0, 1), structure="linear", decay=False, production="free", self_regulation=True
    ... )
    >>> settings = pf.dynamics.DynamicsSettings(
    ...     sparsity="none", strength=0.0, eliminate=False, matching_steps=400, shooting_steps=5, solving_steps=5
    ... )
    >>> fitted = pf.dynamics.DynamicsTrainer([run], config, settings).fit()
    >>> shifted = 3 + circle[5:30]
    >>> new = pf.dynamics.Observed("new", time[:25], shifted, np.zeros(2, dtype=bool))
    >>> later = pf.dynamics.ObservedForecasts(fitted, [run], duration=12.0).forecast(new, time[25:35])
    >>> bool(np.abs(later - 3 - circle[30:40]).max() < 0.1)
    True
    """

    def __init__(self, model: FittedDynamics, trajectories: Sequence[Trajectory], *, duration: float) -> None:
        if len(trajectories) != len(model.start):
            msg = (
                f"Expected the {len(model.start)} trajectories that the model was fitted to, found {len(trajectories)}. "
                "Pass them in the order of the fit."
            )
            raise ValueError(msg)
        self.model, self.duration = model, duration
        chosen = np.unique(np.linspace(0, len(model.start) - 1, MOST_SOLUTIONS).astype(int))
        self.start, self.clamped = model.start[chosen], model.clamped[chosen]
        self.guard = Guard.of(np.concatenate([model.states, model.start]))
        self.span = (model.span[chosen, 1] - model.span[chosen, 0]) / model.units.time
        self.runs = [
            ((run.time - run.time[0]) / model.units.time, run.values / model.units.scale)
            for run in (trajectories[k] for k in chosen)
        ]
        levels = self._solved(self.start, self.clamped, self.guard)
        usual = Spread(np.full(levels.shape[2], USUAL_NOISE), np.full(levels.shape[2], LEAST_OFFSET))
        self.spread = self._measured(Solutions(levels, STEP, self.span, usual))
        self.solutions = Solutions(levels, STEP, self.span, self.spread)
        self.neighbours = Neighbours(self.solutions, self.runs)

    def _solved(self, start: Array, clamped: NDArray[np.bool_], guard: Guard) -> Array:
        """Return guarded solutions (K, n, d) on the grid."""
        model, order = self.model, self.model.config.order
        free = held(guard.applied(model.field.double(), order=order), torch.tensor(clamped).repeat(1, order))
        longest = float(self.span.max()) + FASTEST * self.duration / model.units.time
        grid = torch.arange(0.0, longest + 2 * STEP, STEP, dtype=torch.float64).expand(len(start), -1)
        with torch.no_grad():
            states = solve_rk4(free, torch.tensor(np.array(start, dtype=float)), grid, max_step=MAX_STEP)
        return states[..., : model.config.n_genes].numpy()

    def _measured(self, solutions: Solutions) -> Spread:
        """Measure how far every trajectory of the fit is from the solutions of the others."""
        noise, offset, tempo = [], [], []
        for k, (time, levels) in enumerate(self.runs):
            others = np.arange(len(self.runs)) != k
            place = solutions.places(time, levels, allowed=others if others.any() else None, n=1)[0]
            residual = levels - solutions.at(place, time)
            offset.append(residual.mean(axis=0))
            noise.append(((residual - offset[-1]) ** 2).mean(axis=0))
            tempo.append(np.log(place.tempo))
        return Spread(
            noise=np.mean(noise, axis=0) + LEAST_NOISE,
            offset=np.mean(np.square(offset), axis=0) + LEAST_OFFSET,
            tempo=max(float(np.sqrt(np.mean(np.square(tempo)))), LEAST_TEMPO),
        )

    def _holding(self, observed: Observed) -> tuple[Solutions, Neighbours]:
        """Return the solutions under the intervention of a trajectory, from the starts of the fit."""
        if not observed.clamped.any():
            return self.solutions, self.neighbours
        held_at = observed.levels.mean(axis=0) / self.model.units.scale
        start, d = self.start.copy(), self.model.config.n_genes
        start[:, :d][:, observed.clamped] = held_at[observed.clamped]
        start[:, d:][:, np.tile(observed.clamped, self.model.config.order - 1)] = 0.0
        guard = Guard(np.minimum(self.guard.low, start.min(axis=0)), np.maximum(self.guard.high, start.max(axis=0)))
        clamped = np.broadcast_to(observed.clamped, self.clamped.shape).copy()
        solutions = Solutions(self._solved(start, clamped, guard), STEP, self.span, self.spread)
        return solutions, Neighbours(solutions, self.runs)

    def forecast(self, observed: Observed, time: Array) -> Array:
        """Return the levels of a trajectory, at times after the first observed one.

        Parameters
        ----------
        observed
            What was observed.
        time
            Times (m,).

        Returns
        -------
        Levels (m, d), in the unit of the data.
        """
        observed = observed.binned(MOST_TIMES)
        solutions, neighbours = self._holding(observed)
        units, first = self.model.units, observed.time[0]
        now, later = (observed.time - first) / units.time, (np.asarray(time, dtype=float) - first) / units.time
        levels = observed.levels / units.scale
        if len(now) < FEWEST_TIMES:
            found = neighbours.forecast(levels[-1], later - now[-1])
        else:
            found = self._placed(solutions, now, levels, later)
            if len(now) >= FEWEST_TO_JUDGE:
                mean = levels.mean(axis=0)
                found = mean + self._worth(solutions, now, levels) * (found - mean)
        found = self._limited(found, levels)
        found[:, observed.clamped] = levels[:, observed.clamped].mean(axis=0)
        return found * units.scale

    def _limited(self, found: Array, levels: Array) -> Array:
        """Return levels that are at most half as far again from the middle of what was observed as that is wide.

        Up to the margin of the guard they are what they were.
        """
        every = np.concatenate([*(one for _, one in self.runs), levels])
        inner = Guard.of(every)
        within = np.clip(found, inner.low, inner.high)
        room = (MOST - 1 - MARGIN) * np.ptp(every, axis=0) / 2
        room = np.where(room > 0, room, 1.0)
        return within + room * np.tanh((found - within) / room)

    def _worth(self, solutions: Solutions, now: Array, levels: Array) -> float:
        """Return how much a forecast is better than the mean so far, 1 or less: by forecasting the second half of what was seen."""
        half = len(now) // 2
        truth = levels[half:]
        of_mean = float(((truth - levels[:half].mean(axis=0)) ** 2).mean())
        of_forecast = float(((truth - self._placed(solutions, now[:half], levels[:half], now[half:])) ** 2).mean())
        return 1.0 / (1.0 + (of_forecast / max(of_mean, 1e-12)) ** JUDGED_BY)

    def _placed(self, solutions: Solutions, now: Array, levels: Array, later: Array) -> Array:
        """Return scaled levels at later times, a mean over places and amplitudes by their evidence."""
        means, evidence = [], []
        for place in solutions.places(now, levels):
            here, there = solutions.at(place, now), solutions.at(place, later)
            state, state_later = solutions.latent(place, now), solutions.latent(place, later)
            moving = partial(lambda tempo, lag: solutions.correlation(tempo * lag), place.tempo)
            covariances = Covariances(now, state, later, state_later, correlation=moving)
            for amplitude in AMPLITUDES:
                at_rest = (1 - amplitude) * solutions.mean
                found = covariances.deviation(levels - amplitude * here - at_rest, solutions.spread.noise)
                means.append(amplitude * there + at_rest + found.mean)
                evidence.append(found.evidence)
        weight = np.array(evidence)
        weight = np.exp((weight - weight.max()) / (EVIDENCE_PER_GENE * levels.shape[1]))
        return np.tensordot(weight / weight.sum(), np.array(means), axes=1)

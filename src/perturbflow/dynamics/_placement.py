"""Placement of a new trajectory along the solutions of a fit: where it is, how fast it follows them, what is alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

Array = NDArray[np.float64]

COMPONENTS = 8
SHIFTS = 0.4  # step of the first search along solutions, in units of time
TEMPOS = np.exp(np.linspace(-0.6, 0.6, 13))
TEMPO_SPREAD = 0.1
FREEDOM = 3.0  # of the t distributions of tempos and offsets: few degrees, so that outliers are not excluded
CORRELATED = 1.0  # units of time over which errors are about the same
MEMORY = 8.0  # units of time after which an observation counts less
KEPT = 12  # candidates that are refined
ROUNDS = 6
FEWEST_TIMES = 3  # of which a tempo can be told
OTHER_TEMPO = 0.1  # difference of logarithms of tempos
APART = 0.5  # units of time between candidates that count as two
BANDWIDTHS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)  # squares, relative to the mean square distance of states
EVERY = 3  # steps of the grid between states
HORIZONS = (1.0, 2.0, 4.0, 8.0)  # units of time after which bandwidths are judged


@dataclass(frozen=True)
class Place:
    """A place along a solution."""

    solution: int  # number
    shift: float  # time along it at the first observed time, in units of time
    tempo: float  # how fast it is followed, 1 for as fast as in the fit
    score: float = 0.0  # logarithm of the likelihood, up to a constant


@dataclass(frozen=True)
class Spread:
    """Distances of trajectories from solutions that they were placed along."""

    noise: Array  # mean square of what is left apart from offsets (d,), scaled
    offset: Array  # variance of the offsets (d,)
    tempo: float = TEMPO_SPREAD  # spread of the logarithms of the tempos


class Solutions:
    """Solutions of a fit on a dense grid, scaled levels (K, n, d), along which trajectories are placed.

    ``step`` of the grid and ``span`` (K,), the time along each up to which others may begin, are in units of time.
    """

    def __init__(self, levels: Array, step: float, span: Array, spread: Spread) -> None:
        self.levels, self.step, self.span, self.spread = levels, step, span, spread
        unit = np.sqrt(spread.noise)
        some = (levels[:, :: max(1, round(SHIFTS / step))] / unit).reshape(-1, levels.shape[2])
        basis = np.linalg.svd(some - some.mean(axis=0), full_matrices=False)[2][:COMPONENTS].T
        self.basis = basis / unit[:, None]
        self.offset = (basis**2 * (spread.offset / spread.noise)[:, None]).sum(axis=0)
        grid = step * np.arange(levels.shape[1])
        self.curves = [CubicSpline(grid, one) for one in levels]
        self.projected = [CubicSpline(grid, one @ self.basis) for one in levels]
        self.pieces = np.stack([curve.c for curve in self.projected], axis=1)  # (4, K, steps, p), of falling powers
        self.n_steps = self.pieces.shape[2]
        self.mean = levels.mean(axis=(0, 1))
        self.autocorrelation = self._autocorrelation()

    def _autocorrelation(self) -> Array:
        """Return how levels correlate along solutions over the observed spans, by lag (L,), a mean over genes."""
        n = max(2, round(float(np.median(self.span)) / self.step))
        levels = self.levels[:, :n]
        spread = levels.std(axis=(0, 1))
        moving = (levels - levels.mean(axis=1, keepdims=True))[..., spread > 0] / spread[spread > 0]
        power = np.abs(np.fft.rfft(moving, n=2 * n, axis=1)) ** 2
        found = np.fft.irfft(power.sum(axis=(0, 2)), n=2 * n)[:n]
        return found / found[0] if found[0] > 0 else np.ones(1)

    def correlation(self, lag: Array) -> Array:
        """Return the autocorrelation of solutions at lags, in units of time; 0 beyond the observed span."""
        return np.interp(np.abs(lag), self.step * np.arange(len(self.autocorrelation)), self.autocorrelation, right=0.0)

    def at(self, place: Place, time: Array) -> Array:
        """Return scaled levels (n, d) of the solution at a place, at times since the first observed one."""
        return self.curves[place.solution](place.shift + place.tempo * time)

    def latent(self, place: Place, time: Array) -> Array:
        """Return the leading components (n, p) of :meth:`at`."""
        return self.projected[place.solution](place.shift + place.tempo * time)

    def places(self, time: Array, levels: Array, *, allowed: Array | None = None, n: int = 6) -> list[Place]:
        """Return the ``n`` most likely places of a trajectory, scaled levels (n, d) at times since the first.

        The likelihood has an offset of the trajectory and a tempo, both of t distributions, and otherwise noise whose size
        is that of the best fit. A search over shifts and tempos is refined by Gauss-Newton steps. Places are at least half
        a unit of time apart or along other solutions (of those ``allowed``), the most likely first; then half as many of
        other tempos, in case that the rest of the evidence is for them.
        """
        observed = levels @ self.basis
        chosen = np.flatnonzero(np.ones(len(self.span), dtype=bool) if allowed is None else allowed)
        found = self._search(chosen, time, observed)
        found = sorted(found, key=_unlikely)
        if len(time) < FEWEST_TIMES:
            return list(_apart(found))[:n]
        fastest = {place.tempo: place for place in reversed(found)}  # the best of every tempo
        some = [*found[:KEPT], *(place for place in fastest.values() if place not in found[:KEPT])]
        found = list(_apart(sorted((self._refined(place, time, observed) for place in some), key=_unlikely)))
        others = [place for place in found[n:] if abs(np.log(place.tempo / found[0].tempo)) > OTHER_TEMPO]
        return found[:n] + others[: n // 2]

    def _search(self, chosen: NDArray[np.int_], time: Array, observed: Array) -> list[Place]:
        """Return the best places along some solutions, two for every tempo."""
        per_shift = round(SHIFTS / self.step)  # steps of the grid
        shifts = SHIFTS * np.arange(max(len(np.arange(0.0, max(span, SHIFTS), SHIFTS)) for span in self.span[chosen]))
        beyond = shifts >= np.maximum(self.span[chosen, None], SHIFTS)
        found = []
        for tempo in TEMPOS if len(time) >= FEWEST_TIMES else [1.0]:
            # All shifts are whole steps of the grid: the places within steps are those of the first one.
            first = np.minimum((tempo * time / self.step).astype(int), self.n_steps - 1)
            within = tempo * time - self.step * first
            at = np.minimum(per_shift * np.arange(len(shifts))[:, None] + first, self.n_steps - 1)
            curve = self.pieces[0][chosen][:, at]
            for part in self.pieces[1:]:
                curve *= within[:, None]
                curve += part[chosen][:, at]
            scores = np.where(beyond, -np.inf, self._score(observed - curve, time, float(tempo)))
            best = np.argsort(-scores, axis=1)[:, :2]
            found += [
                Place(int(k), float(shifts[i]), float(tempo), float(score[i]))
                for k, score, places in zip(chosen, scores, best, strict=True)
                for i in places
                if np.isfinite(score[i])
            ]
        return found

    def _score(self, residual: Array, time: Array, tempo: float) -> Array:
        """Return the logarithm of the likelihood of residuals (..., n, p), without constants."""
        if len(time) < FEWEST_TIMES:
            return -0.5 * (residual**2 / (1 + self.offset)).sum(axis=-1).mean(axis=-1)
        n, recent = _independent(time), _recent(time)
        offset = recent @ residual
        centred = residual - offset[..., None, :]
        size = np.einsum("...np,...np->...n", centred, centred) @ recent / residual.shape[-1]
        score = -0.5 * n * residual.shape[-1] * np.log(size + 1e-9)
        score -= (FREEDOM + 1) / 2 * np.log1p(offset**2 / (FREEDOM * (self.offset + 1 / n))).sum(axis=-1)
        return score - (FREEDOM + 1) / 2 * np.log1p((np.log(tempo) / self.spread.tempo) ** 2 / FREEDOM)

    def _refined(self, place: Place, time: Array, observed: Array) -> Place:
        """Return the place after Gauss-Newton steps of shift and tempo that make it more likely."""
        curve, recent = self.projected[place.solution], _recent(time)[:, None]
        best = place
        for _ in range(ROUNDS):
            at = best.shift + best.tempo * time
            residual, rate = observed - curve(at), curve(at, 1)
            residual = residual - (recent * residual).sum(axis=0)
            design = np.stack([rate, rate * (best.tempo * time)[:, None]], axis=-1)
            design = design - (recent[..., None] * design).sum(axis=0)
            information = np.einsum("n,npi,npj->ij", recent[:, 0], design, design)
            towards = np.einsum("n,npi,np->i", recent[:, 0], design, residual)
            # What the prior of tempos, a t distribution, says next to the data.
            size, log = (recent * residual**2).sum() / residual.shape[1], np.log(best.tempo)
            prior = size / _independent(time) * (FREEDOM + 1) / (FREEDOM * self.spread.tempo**2 + log**2)
            information[1, 1] += prior
            towards[1] -= prior * log
            information += 1e-9 * np.trace(information) * np.eye(2) + 1e-12 * np.eye(2)
            step = np.clip(np.linalg.solve(information, towards), [-SHIFTS, -0.1], [SHIFTS, 0.1])
            shift, tempo = max(best.shift + step[0], 0.0), float(best.tempo * np.exp(step[1]))
            score = float(self._score(observed - curve(shift + tempo * time), time, tempo))
            if score <= best.score + 1e-3:
                break
            best = Place(place.solution, shift, tempo, score)
        return best


def _independent(time: Array) -> float:
    """Return how many times would tell as much if their errors were independent."""
    return max(1.0, (time[-1] - time[0]) / CORRELATED)


def _recent(time: Array) -> Array:
    """Return weights (n,) of observed times that sum to 1: the later, the more they tell of the phase to go on from."""
    weight = np.exp((time - time[-1]) / MEMORY)
    return weight / weight.sum()


def _unlikely(place: Place) -> float:
    return -place.score


def _apart(places: list[Place]) -> Iterator[Place]:
    """Go through the places that are not next to a better one along the same solution."""
    taken: list[Place] = []
    for place in places:
        if all(place.solution != other.solution or abs(place.shift - other.shift) > APART for other in taken):
            taken.append(place)
            yield place


class Neighbours:
    """States along the solutions, as starts of new trajectories of which only levels are known.

    Solutions through states with similar levels, weighted by a Gaussian kernel, tell rates as far as that is possible.
    The bandwidth forecasts trajectories of the fit, ``runs`` of times since the first and levels, best from solutions
    of others.
    """

    def __init__(self, solutions: Solutions, runs: Sequence[tuple[Array, Array]]) -> None:
        self.solutions = solutions
        places = [
            (k, shift)
            for k, span in enumerate(solutions.span)
            for shift in np.arange(0.0, max(span, solutions.step), EVERY * solutions.step)
        ]
        self.owner = np.array([k for k, _ in places])
        self.shift = np.array([shift for _, shift in places])
        self.states = self._later(0.0)
        self.typical = float(self.states.var(axis=0).sum()) or 1.0
        self.bandwidth = self._choose(runs)

    def _later(self, after: float) -> Array:
        """Return the leading components of all states some time later (n, p)."""
        found = np.empty((len(self.owner), self.solutions.basis.shape[1]))
        for k, curve in enumerate(self.solutions.projected):
            mine = self.owner == k
            found[mine] = curve(self.shift[mine] + after)
        return found

    def _choose(self, runs: Sequence[tuple[Array, Array]]) -> float:
        """Return the bandwidth with the smallest error."""
        later = {after: self._later(after) for after in HORIZONS}
        errors = np.zeros(len(BANDWIDTHS))
        for k, (time, levels) in enumerate(runs):
            others = self.owner != k
            if not others.any():
                continue
            observed = levels @ self.solutions.basis
            for after in HORIZONS:
                rows = np.flatnonzero(time + after <= time[-1])[::EVERY]
                if not len(rows):
                    continue
                target = np.stack([np.interp(time[rows] + after, time, column) for column in observed.T], axis=1)
                square = self._distances(observed[rows])[:, others]
                for at, bandwidth in enumerate(BANDWIDTHS):
                    mean = _kernel(square, bandwidth * self.typical) @ later[after][others]
                    errors[at] += ((mean - target) ** 2).sum()
        return BANDWIDTHS[int(errors.argmin())]

    def _distances(self, observed: Array) -> Array:
        """Return squared distances of the leading components (m, p) from all states (m, n)."""
        return ((observed[:, None] - self.states[None]) ** 2).sum(axis=2)

    def forecast(self, levels: Array, time: Array) -> Array:
        """Return scaled levels (n, d) at times (n,) since the one at which scaled levels (d,) were observed.

        What the levels differ from those of the mean solution stays, as far as such differences are offsets of whole
        trajectories in the fit, and is forgotten otherwise.
        """
        solutions, spread = self.solutions, self.solutions.spread
        weight = _kernel(self._distances(levels[None] @ solutions.basis), self.bandwidth * self.typical)[0]
        at = np.flatnonzero(weight > 1e-4 * weight.max())
        every = np.append(0.0, time)
        mean = sum(weight[i] * solutions.curves[self.owner[i]](self.shift[i] + every) for i in at) / weight[at].sum()
        residual = levels - mean[0]
        return mean[1:] + residual * spread.offset / (spread.offset + spread.noise)


def _kernel(square: Array, bandwidth: float) -> Array:
    """Return weights that sum to 1 along the second axis."""
    weight = np.exp(-(square - square.min(axis=1, keepdims=True)) / (2 * bandwidth))
    return weight / weight.sum(axis=1, keepdims=True)

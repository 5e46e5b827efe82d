"""Linear dynamics at rest: means and spread of all genes, with any of them held at a level."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_continuous_lyapunov

Array = NDArray[np.float64]

_ROWS = ("held", "shift", "offset", "stretch")  # of every measured condition
_GENES = ("shared", "noise", "shared_stretch", "centre", "scale")


@dataclass(frozen=True, eq=False)
class StandingDynamics:
    r"""Linear rates :math:`\dot x = W x - x + \delta + e` about the unperturbed mean, in units of its spread.

    Parameters
    ----------
    weights
        W, what every gene is driven by (d, r), columns of regulators.
    regulators
        Positions of the regulators.
    shared
        :math:`\delta`, what all perturbed conditions have in common beyond what their held genes explain (d,).
    held
        Genes held in every measured condition (m, d).
    shift
        Mean of every measured condition (m, d).
    offset
        e, what holding these genes did beyond W and :math:`\delta`, as far as it is no sampling error (m, d).
    noise
        Variance of the noise of every gene per unit of time (d,).
    stretch, shared_stretch
        Logarithm of how much wider than W and the noise say every measured condition is (m, d), and its mean (d,).
    centre, scale
        Mean and standard deviation of unperturbed cells, in units of the data (d,).
    strength
        Ridge penalty that predicted left-out perturbations best; 0 where there were none to choose with.

    Examples
    --------
    Gene 0 drives gene 1:

    >>> nothing = np.zeros((0, 2))
    >>> chain = StandingDynamics(
    ...     weights=np.array([[0.0, 0.0], [0.5, 0.0]]),
    ...     regulators=(0, 1),
    ...     shared=np.zeros(2),
    ...     held=nothing.astype(bool),
    ...     shift=nothing,
    ...     offset=nothing,
    ...     noise=np.array([2.0, 1.75]),
    ...     stretch=nothing,
    ...     shared_stretch=np.zeros(2),
    ...     centre=np.array([3.0, 5.0]),
    ...     scale=np.array([1.0, 2.0]),
    ...     strength=0.0,
    ... )
    >>> mean, spread = chain.hold({0: 1.0})  # two spreads below its mean
    >>> mean.tolist(), spread.round(2).tolist()
    ([1.0, 3.0], [0.0, 1.87])
    """

    weights: Array
    regulators: tuple[int, ...]
    shared: Array
    held: NDArray[np.bool_]
    shift: Array
    offset: Array
    noise: Array
    stretch: Array
    shared_stretch: Array
    centre: Array
    scale: Array
    strength: float

    @property
    def rates(self) -> Array:
        """W with a column for every gene, minus decay (d, d)."""
        full = -np.eye(len(self.shared))
        full[:, list(self.regulators)] += self.weights
        return full

    def hold(self, levels: Mapping[int, float]) -> tuple[Array, Array]:
        """Return the mean and the spread that all genes come to, with some of them held.

        Parameters
        ----------
        levels
            Levels by the position of the gene, in units of the data; none for unperturbed cells.

        Returns
        -------
        Means and standard deviations (d,), in units of the data.
        """
        places = np.array(sorted(levels), dtype=np.intp)
        given = np.array([(levels[k] - self.centre[k]) / self.scale[k] for k in places])
        mean, wider = np.zeros(len(self.shared)), np.zeros(len(self.shared))
        if len(places):
            push, wider = self.shared.copy(), self.shared_stretch.copy()
            for condition, share in self._measured(places, given):
                push += share * self.offset[condition]
                wider += share * (self.stretch[condition] - self.shared_stretch)
            held, level = np.zeros(len(mean), dtype=bool), mean
            held[places], level[places] = True, given
            mean = mean_at_rest(self.weights, np.asarray(self.regulators, dtype=np.intp), held, level, push)
        spread = np.exp(self.log_ratio(places) + wider)
        spread[places] = 0.0
        return self.centre + mean * self.scale, self.scale * spread

    def log_ratio(self, places: NDArray[np.intp]) -> Array:
        """Logarithm of the spread with some genes held over that without, by W and the noise; 0 for the held ones.

        Parameters
        ----------
        places
            Positions of the held genes.

        Returns
        -------
        The logarithms (d,).
        """
        after = self._variance(places)
        after[places] = 1.0
        before = self._variance(np.zeros(0, dtype=np.intp))
        before[places] = 1.0
        return np.log(after / before) / 2

    def _measured(self, places: NDArray[np.intp], given: Array) -> list[tuple[int, float]]:
        """Measured conditions to go by, and how far: the one that held these genes, or one of each of them."""
        wanted = np.isin(np.arange(len(self.shared)), places)
        together = np.flatnonzero((self.held == wanted).all(axis=1))
        alone = self.held.sum(axis=1) == 1
        sets = [(places, given, together)]
        if not len(together):
            sets = [
                (places[k : k + 1], given[k : k + 1], np.flatnonzero(alone & self.held[:, place]))
                for k, place in enumerate(places)
            ]
        found = []
        for genes, target, conditions in sets:
            if len(conditions):
                measured = self.shift[np.ix_(conditions, genes)]
                best = int(np.argmin(((measured - target) ** 2).sum(axis=1)))
                # A condition that moved these genes the other way is another perturbation.
                along = measured[best] @ target / max(float((measured[best] ** 2).sum()), 1e-12)
                found.append((int(conditions[best]), float(np.clip(along, 0.0, 1.0))))
        return found

    def _variance(self, places: NDArray[np.intp]) -> Array:
        """Variance of every gene with some held: the Lyapunov equation of regulators, which the others follow."""
        few = np.asarray(self.regulators, dtype=np.intp)
        free = np.flatnonzero(~np.isin(few, places))
        inner = self.weights[np.ix_(few[free], free)] - np.eye(len(free))
        covariance = (
            solve_continuous_lyapunov(inner, -np.diag(self.noise[few[free]])) if len(free) else np.zeros((0, 0))
        )
        variance = np.zeros(len(self.shared))
        variance[few[free]] = np.diag(covariance)
        followers = np.setdiff1d(np.arange(len(variance)), np.concatenate([few, places]))
        driven = self.weights[np.ix_(followers, free)]
        # S_fr = W_f S_rr (1 - A_rr^T)^-1 of the Sylvester equation with decay 1.
        shared = np.linalg.solve(np.eye(len(free)) - inner, (driven @ covariance).T).T if len(free) else driven
        variance[followers] = (driven * shared).sum(axis=1) + self.noise[followers] / 2
        return variance

    def to_dict(self) -> dict[str, Any]:
        """Return plain arrays and values.

        Returns
        -------
        Everything by name.
        """
        names = (*_ROWS, *_GENES, "weights", "strength")
        return {"regulators": np.asarray(self.regulators)} | {name: getattr(self, name) for name in names}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote.

        Parameters
        ----------
        values
            Everything by name.

        Returns
        -------
        The dynamics.
        """
        d = len(np.asarray(values["shared"]))
        arrays = {name: np.asarray(values[name], dtype=np.float64) for name in ("weights", *_GENES)}
        conditions = {name: np.asarray(values[name]).reshape(-1, d) for name in _ROWS}
        return cls(
            **arrays,
            **{name: conditions[name].astype(np.float64) for name in _ROWS if name != "held"},
            held=conditions["held"].astype(bool),
            regulators=tuple(int(k) for k in np.asarray(values["regulators"])),
            strength=float(values["strength"]),
        )


def mean_at_rest(
    weights: Array, regulators: NDArray[np.intp], held: NDArray[np.bool_], level: Array, push: Array
) -> Array:
    """Return means (d,) under a constant push with some genes held at a level: regulators first, which others follow."""
    mean = np.where(held, level, 0.0)
    free = ~held[regulators]
    inner = weights[regulators]
    known = inner[:, ~free] @ mean[regulators[~free]] + push[regulators]
    mean[regulators[free]] = np.linalg.solve(np.eye(free.sum()) - inner[np.ix_(free, free)], known[free])
    followers = ~held
    followers[regulators] = False
    mean[followers] = weights[followers] @ mean[regulators] + push[followers]
    return mean

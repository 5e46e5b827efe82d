"""Latents of a response: what the cells of a condition share beyond what independently shifted control cells have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perturbflow.flow._hurdle_distribution import Context, HurdleDistribution

N_AMOUNTS = 50
_N_ITERATIONS = 12
_N_ATOMS = 60
_N_UPDATES = 300
LEAST_EVIDENCE = 4.0  # of what genes have in common in cells that the direction was not found in
_LEAST_CHANGE = 2.0  # standard errors
_LEAST_SHARE = 0.05  # of cells that express a gene, below which the mean of so few values does not follow a latent
_LEAST_VARIANCE = 1e-3


@dataclass(frozen=True, eq=False)
class ResponseFactor:
    """One latent of a condition: every cell has an amount f of it, with mean 0 over the cells.

    A cell expresses gene g with probability ``p_g + share_g f``, and the mean of its expressed values is ``m_g +
    value_g (f - E[f | expressed])``: marginal shares p and means m stay. Where some cells respond, amounts have two
    modes; graded responses have a broad distribution.
    """

    share: NDArray[np.float64]  # how the share of expressing cells follows the amount (G,)
    value: NDArray[np.float64]  # how the mean of the expressed values does (G,)
    amounts: NDArray[np.float64]  # quantiles, at even steps of probability (Q,)
    coupling: NDArray[np.float64]  # weights of a control cell's standardised states (K,); the norm is their correlation
    evidence: float = np.inf  # standard errors by which genes have more in common than in shifted control cells


@dataclass(frozen=True, eq=False)
class Covariances:
    """Slopes of the mean of every gene on the amounts of a latent (G,), and the standard errors (G,)."""

    measured: NDArray[np.float64]
    error: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Contrast:
    """Real cells (n, G) against shifted control cells (m, G), centred, in common units of every gene (G,)."""

    real: NDArray[np.float64]
    moved: NDArray[np.float64]
    unit: NDArray[np.float64]

    @classmethod
    def of(cls, real: NDArray[np.float64], moved: NDArray[np.float64], unit: NDArray[np.float64]) -> _Contrast:
        return cls((real - real.mean(axis=0)) / unit, (moved - moved.mean(axis=0)) / unit, unit)

    def direction(self, start: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Unit direction in which genes covary more among the real cells, by a sparse power iteration.

        Variances of single genes do not count, and a covariance within its standard error counts as none.
        """
        own = np.square(self.real).mean(axis=0) - np.square(self.moved).mean(axis=0)
        u = start / np.linalg.norm(start)
        for _ in range(_N_ITERATIONS):
            scores, reference = self.real @ u, self.moved @ u
            excess = self.real.T @ scores / len(scores) - self.moved.T @ reference / len(reference) - own * u
            # Where the moved cells covary more, the iteration would otherwise end there and change sign at every step.
            excess -= 2 * min(float(excess @ u), 0.0) * u
            noise = _standard_error(scores, reference)
            excess = np.sign(excess) * np.maximum(np.abs(excess) - noise, 0)
            size = float(np.linalg.norm(excess))
            if size < 1e-9:
                return None
            u = excess / size
        return u

    def excess(self, u: NDArray[np.float64]) -> float:
        """Excess of what genes in a direction have in common, in standard errors that it has where there is none."""
        found, reference = self._common(self.real, u), self._common(self.moved, u)
        error = float(reference.std()) * np.sqrt(1 / len(found) + 1 / len(reference))
        return float(found.mean() - reference.mean()) / max(error, 1e-12)

    @staticmethod
    def _common(cells: NDArray[np.float64], u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of every cell, the products of different genes in the square of its score (n,)."""
        return np.square(cells @ u) - np.square(cells) @ np.square(u)


def fit_factor(
    real: NDArray[np.float64],
    moved: NDArray[np.float64],
    distribution: HurdleDistribution,
    context: Context,
    *,
    rng: np.random.Generator,
) -> tuple[ResponseFactor, Covariances] | None:
    """Find the strongest latent of a condition, and how much genes covary with it in excess; None where there is none.

    It is the direction in which genes covary more among its cells (n, G) than among control cells ``moved`` to its
    distribution, with the latents known so far (m, G): the change of the means, or one that is found. It has to be
    confirmed: along directions from either half of the cells, the excess in the other half is beyond four standard
    errors. A gene follows in proportion to its change, where genes with one do so, and as its own covariance says
    beyond two.
    """
    p, m = distribution.expressed.astype(np.float64), distribution.mean.astype(np.float64)
    change = p * m - context.expressed * context.mean
    unit = np.sqrt((real.var(axis=0) + moved.var(axis=0)) / 2 + _LEAST_VARIANCE)
    of_change = (
        change / unit * (np.abs(change / unit) > _LEAST_CHANGE * np.sqrt(1 / len(real) + 1 / context.n_controls))
    )
    both = _Contrast.of(real, moved, unit)
    evidence, u = _confirmed_direction(real, moved, both, of_change, rng)
    if u is None:
        return None
    others = 1 - np.square(u)  # a gene covaries with the others' part of the score
    mean, is_on = _excess(real, moved, both, u), _excess(real > 0, moved > 0, both, u)
    noise = _standard_error(both.real @ u, both.moved @ u)
    strength = float(u @ (mean / unit)) / max(1 - float((u**4).sum()), 0.1)
    if strength <= 0:
        return None
    sign = -1.0 if float(mean @ change) < 0 else 1.0
    scale = sign / (np.sqrt(strength) * others)
    measured = Covariances(scale * mean, np.abs(scale) * noise * unit)
    proportional = _along(scale * mean / unit, of_change, np.abs(scale) * noise)
    kept = _beyond(measured.measured / unit - proportional * of_change, np.abs(scale) * noise)
    followed = np.where(of_change != 0, proportional, 0.0)
    mean = followed * change + kept * (measured.measured - followed * change)
    of_share = p - context.expressed
    share = followed * of_share + kept * (scale * is_on - followed * of_share)
    u = sign * u
    value = np.where(p > _LEAST_SHARE, (mean - share * m) / np.maximum(p, _LEAST_SHARE), 0.0)
    slope = float(u @ ((share * m + p * value) / unit))
    if slope <= 0:
        return None
    amounts = _amounts(both.real @ u, both.moved @ u, u, unit, distribution, share, value)
    # What the distribution lacks along a latent is known from all genes that follow it.
    lacking = float((real.mean(axis=0) - moved.mean(axis=0)) / unit @ u) / slope
    squared_error = (1 / len(real) + 1 / len(moved)) * float((both.real @ u).var()) / slope**2
    amounts = amounts + lacking**3 / (lacking**2 + squared_error)
    return ResponseFactor(share, value, amounts, np.zeros(0), evidence), measured


def _confirmed_direction(
    real: NDArray[np.float64],
    moved: NDArray[np.float64],
    both: _Contrast,
    of_change: NDArray[np.float64],
    rng: np.random.Generator,
) -> tuple[float, NDArray[np.float64] | None]:
    """The direction of the change, or one found by iteration, whichever is confirmed better, and how well that is."""
    n_genes = len(of_change)
    size = max(float(np.linalg.norm(of_change)), 1e-9)
    start = of_change / size + rng.standard_normal(n_genes) / (2 * np.sqrt(n_genes))
    unit = both.unit
    of_real, of_shifted = (rng.permutation(len(cells)) % 2 == 0 for cells in (real, moved))
    halves = [_Contrast.of(real[a], moved[b], unit) for a, b in ((of_real, of_shifted), (~of_real, ~of_shifted))]
    found = [half.direction(start) for half in halves]
    confirmed = -np.inf
    if found[0] is not None and found[1] is not None:
        confirmed = (halves[1].excess(found[0]) + halves[0].excess(found[1])) / np.sqrt(2)
    of_mean = both.excess(of_change / size) if of_change.any() else -np.inf
    evidence = float(max(confirmed, of_mean))
    if evidence < LEAST_EVIDENCE:
        return evidence, None
    return evidence, of_change / size if of_mean > confirmed else both.direction(start)


def _along(x: NDArray[np.float64], y: NDArray[np.float64], error: NDArray[np.float64]) -> float:
    """Slope of x on y through 0; 0 where it is not beyond its standard error."""
    precision = float(np.square(y / error).sum())
    slope = float((x * y / np.square(error)).sum()) / max(precision, 1e-12)
    return slope if slope**2 * precision > LEAST_EVIDENCE**2 else 0.0


def _beyond(x: NDArray[np.float64], error: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of values that is kept: none within two standard errors, most far beyond."""
    squared = np.square(x / error)
    return np.where(squared > 4, 1 - 1 / np.maximum(squared, 1), 0.0)


def _excess(of_real: NDArray, of_shifted: NDArray, both: _Contrast, u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Excess covariance of functions of every gene with the score of the other genes (G,)."""
    found = []
    for values, cells in ((of_real, both.real), (of_shifted, both.moved)):
        centred = values - values.mean(axis=0)
        found.append(centred.T @ (cells @ u) / len(cells) - u * (centred * cells).mean(axis=0))
    return found[0] - found[1]


def _standard_error(scores: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Standard error of a difference of covariances of a gene of unit variance with scores, which have the mean 0."""
    return float(np.sqrt(scores @ scores / len(scores) ** 2 + reference @ reference / len(reference) ** 2))


def _amounts(
    scores: NDArray[np.float64],
    reference: NDArray[np.float64],
    u: NDArray[np.float64],
    unit: NDArray[np.float64],
    distribution: HurdleDistribution,
    share: NDArray[np.float64],
    value: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Quantiles of the amounts: the most likely distribution behind the scores (Kiefer and Wolfowitz 1956)."""
    p, m = distribution.expressed.astype(np.float64), distribution.mean.astype(np.float64)
    slope = float(u @ ((share * m + p * value) / unit))
    atoms = np.linspace(scores.min(), scores.max(), _N_ATOMS) / max(slope, 1e-9)
    p_there = np.clip(p + share * atoms[:, None], 0, 1)
    m_there = np.maximum(m + value * atoms[:, None], 0)
    mean = ((p_there * m_there - p * m) / unit) @ u
    weights = np.square(u / unit)
    independent = (p_there * (m_there**2 + distribution.variance) - np.square(p_there * m_there)) @ weights
    # At an amount of 0 scores vary as those of the moved cells do.
    unchanged = float((p * (m**2 + distribution.variance) - np.square(p * m)) @ weights)
    variance = np.maximum(reference.var() + independent - unchanged, 0.3 * reference.var()) + 1e-9
    likelihood = np.exp(-0.5 * np.square(scores[:, None] - mean) / variance) / np.sqrt(variance) + 1e-300
    probability = np.full(_N_ATOMS, 1 / _N_ATOMS)
    for _ in range(_N_UPDATES):
        posterior = likelihood * probability
        posterior /= posterior.sum(axis=1, keepdims=True)
        probability = posterior.mean(axis=0)
    steps = (np.arange(N_AMOUNTS) + 0.5) / N_AMOUNTS
    places = np.searchsorted(np.cumsum(probability) / probability.sum(), steps)
    amounts = atoms[np.minimum(places, _N_ATOMS - 1)]
    amounts = amounts - amounts.mean()
    # Covariances say that the variance is 1, the likelihood of the scores what it is: two estimates, and their mean.
    return amounts / max(float(np.sqrt(amounts.std())), 1e-9)

"""Intervals that hold as often as they say, from predictions of conditions that were left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtr, ndtr

from perturbflow.flow._arrays import Arrays
from perturbflow.flow._cross_validation import HeldOutPrediction, cross_validate
from perturbflow.flow._data import CellData
from perturbflow.flow._group_sums import GroupSums
from perturbflow.flow._uncertainty import KINDS

_SCALES = np.geomspace(0.05, 20.0, 25)
_WIDTHS = np.geomspace(0.1, 10.0, 41)
_DEGREES = (1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)  # of freedom
_N_STRATA = 5
_PER_STRATUM = 200
_MOST_RESIDUALS = 20_000  # of a stratum; more make no difference
_MOST_DIRECTIONS = 30
_LOWEST_SD = 1e-4
# How far off the stated standard deviations are believed to be before errors are seen: of log widths, of mean errors in
# their units, and of the mean squares of errors. Where sampling noise hides the errors, this is what remains.
_BELIEF_IN_WIDTHS = 0.3
_BELIEF_IN_OFFSETS = 0.3
_BELIEF_IN_SQUARES = 0.5
_TWO_THIRDS = 0.6827  # of a normal distribution within its standard deviation


@dataclass(frozen=True, eq=False)
class Calibration(Arrays):
    r"""Size of errors of the mean expression in units of the standard deviation that the prior states.

    For every kind of condition (:func:`condition_kind`) and every stratum of stated standard deviations, the errors
    :math:`\mu - \hat\mu` in units of the stated :math:`\hat\sigma` follow a t-distribution around b, written as a
    mixture of normals, :math:`\sum_k w_k N(b, s_k^2)`. Width and degrees of freedom are those of the largest likelihood
    of conditions that were predicted without their cells, whose observed means differ from the true ones by sampling
    noise of known variance v: :math:`(\bar y - \hat\mu) / \hat\sigma \sim \sum_k w_k N(b, s_k^2 + v / \hat\sigma^2)`.
    Intervals are thereby for the mean of a condition, not for that of some of its cells.

    Use :meth:`fit`; the fields are plain arrays over K kinds, S strata and M scales.

    Parameters
    ----------
    scales
        The grid of scales (M,).
    edges
        Stated standard deviations that divide the strata of every kind (K, S - 1).
    offsets
        Mean errors :math:`b` (K, S).
    weights
        Weights of the scales (K, S, M).
    factors
        Root mean squares of the errors (K, S): those that were found, without the sampling noise, but at least what two
        thirds of the errors stay below.
    n_conditions
        Number of left-out conditions that a kind rests on (K,). A kind without any has the weights of the next one
        that more has to be inferred for, or else of the previous one; without any at all the prior is believed.
    codependence
        Variance of a projection of the errors onto a direction of expression, relative to what it would be if the
        errors of different genes were independent (K,).

    Notes
    -----
    That left-out data set the width is the idea of conformal prediction (Vovk et al. 2005); here sampling noise is
    taken out, as adaptive shrinkage does it for effects (Stephens, Biostatistics 2017). A free mixture in place of the
    t-distribution takes the skewed noise of rare genes for many errors near 0 and a few large ones.

    Examples
    --------
    >>> import perturbflow as pf
    >>> believed = pf.flow.Calibration.uncalibrated()
    >>> low, high = believed.interval(np.array([5.0]), np.array([1.0]), kind="seen", level=0.95)
    >>> round(float(low[0]), 2), round(float(high[0]), 2)
    (3.04, 6.96)

    Four perturbations of 50 cells: a quarter of the cells of each is left out in turn, and each as a whole once:

    >>> x = np.log1p(np.random.default_rng(0).poisson(1.0, (250, 20)))
    >>> doses = np.repeat(np.eye(5)[:, 1:], 50, axis=0)
    >>> calibration = pf.flow.Calibration.fit(pf.flow.CellData(x, doses, np.zeros((250, 0), dtype=int)))
    >>> calibration.n_conditions  # seen, new dose, combination, new context, unseen
    array([16,  0,  0,  0,  4])
    """

    scales: NDArray[np.float64]
    edges: NDArray[np.float64]
    offsets: NDArray[np.float64]
    weights: NDArray[np.float64]
    factors: NDArray[np.float64]
    n_conditions: NDArray[np.int64]
    codependence: NDArray[np.float64]

    @classmethod
    def fit(
        cls,
        cells: CellData | Sequence[GroupSums],
        *,
        features: NDArray[np.floating] | None = None,
        n_folds: int = 4,
        seed: int = 0,
    ) -> Self:
        """Cross-validate the prior on training cells and estimate the errors.

        Parameters
        ----------
        cells
            Training cells, or sums over random parts of them; every context needs control cells.
        features
            Features of the components (P, F), as the prior gets them.
        n_folds
            Into how many parts conditions are divided to be left out; the prior is fitted at most ``5 n_folds`` times.
        seed
            Of the division.

        Returns
        -------
        The calibration.

        Raises
        ------
        ValueError
            If a context has no control cells, or ``n_folds`` is below 2.
        """
        if n_folds < 2:
            msg = f"Expected `n_folds` to be at least 2, found {n_folds}."
            raise ValueError(msg)
        rng = np.random.default_rng(seed)
        by_kind: dict[str, list[HeldOutPrediction]] = {kind: [] for kind in KINDS}
        for prediction in cross_validate(cells, features=features, n_folds=n_folds, rng=rng):
            by_kind[prediction.kind].append(prediction)
        return cls(**_estimate(by_kind, rng))

    @classmethod
    def uncalibrated(cls) -> Self:
        """Believe the prior: errors are normal with the stated standard deviations.

        Returns
        -------
        The calibration that changes nothing.
        """
        return cls(**_estimate({kind: [] for kind in KINDS}, np.random.default_rng(0)))

    def factor(self, kind: str, sd: NDArray[np.floating]) -> NDArray[np.float64]:
        """Root mean square of the errors in units of the stated standard deviation.

        Parameters
        ----------
        kind, sd
            Kind of the condition, and stated standard deviations (G,).

        Returns
        -------
        Factors (G,).
        """
        k = KINDS.index(kind)
        return self.factors[k][self._strata(k, sd)]

    def interval(
        self, mean: NDArray[np.floating], sd: NDArray[np.floating], *, kind: str, level: float = 0.9
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Bounds between which the mean expression of a gene in a condition is with a probability.

        Parameters
        ----------
        mean, sd
            Predicted mean expression, and the standard deviation that the prior states for it (G,).
        kind, level
            Kind of the condition, and the probability, between 0 and 1.

        Returns
        -------
        Lower bounds, which are not below 0, and upper bounds (G,).

        Raises
        ------
        ValueError
            If the level is not between 0 and 1.
        """
        if not 0 < level < 1:
            msg = f"Expected `level` to be between 0 and 1, found {level!r}."
            raise ValueError(msg)
        k = KINDS.index(kind)
        strata = self._strata(k, sd)
        centre = mean + sd * self.offsets[k][strata]
        half = sd * _quantiles(self.weights[k], self.scales, level)[strata]
        return np.maximum(centre - half, 0.0), np.maximum(centre + half, 0.0)

    def _strata(self, k: int, sd: NDArray[np.floating]) -> NDArray[np.intp]:
        return np.searchsorted(self.edges[k], sd, side="right")


def _estimate(by_kind: Mapping[str, Sequence[HeldOutPrediction]], rng: np.random.Generator) -> dict[str, NDArray]:
    """Fields of a :class:`Calibration`."""
    n_conditions = np.array([len(by_kind[kind]) for kind in KINDS])
    edges = np.full((len(KINDS), _N_STRATA - 1), np.inf)
    offsets = np.zeros((len(KINDS), _N_STRATA))
    weights = np.zeros((len(KINDS), _N_STRATA, len(_SCALES)))
    factors, codependence = np.ones((len(KINDS), _N_STRATA)), np.ones(len(KINDS))
    weights[:, :, len(_SCALES) // 2] = 1  # the scale 1
    for k, kind in enumerate(KINDS):
        if n_conditions[k]:
            edges[k], offsets[k], weights[k], factors[k] = _error_sizes(by_kind[kind], rng)
            everything = [prediction for predictions in by_kind.values() for prediction in predictions]
            codependence[k] = _codependence(by_kind[kind], everything, edges[k], factors[k], rng)
    known = np.flatnonzero(n_conditions)
    for unknown in np.flatnonzero(n_conditions == 0) if len(known) else ():
        like = known[known > unknown][0] if (known > unknown).any() else known[-1]
        for array in (edges, offsets, weights, factors, codependence):
            array[unknown] = array[like]
    return {
        "scales": _SCALES,
        "edges": edges,
        "offsets": offsets,
        "weights": weights,
        "factors": factors,
        "n_conditions": n_conditions,
        "codependence": codependence,
    }


def _error_sizes(
    predictions: Sequence[HeldOutPrediction], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Edges of the strata (S - 1,), mean errors (S,), weights of the scales (S, M) and root mean squares (S,)."""
    sd = np.maximum(np.concatenate([prediction.sd for prediction in predictions]), _LOWEST_SD)
    residual = np.concatenate([prediction.observed - prediction.predicted for prediction in predictions])
    noise = np.concatenate([prediction.noise for prediction in predictions])
    gene = np.tile(np.arange(len(predictions[0].sd)), len(predictions))
    n_strata = int(np.clip(len(sd) // _PER_STRATUM, 1, _N_STRATA))
    edges = np.full(_N_STRATA - 1, np.inf)
    stratum = np.searchsorted(np.quantile(sd, np.arange(1, n_strata) / n_strata), sd, side="right")
    # With all cells in the fit deviations are smaller than with some left out: the nearest stratum counts, not quantiles.
    typical = np.log([np.median(sd[stratum == s]) for s in np.unique(stratum)])
    edges[: len(typical) - 1] = np.exp((typical[1:] + typical[:-1]) / 2)
    stratum = np.unique(stratum, return_inverse=True)[1]
    factors, offsets, weights = np.ones(_N_STRATA), np.zeros(_N_STRATA), np.zeros((_N_STRATA, len(_SCALES)))
    weights[:, len(_SCALES) // 2] = 1
    families = _t_mixtures()
    log_belief = -0.5 * (np.log(np.repeat(_WIDTHS, len(_DEGREES))) / _BELIEF_IN_WIDTHS) ** 2
    for s in np.unique(stratum):
        members = np.flatnonzero(stratum == s)
        if len(members) > _MOST_RESIDUALS:
            members = rng.choice(members, _MOST_RESIDUALS, replace=False)
        standardised, relative_noise = residual[members] / sd[members], noise[members] / sd[members] ** 2
        mean = standardised.mean()
        # Errors of one gene go together: from a single gene the mean of others cannot be known.
        is_one_gene = bool((gene[members] == gene[members[0]]).all())
        squares = np.inf if is_one_gene else _sum_of_squares(standardised - mean, gene[members])
        spread = squares / len(members) ** 2
        offsets[s] = _believed(0.0, _BELIEF_IN_OFFSETS, mean, spread)
        standardised -= offsets[s]
        variances = _SCALES[:, None] ** 2 + relative_noise
        log_likelihoods = -0.5 * (np.log(variances) + standardised**2 / variances)
        likelihoods = np.exp(log_likelihoods - log_likelihoods.max(axis=0))
        score = (standardised**2 / (1 + relative_noise) - 1) / (1 + relative_noise)
        repeats = _sum_of_squares(score, gene[members]) / np.sum(score**2)
        fit = np.log(families @ likelihoods + 1e-300).sum(axis=1) / max(repeats, 1.0)
        weights[s] = families[np.argmax(fit + log_belief)]
        total = np.sum(sd[members] ** 2)
        excess = np.sum(residual[members] ** 2 - noise[members]) / total
        sampling = max(repeats, 1.0) * 2 * np.sum((noise[members] + sd[members] ** 2) ** 2) / total**2
        usual = _quantiles(weights[[s]], _SCALES, _TWO_THIRDS)[0]
        factors[s] = np.sqrt(max(_believed(1.0, _BELIEF_IN_SQUARES, excess, sampling), usual**2))
    return edges, offsets, weights, factors


def _believed(expected: float, sd: float, found: float, variance: float) -> float:
    """Return what to believe of a number that was expected with a standard deviation and found with a sampling variance."""
    return float((expected / sd**2 + found / variance) / (1 / sd**2 + 1 / variance))


def _sum_of_squares(values: NDArray[np.float64], gene: NDArray[np.intp]) -> float:
    """Sum over genes of the squared sum of the values of a gene, whose errors in different conditions go together."""
    return float(np.sum(np.bincount(gene, weights=values) ** 2))


def _t_mixtures() -> NDArray[np.float64]:
    """Scale mixtures of normals that are t-distributions, of all widths and degrees of freedom (T, M).

    A t-distribution of width w and nu degrees of freedom is the mixture of normals over scales ``w sqrt(nu / X)`` with
    X from a chi-squared distribution.
    """
    steps = np.sqrt(_SCALES[1] / _SCALES[0])
    edges = np.concatenate([[0.0], _SCALES[:-1] * steps, [np.inf]])
    return np.stack(
        [
            -np.diff(chdtr(degrees, degrees * (width / np.maximum(edges, 1e-12)) ** 2))
            for width in _WIDTHS
            for degrees in _DEGREES
        ]
    )


def _codependence(
    predictions: Sequence[HeldOutPrediction],
    everything: Sequence[HeldOutPrediction],
    edges: NDArray[np.float64],
    factors: NDArray[np.float64],
    rng: np.random.Generator,
) -> float:
    """Return how much larger the variance of projected errors is than with independent genes; at least 1.

    Directions are those from a prediction to the observed cells of other conditions in its context.
    """
    found, expected = 0.0, 0.0
    condition = np.array([other.condition for other in everything])
    context = np.array([other.context for other in everything])
    for prediction in predictions:
        others = np.flatnonzero((context == prediction.context) & (condition != prediction.condition))
        for i in rng.permutation(len(others))[:_MOST_DIRECTIONS]:
            direction = everything[others[i]].observed - prediction.predicted
            squared = direction**2 / (direction @ direction)
            error = (prediction.observed - prediction.predicted) @ direction / np.linalg.norm(direction)
            sd = np.maximum(prediction.sd, _LOWEST_SD)
            found += error**2 - squared @ prediction.noise
            expected += squared @ (factors[np.searchsorted(edges, sd, side="right")] * sd) ** 2
    return max(found / expected, 1.0) if expected > 0 else 1.0


def _quantiles(weights: NDArray[np.float64], scales: NDArray[np.float64], level: float) -> NDArray[np.float64]:
    """Absolute value that a mixture of normals of mean 0, with weights (S, M), stays below with a probability (S,)."""
    low, high = np.zeros(len(weights)), np.full(len(weights), 50 * scales.max())
    for _ in range(60):
        middle = (low + high) / 2
        below = (weights * (2 * ndtr(middle[:, None] / scales) - 1)).sum(axis=1) < level
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return high

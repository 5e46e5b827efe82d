"""Effects of perturbations from features of the perturbations: a Gaussian process that all genes share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, product

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import cdist

from perturbflow.flow._shrinkage import mixture_responsibilities

_FEWEST_COMPONENTS = 4
# Length scales of Gaussian kernels, in units of the median distance between components with cells; None is linear.
_LENGTH_SCALES = (None, 0.4, 0.7, 1.2)
_FRACTIONS = (0.2, 0.4, 0.6, 0.8, 0.95)
_NULL_PROBABILITY = 0.8  # that features say nothing, before the effects are seen
_PERMUTATIONS = 199
_LEAST_WEIGHT = 1e-3  # hypotheses that are less likely than this are left out of the average
_NOISE_LEVELS = 8
_LARGEST_NOISE = 100.0  # relative to the spread of the effects; such genes are predicted at 0 anyway
_COMPONENTS_TO_CHOOSE = 200  # on which the hypotheses are judged where there are more
_LARGEST_EFFECT = 2.5
_SPREADS = 12


@dataclass(frozen=True, eq=False)
class FeatureEffects:
    """Effect of each component, as told by those of the other components."""

    means: NDArray[np.float64]  # expected (P, G), beyond that of all; one with cells does not count for itself
    variances: NDArray[np.float64]  # of the true effects around them (P, G)
    fraction: float  # expected share of the variance of effects that features explain, from 0 to 1


@dataclass(frozen=True, eq=False)
class _NoiseLevel:
    """Genes (G',) of similar noise: their scaled effects (T, G') and the scaled noise of every component (T,)."""

    genes: NDArray[np.intp]
    effects: NDArray[np.float64]
    noise: NDArray[np.float64]

    def exchangeable(self) -> _NoiseLevel:
        """Effects as if all components were measured equally well, within 2.5 standard deviations.

        A gene's one huge effect, such as that of its own knock-out, says nothing about the features.
        """
        noise = np.full(len(self.noise), 1 / np.mean(1 / (1 + self.noise)) - 1)
        limit = _LARGEST_EFFECT * np.sqrt(1 + noise[0])
        effects = self.effects * np.sqrt((1 + noise) / (1 + self.noise))[:, None]
        return _NoiseLevel(self.genes, np.clip(effects, -limit, limit), noise)

    def subset(self, rows: NDArray[np.intp]) -> _NoiseLevel:
        return _NoiseLevel(self.genes, self.effects[rows], self.noise[rows])


def regress_effects(
    effects: NDArray[np.float64],
    noise: NDArray[np.float64],
    *,
    features: NDArray[np.floating],
    trained: NDArray[np.bool_],
    scales: Sequence[float],
    strata: NDArray[np.intp] | None = None,
) -> FeatureEffects:
    r"""Predict the effect of every component (P, G) from its features (P, F) and the effects of the others.

    The effects of gene g over the T components with cells, beyond their mean over components, follow

    .. math:: y_g \sim N\big(0,\; a_g (\rho K + (1 - \rho) I) + \text{diag}(v_g)\big)

    with known noise v, the spread :math:`a_g` (:func:`effect_spread`), a kernel K of the features, centred and of mean
    1 on the diagonal, and the signal fraction :math:`\rho`, both common to all genes. They are averaged over a grid
    (linear, and Gaussian of several lengths) by their marginal likelihood, with four fifths of the prior weight on
    :math:`\rho = 0`. The log-likelihood is divided by how many genes say the same, G over the participation ratio of
    their covariance, and calibrated by permutations of the components, under which a Bayes factor has the mean 1.

    Rasmussen and Williams 2006, equations 2.25, 2.26 and 5.12. Genes are divided into 8 levels of noise, so that it
    costs O(T^3) a hypothesis and level and O(T^2 G) for those that are likely, not O(T^3 G).
    """
    y, v = effects[trained], noise[trained]
    spread = effect_spread(y, v, scales=scales, strata=strata)
    means, variances = np.zeros(effects.shape), np.broadcast_to(spread, effects.shape)
    if features.shape[1] == 0 or len(y) < _FEWEST_COMPONENTS:
        return FeatureEffects(means, variances, 0.0)
    scaled = np.maximum(spread, v.mean(axis=0) / _LARGEST_NOISE)
    levels = _noise_levels((y - y.mean(axis=0)) / np.sqrt(scaled), v / scaled)
    hypotheses = _weigh(features, trained, levels)

    # First and second moments of the average over the hypotheses, in units of the spread.
    first, second = np.zeros(effects.shape), np.zeros(effects.shape)
    for length, own in groupby(hypotheses.items(), key=lambda item: item[0][0]):
        kernel = _kernel(length, features, trained)
        for (_, fraction), weight in own:
            for level in levels:
                mean, variance = _predict(kernel, trained, fraction, level)
                first[:, level.genes] += weight * mean
                second[:, level.genes] += weight * (mean**2 + variance[:, None])
    rest = 1 - sum(hypotheses.values())
    means = np.sqrt(scaled) * first
    variances = spread * np.maximum(second + rest - first**2, 0)
    return FeatureEffects(means, variances, sum(rho * weight for (_, rho), weight in hypotheses.items()))


def effect_spread(
    effects: NDArray[np.float64],
    noise: NDArray[np.float64],
    *,
    scales: Sequence[float],
    strata: NDArray[np.intp] | None = None,
) -> NDArray[np.float64]:
    """Variance of the true effects of every gene (G,), from effects and sampling variances (T, G), T > 0.

    The posterior mean under a prior over a grid of standard deviations, 0 among them, learned from all genes.
    """
    grid = np.concatenate([[0.0], np.geomspace(min(scales) / 5, max(scales), _SPREADS)]) ** 2
    log_likelihoods = np.stack([-0.5 * (np.log(s + noise) + effects**2 / (s + noise)).sum(axis=0) for s in grid])
    return grid @ mixture_responsibilities(log_likelihoods, strata)


def nearest_distances(features: NDArray[np.floating], trained: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Distance of every component to the nearest other one with cells (P,), in units of its median over these.

    It is NaN without features (P, F), or where fewer than two components have cells.
    """
    if features.shape[1] == 0 or trained.sum() < 2:
        return np.full(len(features), np.nan)
    distances = cdist(features, features[trained])
    distances[np.flatnonzero(trained), np.arange(trained.sum())] = np.inf
    nearest = distances.min(axis=1)
    typical = np.median(nearest[trained])
    if typical == 0:  # most have a twin: then the others show what is typical
        positive = distances[np.isfinite(distances) & (distances > 0)]
        typical = positive.min() if len(positive) else 1.0
    return nearest / typical


def _noise_levels(effects: NDArray[np.float64], noise: NDArray[np.float64]) -> list[_NoiseLevel]:
    # Averaged as precisions: a component of which no cell expresses the gene says nothing, whatever the others say.
    precision = 1 / (1 + noise)
    order = np.argsort(-precision.mean(axis=0), kind="stable")
    parts = np.array_split(order, min(_NOISE_LEVELS, len(order)))
    return [_NoiseLevel(genes, effects[:, genes], 1 / precision[:, genes].mean(axis=1) - 1) for genes in parts]


def _weigh(
    features: NDArray[np.floating], trained: NDArray[np.bool_], levels: list[_NoiseLevel]
) -> dict[tuple[float | None, float], float]:
    """Probability of every kernel and signal fraction that is not negligible; the rest is that features say nothing."""
    rng = np.random.default_rng(0)
    places = np.flatnonzero(trained)
    if len(places) > _COMPONENTS_TO_CHOOSE:
        rows = np.sort(rng.choice(len(places), _COMPONENTS_TO_CHOOSE, replace=False))
        places, levels = places[rows], [level.subset(rows) for level in levels]
    among = np.ones(len(places), dtype=bool)
    levels = [level.exchangeable() for level in levels]
    orders = [np.arange(len(places)), *(rng.permutation(len(places)) for _ in range(_PERMUTATIONS))]
    temper = _share_of_independent_genes(levels)
    hypotheses = list(product(_LENGTH_SCALES, _FRACTIONS))
    kernels = {length: _kernel(length, features[places], among) for length in _LENGTH_SCALES}
    identity = np.eye(len(places))
    signals = np.stack([fraction * kernels[length] + (1 - fraction) * identity for length, fraction in hypotheses])
    log_factors = temper * sum((_gains(signals, level, orders) for level in levels), start=np.zeros(()))
    likelihoods = np.exp(log_factors - log_factors.max())
    observed = likelihoods[:, 0].sum()
    odds = observed / likelihoods.sum(axis=0).mean() * (1 - _NULL_PROBABILITY) / _NULL_PROBABILITY
    weights = likelihoods[:, 0] / max(observed, np.finfo(float).tiny) * odds / (1 + odds)
    return {
        hypothesis: float(weight)
        for hypothesis, weight in zip(hypotheses, weights, strict=True)
        if weight >= _LEAST_WEIGHT
    }


def _share_of_independent_genes(levels: list[_NoiseLevel]) -> float:
    """Return the share of genes that vary independently of each other, weighted by how well they are measured.

    The participation ratio ``tr(S)^2 / tr(S^2)`` of the scatter S of T components by G independent genes is on average
    about ``T G / (T + G)``, which is solved for G.
    """
    reliability = [1 / (1 + level.noise.mean()) for level in levels]
    scatter = sum(r**2 * (level.effects @ level.effects.T) for r, level in zip(reliability, levels, strict=True))
    sizes = np.array([len(level.genes) for level in levels])
    powers = [(sizes * np.power(reliability, power)).sum() for power in (2, 4)]
    ratio = np.trace(scatter) ** 2 / np.square(scatter).sum()
    independent = 1 / max(1 / ratio - 1 / len(scatter), 1e-12)
    return float(np.clip(independent * powers[1] / powers[0] ** 2, 0, 1))


def _gains(signals: NDArray[np.float64], level: _NoiseLevel, orders: list[NDArray[np.intp]]) -> NDArray[np.float64]:
    """Log-likelihood of effects with covariances (M, T, T) over that without features, in every order (M, orders)."""
    covariances = signals + np.diag(level.noise)
    null = 1 + level.noise[0]
    log_determinants = np.linalg.slogdet(covariances)[1] - len(level.noise) * np.log(null)
    scatter = level.effects @ level.effects.T
    reordered = np.stack([scatter[np.ix_(order, order)].ravel() for order in orders], axis=1)
    squares = np.linalg.inv(covariances).reshape(len(signals), -1) @ reordered
    return -0.5 * (len(level.genes) * log_determinants[:, None] + squares - np.trace(scatter) / null)


def _covariance(kernel: NDArray[np.float64], fraction: float, noise: NDArray[np.float64]) -> NDArray[np.float64]:
    return fraction * kernel + np.diag(1 - fraction + noise)


def _predict(
    kernel: NDArray[np.float64], trained: NDArray[np.bool_], fraction: float, level: _NoiseLevel
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means (P, G') and variances (P,) of effects, in units of their spread, given the effects of other components."""
    factor = cho_factor(_covariance(kernel[np.ix_(trained, trained)], fraction, level.noise), lower=True)
    weights = cho_solve(factor, level.effects)
    precision = np.diag(cho_solve(factor, np.eye(len(level.noise))))
    means, variances = np.empty((len(kernel), len(level.genes))), np.empty(len(kernel))
    means[trained] = level.effects - weights / precision[:, None]
    variances[trained] = 1 / precision - level.noise
    cross = fraction * kernel[np.ix_(~trained, trained)]
    means[~trained] = cross @ weights
    explained = (cross.T * cho_solve(factor, cross.T)).sum(axis=0)
    variances[~trained] = fraction * np.diag(kernel)[~trained] + 1 - fraction - explained
    return means, np.maximum(variances, 0)


def _kernel(length: float | None, features: NDArray[np.floating], trained: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Covariance between components (P, P): mean 0 over those with cells, mean 1 on their part of the diagonal."""
    features = features.astype(np.float64)
    if length is None:
        kernel = features @ features.T
    else:
        distances = cdist(features, features, "sqeuclidean")
        known = distances[np.ix_(trained, trained)]
        unit = np.median(known[known > 0]) if (known > 0).any() else 1.0
        kernel = np.exp(-distances / (2 * length**2 * unit))
    towards = kernel[:, trained].mean(axis=1)
    kernel = kernel - towards[:, None] - towards[None] + towards[trained].mean()
    typical = np.diag(kernel)[trained].mean()
    return kernel / typical if typical > 1e-12 else np.zeros_like(kernel)

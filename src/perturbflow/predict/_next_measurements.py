"""Choice of the conditions to measure next, by how much their cells would reduce the uncertainty of all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from perturbflow.flow import AdditiveHurdlePrior, Context, condition_kind
from perturbflow.flow._hurdle_distribution import share_error
from perturbflow.flow._prior_fit import squared_distances
from perturbflow.flow._uncertainty import SIMILAR_CONTEXTS, share_of_context_variance
from perturbflow.predict._fitted_flow import FittedFlow

_LEAST = 1e-12


@dataclass(frozen=True, eq=False)
class Measurable:
    """One perturbation in C contexts: what is not known of its effects there, and what cells would say of them."""

    covariance: NDArray[np.float64]  # of errors of effects on mean expression, between contexts, by gene (C, C, G)
    cell_variance: NDArray[np.float64]  # of expression between cells, which a mean of n has an n-th of (C, G)
    kinds: tuple[str, ...]  # what predictions rest on, by context

    @property
    def variance(self) -> float:
        """Return what is not known: summed over contexts and genes."""
        return float(np.einsum("ccg->", self.covariance))

    def reductions(self, n_cells: int) -> NDArray[np.float64]:
        """By how much the summed variance is expected to fall if n cells are measured in a context (C,).

        Errors are normal, so that it does not depend on what will be seen: with the covariance S and the noise s,
        ``sum over contexts k of S_ck^2 / (S_cc + s)``.
        """
        own = np.einsum("ccg->cg", self.covariance)
        told = np.square(self.covariance).sum(axis=1)
        return np.asarray((told / (own + self.cell_variance / n_cells + _LEAST)).sum(axis=1))

    def measured(self, context: int, n_cells: int) -> Measurable:
        """Return what would remain to be known after n cells in a context."""
        column = self.covariance[:, context]
        noise = column[context] + self.cell_variance[context] / n_cells + _LEAST
        return Measurable(self.covariance - column[:, None] * column[None] / noise, self.cell_variance, self.kinds)


def measurable(fitted: FittedFlow, perturbation: NDArray[np.floating], contexts: Sequence[Context]) -> Measurable:
    r"""Uncertainty of a fit about a perturbation in some contexts.

    Of every component an error is

    - what its cells leave open of its effect, which goes with that of the nearest context where it was measured;
    - what effects differ by between contexts, as far as the contexts where it was measured do not tell.

    Both are correlated between contexts by :math:`\exp(-2 D)`, with the squared distance D between mean profiles of
    controls in units of its median, so that every variance is that of
    :meth:`perturbflow.flow.AdditiveHurdlePrior.distribution_sd` without what is not known of the controls. Errors of components are
    independent, as are interactions in combinations.
    """
    prior, calibration = fitted.flow.prior, fitted.calibration
    profiles = np.stack([context.expressed * context.mean for context in contexts])
    alike = np.exp(-squared_distances(profiles, profiles) / prior.distance_unit[0] / SIMILAR_CONTEXTS)
    between = np.stack([_between(prior, context) for context in contexts], axis=1)  # (2, C, G)
    between = np.sqrt(between[:, :, None] * between[:, None])
    covariance = np.zeros((2, len(contexts), len(contexts), prior.n_genes))
    doses = prior.within(perturbation)
    design = prior.levels.design(doses)
    for component in doses.indices:
        own = prior.levels.of_component(int(component))
        is_own = (design.indices >= own.start) & (design.indices < own.stop)
        weights = design.data[is_own]
        known = np.tensordot(weights, prior.effect_variances[:, design.indices[is_own]], axes=(0, 1))
        share = np.sqrt([share_of_context_variance(prior, int(component), context) for context in contexts])
        covariance += known[:, None, None] * _of_measured(fitted, int(component), contexts)[..., None]
        covariance += weights.sum() ** 2 * between * (np.outer(share, share) * alike)[..., None]
    n_more = len(doses.indices) - 1
    covariance += max(n_more, 0) * prior.interaction_variances[:, None, None] * alike[..., None]

    kinds = tuple(condition_kind(prior, perturbation, context) for context in contexts)
    scales, cell_variances = [], []
    for place, (context, kind) in enumerate(zip(contexts, kinds, strict=True)):
        distribution = prior.distribution(perturbation, context)
        share, mean = distribution.expressed.astype(np.float64), distribution.mean.astype(np.float64)
        variances = covariance[:, place, place]
        if n_more and kind == "seen":
            variances = with_own_cells(fitted, perturbation, context, share, variances)
        sds = np.sqrt(variances)
        # On mean expression, by the errors of shares and of means as for any prediction.
        scale = np.stack([mean * share_error(share, sds[0]), share * sds[1]])
        factor = calibration.factor(kind, np.hypot(*scale))
        scales.append(factor * scale / np.sqrt(np.maximum(covariance[:, place, place], _LEAST)))
        cell_variances.append(share * (prior.variance + (1 - share) * mean**2))
    scaled = np.stack(scales, axis=1)
    return Measurable(np.einsum("hcdg,hcg,hdg->cdg", covariance, scaled, scaled), np.stack(cell_variances), kinds)


def _between(prior: AdditiveHurdlePrior, context: Context) -> NDArray[np.float64]:
    """Variance of effects between contexts that nothing measured in a context tells (2, G)."""
    return np.maximum(prior.context_variances - prior.told_in(context), 0).astype(np.float64)


def _of_measured(fitted: FittedFlow, component: int, contexts: Sequence[Context]) -> NDArray[np.float64]:
    """Correlation between contexts of what the cells of a component leave open (C, C): whole where it has none."""
    prior = fitted.flow.prior
    seen = np.unique(prior.group_contexts[prior.groups.with_component(component)])
    if not len(seen):
        return np.ones((len(contexts), len(contexts)))
    nearest = seen[[int(context.distances[seen].argmin()) for context in contexts]]
    profiles = prior.control_profile[nearest].astype(np.float64)
    return np.exp(-squared_distances(profiles, profiles) / prior.distance_unit[0] / SIMILAR_CONTEXTS)


def with_own_cells(
    fitted: FittedFlow,
    perturbation: NDArray[np.floating],
    context: Context,
    share: NDArray[np.float64],
    variances: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return what the cells of a combination itself leave open (2, G)."""
    prior = fitted.flow.prior
    (group,) = prior.groups.find(prior.within(perturbation), np.array([context.index]))
    n_cells = float(prior.group_cells[group])
    own = np.stack([np.full(prior.n_genes, 1 / n_cells), prior.variance / np.maximum(n_cells * share, 0.5)])
    return variances * own / (variances + own)


class Choice(NamedTuple):
    """A condition to measure: numbers of candidate and context, what it rests on, and the expected reduction of the variance."""

    candidate: int
    context: int
    kind: str
    reduction: float


def greedy_choice(
    candidate: Callable[[int], Measurable], n_candidates: int, *, n: int, n_cells: int
) -> tuple[list[Choice], float]:
    """Conditions that together reduce the summed variance the most, one after the other.

    Covariances between contexts are as large as memory allows for one candidate, and not for all: each is looked at and
    forgotten, and made again when it is chosen. A candidate is a perturbation in all contexts, made from its number;
    errors of different ones are independent. Returns the conditions, each once, with the reduction that is expected
    given those before, and what is not known before, summed over all candidates.
    """
    reductions, variance = [], 0.0
    for number in range(n_candidates):
        one = candidate(number)
        reductions.append(one.reductions(n_cells))
        variance += one.variance
    choices: list[Choice] = []
    chosen: dict[int, Measurable] = {}
    for _ in range(min(n, sum(map(len, reductions)))):
        best = max(range(n_candidates), key=lambda number: float(reductions[number].max()))
        context = int(reductions[best].argmax())
        known = chosen[best] if best in chosen else candidate(best)
        choices.append(Choice(best, context, known.kinds[context], float(reductions[best][context])))
        chosen[best] = known.measured(context, n_cells)
        reductions[best] = chosen[best].reductions(n_cells)
        reductions[best][[one.context for one in choices if one.candidate == best]] = -np.inf
    return choices, variance

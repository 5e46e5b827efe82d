"""Finding the latents of the responses of a screen, condition by condition, and the states of control cells that they follow."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import eigh

from perturbflow.flow._data import Grouping
from perturbflow.flow._hurdle_distribution import Context, HurdleDistribution
from perturbflow.flow._joint_move import context_of, distribution_of, move_jointly
from perturbflow.flow._prior import AdditiveHurdlePrior
from perturbflow.flow._response_factor import Covariances, ResponseFactor, fit_factor

N_STATES = 6
_LEAST_STATE_CELLS = 40
_LEAST_STATE_VARIANCE = 1e-3
_LEAST_COUPLED = 0.05  # of the variance of the amounts, below which a response does not depend on the state
_LEAST_Z_SQUARED = 12.0
_N_REWEIGHTINGS = 20
_OUTLIER = 4.0  # standard errors beyond which a gene does not follow the states
LEAST_CELLS = 24
_MOST_CELLS = 400
_MOST_CONTROLS = 600
_MOST_CONDITIONS = 2000
_MOST_FACTORS = 3
_MOST_GENES = 500
_MOST_STATE_CELLS = 2000


@dataclass(frozen=True, eq=False)
class ControlStates:
    """Principal components of control cells within their contexts."""

    loadings: NDArray[np.float32]  # weights of the genes in a state of unit variance (K, G)
    covariances: NDArray[np.float32]  # of every gene with the state (K, G)

    @classmethod
    def none(cls, n_genes: int) -> Self:
        """No states, of so many genes."""
        return cls(*np.zeros((2, 0, n_genes), dtype=np.float32))

    @classmethod
    def fit(cls, contexts: list[NDArray[np.float32]], n_genes: int) -> Self:
        """Find states that are more than noise in control cells (n, G) of every context; none in too few cells."""
        if sum(map(len, contexts)) < _LEAST_STATE_CELLS:
            return cls.none(n_genes)
        centred = np.concatenate([cells - cells.mean(axis=0) for cells in contexts]).astype(np.float64)
        unit = np.sqrt(centred.var(axis=0) + _LEAST_STATE_VARIANCE)
        scaled = centred / unit
        by_cells = len(scaled) < n_genes
        products = scaled @ scaled.T if by_cells else scaled.T @ scaled
        # The few largest of the singular values, which takes a fifth of the time that all take.
        most = (max(len(products) - N_STATES, 0), len(products) - 1)
        squares, vectors = (each[..., ::-1] for each in eigh(products, subset_by_index=most))
        # Directions of noise have a variance of at most this (Marchenko and Pastur 1967).
        edge = (1 + np.sqrt(n_genes / len(centred))) ** 2
        is_state = squares / len(centred) > edge
        variances, axes = squares[is_state] / len(centred), vectors.T[is_state]
        if by_cells:
            axes = axes @ scaled / np.sqrt(squares[is_state])[:, None]
        deviations = np.sqrt(variances)[:, None]
        return cls((axes / deviations / unit).astype(np.float32), (axes * deviations * unit).astype(np.float32))

    def of(self, cells: NDArray[np.float32]) -> NDArray[np.float64]:
        """States of cells of one context (n, K), centred."""
        states = (cells @ self.loadings.T).astype(np.float64)
        return states - states.mean(axis=0)

    def part(self, genes: NDArray[np.intp]) -> ControlStates:
        """The states as some genes have them."""
        return replace(self, loadings=self.loadings[:, genes], covariances=self.covariances[:, genes])


def coupled_to_states(factor: ResponseFactor, covariances: Covariances, states: ControlStates) -> ResponseFactor:
    """Let amounts follow the states of control cells, as far as they do among the cells of a condition.

    Genes that only have a state covary with the amounts as they do with it; those of the response do not, and are
    outliers of a robust regression. What the states explain needs no loadings: control cells bring it.
    """
    n_states = len(states.covariances)
    nothing = replace(factor, coupling=np.zeros(n_states))
    if not n_states:
        return nothing
    design = states.covariances.T / covariances.error[:, None]
    target = covariances.measured / covariances.error
    weights: NDArray[np.floating] = np.ones(len(target))
    coupling: NDArray[np.floating] = np.zeros(n_states)
    for _ in range(_N_REWEIGHTINGS):
        precision = design.T @ (weights[:, None] * design) + 1e-9 * np.eye(n_states)
        coupling = np.linalg.solve(precision, design.T @ (weights * target))
        residual = target - design @ coupling
        weights = np.square(np.maximum(1 - np.square(residual / _OUTLIER), 0))
    told = coupling**2 * np.diagonal(precision) > _LEAST_Z_SQUARED
    coupling = np.where(told, coupling, 0.0)
    if float(coupling @ coupling) < _LEAST_COUPLED:
        return nothing
    size = float(np.linalg.norm(coupling))
    explained = np.abs(target - design @ coupling) < np.abs(target) / 2
    return replace(
        factor,
        share=np.where(explained, 0.0, factor.share),
        value=np.where(explained, 0.0, factor.value),
        coupling=(coupling / max(size, 1.0)).astype(np.float64),
    )


class Cells(Protocol):
    """Cells in memory or in a file: rows of expression, and what was done to them."""

    @property
    def x(self) -> Any:
        """Expression, of which ``x[rows]`` are cells in memory."""

    def grouping(self) -> Grouping:
        """Groups of the cells."""


def find_factors(
    prior: AdditiveHurdlePrior, cells: Cells, states: ControlStates, *, seed: int
) -> tuple[dict[int, list[ResponseFactor]], NDArray[np.bool_]]:
    """Latents of every training condition that has any, by group, and which groups had cells enough to tell (g,)."""
    grouping = cells.grouping()
    known = {tuple(codes): number for number, codes in enumerate(prior.contexts.tolist())}
    numbers = np.array([known.get(tuple(codes), -1) for codes in grouping.covariates.tolist()], dtype=np.intp)
    controls = {int(numbers[i]): grouping.rows(int(i)) for i in np.flatnonzero(grouping.is_control & (numbers >= 0))}
    places = prior.groups.find(prior.within(grouping.doses), numbers)
    n_controls = np.array([len(controls.get(number, ())) for number in numbers.tolist()])
    usable = ~grouping.is_control & (places >= 0) & (grouping.n_cells >= LEAST_CELLS) & (n_controls >= LEAST_CELLS)
    chosen = np.flatnonzero(usable)
    if len(chosen) > _MOST_CONDITIONS:
        chosen = np.sort(chosen[np.argsort(-grouping.n_cells[chosen], kind="stable")[:_MOST_CONDITIONS]])
    found: dict[int, list[ResponseFactor]] = {}
    tested = np.zeros(len(prior.group_contexts), dtype=bool)
    for number in np.unique(numbers[chosen]):
        rng = np.random.default_rng([seed, int(number)])
        own = dense(cells.x, _some(controls[int(number)], _MOST_CONTROLS, rng))
        context = prior.context(prior.contexts[number])
        for group in chosen[numbers[chosen] == number].tolist():
            rng = np.random.default_rng([seed, int(number), int(places[group])])
            real = dense(cells.x, _some(grouping.rows(group), _MOST_CELLS, rng))
            distribution = prior.distribution(grouping.doses[[group]].toarray()[0], context)
            factors = _factors(prior, real, own, distribution, context, states, rng)
            tested[places[group]] = True
            if factors:
                found[int(places[group])] = factors
    return found, tested


def control_cells(cells: Cells, *, seed: int) -> list[NDArray[np.float32]]:
    """Some control cells (n, G) of every context; of fewer contexts where there are very many."""
    rng = np.random.default_rng(seed)
    grouping = cells.grouping()
    groups = np.flatnonzero(grouping.is_control)
    most = max(_MOST_STATE_CELLS // max(len(groups), 1), LEAST_CELLS)
    if len(groups) * most > _MOST_STATE_CELLS:
        groups = np.sort(rng.choice(groups, _MOST_STATE_CELLS // most, replace=False))
    return [dense(cells.x, _some(grouping.rows(int(group)), most, rng)) for group in groups]


def _factors(
    prior: AdditiveHurdlePrior,
    real: NDArray[np.float32],
    controls: NDArray[np.float32],
    distribution: HurdleDistribution,
    context: Context,
    states: ControlStates,
    rng: np.random.Generator,
) -> list[ResponseFactor]:
    """Latents of one condition: each is what the controls, moved with those before it, still lack."""
    genes = _telling_genes(real, distribution, context)
    part, there = distribution_of(distribution, genes), context_of(context, genes)
    cells, own = real[:, genes].astype(np.float64), controls[:, genes]
    of_controls = states.of(controls)
    factors: list[ResponseFactor] = []
    for _ in range(_MOST_FACTORS):
        moved = move_jointly(prior, own, part, there, factors, of_controls, rng=rng).astype(np.float64)
        fitted = fit_factor(cells, moved, part, there, rng=rng)
        if fitted is None:
            break
        factor = coupled_to_states(*fitted, states.part(genes))
        if not (factor.share.any() or factor.value.any()):  # a state of the controls, which vary in it already
            break
        factors.append(factor)
    return [_among_all(factor, genes, len(distribution.expressed)) for factor in factors]


def _telling_genes(real: NDArray[np.float32], distribution: HurdleDistribution, context: Context) -> NDArray[np.intp]:
    """Genes that may follow a latent: those of the largest change, and of the largest excess of variance."""
    n_genes = real.shape[1]
    if n_genes <= _MOST_GENES:
        return np.arange(n_genes)
    expected = distribution.expressed * (distribution.mean**2 + distribution.variance) - np.square(
        distribution.expressed * distribution.mean
    )
    change = np.abs(distribution.expressed * distribution.mean - context.expressed * context.mean)
    scores = change / np.sqrt(expected + 1e-3), (real.var(axis=0) + 1e-3) / (expected + 1e-3)
    return np.unique(np.concatenate([np.argsort(-score, kind="stable")[: _MOST_GENES // 2] for score in scores]))


def _among_all(factor: ResponseFactor, genes: NDArray[np.intp], n_genes: int) -> ResponseFactor:
    share, value = np.zeros((2, n_genes))
    share[genes], value[genes] = factor.share, factor.value
    return replace(factor, share=share, value=value)


def dense(x: Any, rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """Dense cells of some rows."""
    part = x[rows]
    return np.asarray(part.toarray() if sparse.issparse(part) else part, dtype=np.float32)


def _some(rows: NDArray[np.intp], most: int, rng: np.random.Generator) -> NDArray[np.intp]:
    return rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))

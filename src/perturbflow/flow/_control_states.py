"""States that control cells differ in, and responses that depend on them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import eigh

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray

    from perturbflow.flow._response_factor import Covariances, ResponseFactor

N_STATES = 6
_LEAST_CELLS = 40
_LEAST_VARIANCE = 1e-3
_LEAST_SHARE = 0.05  # of the variance of the amounts, below which a response does not depend on the state
_LEAST_Z_SQUARED = 12.0
_N_REWEIGHTINGS = 20
_OUTLIER = 4.0  # standard errors beyond which a gene does not follow the states


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
        if sum(map(len, contexts)) < _LEAST_CELLS:
            return cls.none(n_genes)
        centred = np.concatenate([cells - cells.mean(axis=0) for cells in contexts]).astype(np.float64)
        unit = np.sqrt(centred.var(axis=0) + _LEAST_VARIANCE)
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
    if float(coupling @ coupling) < _LEAST_SHARE:
        return nothing
    size = float(np.linalg.norm(coupling))
    explained = np.abs(target - design @ coupling) < np.abs(target) / 2
    return replace(
        factor,
        share=np.where(explained, 0.0, factor.share),
        value=np.where(explained, 0.0, factor.value),
        coupling=(coupling / max(size, 1.0)).astype(np.float64),
    )

"""Covariances of an effect between contexts, and what noisy measurements in some of them say under each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from perturbflow.flow._vector_cholesky import VectorCholesky

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_MOST_WITH_VECTORS = 24  # contexts; matrices of more are worth a call of LAPACK each
_FACTORS_AT_ONCE = 16  # of a product whose logarithm is taken: fewer logarithms, and no overflow
_FEWEST_FOR_FACTORS = 9  # contexts
_TOLERANCE = 0.05  # of a correlation between contexts
_ROUNDS = 8  # of the principal-factor method for each number of factors

# Of some scales (K,): the weights ``(s^2 C + diag(noise))^-1 y`` and the diagonal of the inverse (K, O, G).
Solution: TypeAlias = Callable[["NDArray[np.intp]"], tuple["NDArray[np.float64]", "NDArray[np.float64]"]]


class ContextCovariance(Protocol):
    """Covariance of an effect of unit variance between contexts (C, C)."""

    @property
    def n_contexts(self) -> int:
        """Number of contexts C."""
        ...

    def evidence(
        self,
        observed: Sequence[int],
        squared_scales: NDArray[np.float64],
        noise: NDArray[np.float64],
        measured: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], Solution]:
        """Log evidence (S, G) of measurements (O, G) with noise (O, G), at S scales of the effects; and how to solve.

        It is without ``-sum(log(noise)) / 2``, which is common to all covariances and scales.
        """
        ...

    def carry(self, observed: Sequence[int], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Product of the covariance with the observed contexts and weights (O, G) of these: for all contexts (C, G)."""
        ...


@dataclass(frozen=True, eq=False)
class FullCovariance:
    """Any covariance. Costs O^3 a scale and gene where O contexts are observed.

    Parameters
    ----------
    matrix
        The covariance (C, C).
    """

    matrix: NDArray[np.float64]

    @property
    def n_contexts(self) -> int:
        """Number of contexts C."""
        return len(self.matrix)

    def evidence(
        self,
        observed: Sequence[int],
        squared_scales: NDArray[np.float64],
        noise: NDArray[np.float64],
        measured: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], Solution]:
        """See :class:`ContextCovariance`."""
        among = self.matrix[np.ix_(observed, observed)]
        solve = _by_vectors if len(observed) <= _MOST_WITH_VECTORS else _by_matrices
        log_evidence, weights, precision = solve(among, squared_scales, noise, measured)
        log_evidence += 0.5 * np.log(noise).sum(axis=0)
        return log_evidence, lambda scales: (weights[scales], precision[scales])

    def carry(self, observed: Sequence[int], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :class:`ContextCovariance`."""
        return self.matrix[:, observed] @ weights


@dataclass(frozen=True, eq=False)
class FactorCovariance:
    """A covariance of a few factors that contexts share, and a rest that each has alone.

    Costs O R^2 a scale and gene where O contexts are observed and there are R factors.

    Parameters
    ----------
    factors
        How far every context has each factor (C, R).
    rest
        Variance that each has alone (C,).
    """

    factors: NDArray[np.float64]
    rest: NDArray[np.float64]

    @property
    def n_contexts(self) -> int:
        """Number of contexts C."""
        return len(self.rest)

    def evidence(
        self,
        observed: Sequence[int],
        squared_scales: NDArray[np.float64],
        noise: NDArray[np.float64],
        measured: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], Solution]:
        r"""See :class:`ContextCovariance`.

        With the factors U and the diagonal E of noise and rest,
        :math:`(U U^T + E)^{-1} = E^{-1} - E^{-1} U (I + U^T E^{-1} U)^{-1} U^T E^{-1}` (Woodbury).
        """
        own, scales = self.factors[observed], squared_scales[:, None, None]
        first, second = self._pairs
        is_square = first == second
        pairs = own[:, first] * own[:, second]  # (O, R (R + 1) / 2)
        inverse = scales * (self.rest[observed, None] / noise)  # (S, O, G), in place from here on
        inverse += 1
        log_determinant = _log_product(inverse)
        inverse *= noise
        np.reciprocal(inverse, out=inverse)
        scaled = inverse * measured
        projected = own.T @ scaled  # (S, R, G)
        inner = scales * (pairs.T @ inverse)
        inner[:, is_square] += 1
        cholesky = VectorCholesky(inner, own.shape[1])
        solved = scales * cholesky.solve(projected)
        scaled *= measured
        squares = scaled.sum(axis=1) - (projected * solved).sum(axis=1)
        log_determinant += cholesky.log_determinant()

        def solution(chosen: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            inverses = inverse[chosen]
            weights = own @ solved[chosen]
            np.subtract(measured, weights, out=weights)
            weights *= inverses
            twice = pairs * np.where(is_square, 1.0, 2.0)
            precision = twice @ (-scales[chosen] * cholesky.inverse(chosen))
            precision *= inverses
            precision += 1
            precision *= inverses
            return weights, precision

        return -0.5 * (log_determinant + squares), solution

    @cached_property
    def _pairs(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        return np.tril_indices(self.factors.shape[1])

    def carry(self, observed: Sequence[int], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :class:`ContextCovariance`."""
        found = self.factors @ (self.factors[observed].T @ weights)
        found[observed] += self.rest[observed, None] * weights
        return found


def in_factors(matrix: NDArray[np.float64]) -> FullCovariance | FactorCovariance:
    """A covariance in as few factors as differ from it by at most 0.05 in any correlation; as it is, where many are needed.

    Which covariance effects have is itself a guess on a coarse grid. That in factors is as valid a covariance, and
    the time of a fit is then linear in contexts. Few contexts need none.

    Parameters
    ----------
    matrix
        Covariance of unit variances (C, C).

    Returns
    -------
    The covariance.

    Notes
    -----
    The principal-factor method: eigenvectors of the matrix without the rests, which follow from them in turn.
    """
    n = len(matrix)
    if n >= _FEWEST_FOR_FACTORS:
        rest = np.zeros(n)
        for n_factors in range(1, n // 2 + 1):
            for _ in range(_ROUNDS):
                values, vectors = np.linalg.eigh(matrix - np.diag(rest))
                factors = vectors[:, -n_factors:] * np.sqrt(np.maximum(values[-n_factors:], 0))
                rest = np.maximum(np.diag(matrix) - np.square(factors).sum(axis=1), 0)
            off = np.abs(matrix - factors @ factors.T)
            np.fill_diagonal(off, 0)
            if off.max() <= _TOLERANCE:
                return FactorCovariance(factors, rest)
    return FullCovariance(matrix)


def _log_product(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of the logarithms of values of at least 1 over the second axis."""
    found = np.zeros((len(values), values.shape[2]))
    for first in range(0, values.shape[1], _FACTORS_AT_ONCE):
        product = values[:, first].copy()
        for place in range(first + 1, min(first + _FACTORS_AT_ONCE, values.shape[1])):
            product *= values[:, place]
        found += np.log(product)
    return found


def _by_vectors(
    among: NDArray[np.float64],
    squared_scales: NDArray[np.float64],
    noise: NDArray[np.float64],
    measured: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Log evidence (S, G), weights and diagonal of the inverse (S, O, G), over whole vectors of genes."""
    first, second = np.tril_indices(len(among))
    entries = squared_scales[:, None, None] * among[first, second][:, None] + np.zeros(noise.shape[1])
    entries[:, first == second] += noise
    cholesky = VectorCholesky(entries, len(among))
    weights = cholesky.solve(np.broadcast_to(measured, (len(squared_scales), *measured.shape)))
    squares = (measured * weights).sum(axis=1)
    diagonal = cholesky.inverse(np.arange(len(squared_scales)))[:, first == second]
    return -0.5 * (cholesky.log_determinant() + squares), weights, diagonal


def _by_matrices(
    among: NDArray[np.float64],
    squared_scales: NDArray[np.float64],
    noise: NDArray[np.float64],
    measured: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The same gene by gene."""
    matrices = squared_scales[:, None, None, None] * among + noise.T[:, :, None] * np.eye(len(among))
    diagonals = np.diagonal(np.linalg.cholesky(matrices), axis1=2, axis2=3)
    inverses = np.linalg.inv(matrices)
    weights = (inverses @ measured.T[:, :, None])[..., 0]
    log_evidence = -np.log(diagonals).sum(axis=2) - 0.5 * (measured.T * weights).sum(axis=2)
    return log_evidence, weights.swapaxes(1, 2), np.diagonal(inverses, axis1=2, axis2=3).swapaxes(1, 2)

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
_FEWEST_FOR_FACTORS = 9  # contexts
_TOLERANCE = 0.05  # of a correlation between contexts
_ROUNDS = 8  # of the principal-factor method for each number of factors

# Of some scales (K,): the weights ``(s^2 C + diag(noise))^-1 y`` and the diagonal of the inverse (K, O, G).
Solution: TypeAlias = Callable[["NDArray[np.intp]"], tuple["NDArray[np.floating]", "NDArray[np.floating]"]]


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
        noise: NDArray[np.floating],
        measured: NDArray[np.floating],
    ) -> tuple[NDArray[np.floating], Solution]:
        """Log evidence (S, G) of measurements (O, G) with noise (O, G), at S scales of the effects; and how to solve.

        It is computed in the precision of the measurements, and without ``-sum(log(noise)) / 2``, which is common to
        all covariances and scales.
        """
        ...


@dataclass(frozen=True, eq=False)
class FullCovariance:
    """Any covariance (C, C). Costs O^3 a scale and gene where O contexts are observed."""

    matrix: NDArray[np.float64]

    @property
    def n_contexts(self) -> int:
        """Number of contexts C."""
        return len(self.matrix)

    def evidence(
        self,
        observed: Sequence[int],
        squared_scales: NDArray[np.float64],
        noise: NDArray[np.floating],
        measured: NDArray[np.floating],
    ) -> tuple[NDArray[np.floating], Solution]:
        """See :class:`ContextCovariance`."""
        among = self.matrix[np.ix_(observed, observed)]
        solve = _by_vectors if len(observed) <= _MOST_WITH_VECTORS else _by_matrices
        log_evidence, weights, precision = solve(among, squared_scales, noise, measured)
        log_evidence += 0.5 * np.log(noise).sum(axis=0)
        return log_evidence, lambda scales: (weights[scales], precision[scales])


@dataclass(frozen=True, eq=False)
class FactorCovariance:
    """Covariance of factors that contexts share (C, R), and of a rest (C,): O R^2 a scale and gene, of O contexts."""

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
        noise: NDArray[np.floating],
        measured: NDArray[np.floating],
    ) -> tuple[NDArray[np.floating], Solution]:
        r"""See :class:`ContextCovariance`.

        With the factors U and the diagonal E of noise and rest,
        :math:`(U U^T + E)^{-1} = E^{-1} - E^{-1} U (I + U^T E^{-1} U)^{-1} U^T E^{-1}` (Woodbury).
        """
        dtype, shape = noise.dtype, (len(squared_scales), *noise.shape)
        own, scales = self.factors[observed].astype(dtype), squared_scales.astype(dtype)[:, None, None]
        first, second = self._pairs
        is_square = first == second
        pairs = own[:, first] * own[:, second]  # (O, R (R + 1) / 2)
        relative = self.rest[observed, None].astype(dtype) / noise
        log_determinant = np.empty((len(scales), shape[2]), dtype=dtype)
        inverse, weights = np.empty((2, *shape), dtype=dtype)
        projected = np.empty((len(scales), own.shape[1], shape[2]), dtype=dtype)
        inner = np.empty((len(scales), len(first), shape[2]), dtype=dtype)
        scaled = np.empty(noise.shape, dtype=dtype)
        for number, scale in enumerate(scales[:, 0]):  # one at a time: arrays stay in the cache
            total = np.multiply(relative, scale, out=inverse[number])
            total += 1
            log_determinant[number] = _log_product(total)
            total *= noise
            np.reciprocal(total, out=total)
            np.matmul(own.T, np.multiply(total, measured, out=scaled), out=projected[number])
            np.matmul(pairs.T, total, out=inner[number])
        inner *= scales
        inner[:, is_square] += 1
        cholesky = VectorCholesky(inner, own.shape[1])
        log_determinant += cholesky.log_determinant()
        solved = cholesky.solve(projected)
        solved *= scales
        # What factors leave and the factors themselves, squared: a difference of large numbers would be less exact.
        squares = (np.square(solved) / scales).sum(axis=1)
        for number, remaining in enumerate(weights):
            np.subtract(measured, np.matmul(own, solved[number], out=scaled), out=remaining)
            np.multiply(remaining, inverse[number], out=scaled)
            squares[number] += np.einsum("og,og->g", remaining, scaled)
            remaining[:] = scaled

        def solution(chosen: NDArray[np.intp]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
            precision = np.empty((len(chosen), *noise.shape), dtype=dtype)
            twice = pairs * np.where(is_square, -1, -2).astype(dtype)
            inner_inverse = cholesky.inverse(chosen)
            inner_inverse *= scales[chosen]
            for place, number in enumerate(chosen):
                np.matmul(twice, inner_inverse[place], out=precision[place])
                precision[place] *= inverse[number]
                precision[place] += 1
                precision[place] *= inverse[number]
            return weights[chosen], precision

        return -0.5 * (log_determinant + squares), solution

    @cached_property
    def _pairs(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        return np.tril_indices(self.factors.shape[1])


def in_factors(matrix: NDArray[np.float64]) -> FullCovariance | FactorCovariance:
    """Correlations (C, C) in as few factors as change none by more than 0.05; as they are, where many are needed.

    Which covariance effects have is itself a guess on a coarse grid, and the time of a fit is then linear in contexts.
    Factors are those of the principal-factor method.
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


def _log_product(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Sum of the logarithms of values of at least 1 over the first axis."""
    n_pairs = len(values) // 2
    products = values[:n_pairs] * values[n_pairs : 2 * n_pairs]  # fewer logarithms, and no overflow
    found = np.log(products, out=products).sum(axis=0)
    return found + np.log(values[-1]) if len(values) % 2 else found


def _by_vectors(
    among: NDArray[np.float64],
    squared_scales: NDArray[np.float64],
    noise: NDArray[np.floating],
    measured: NDArray[np.floating],
) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]:
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
    noise: NDArray[np.floating],
    measured: NDArray[np.floating],
) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]:
    """The same gene by gene."""
    matrices = squared_scales[:, None, None, None] * among + noise.T[:, :, None] * np.eye(len(among))
    diagonals = np.diagonal(np.linalg.cholesky(matrices), axis1=2, axis2=3)
    inverses = np.linalg.inv(matrices)
    weights = (inverses @ measured.T[:, :, None])[..., 0]
    log_evidence = -np.log(diagonals).sum(axis=2) - 0.5 * (measured.T * weights).sum(axis=2)
    return log_evidence, weights.swapaxes(1, 2), np.diagonal(inverses, axis1=2, axis2=3).swapaxes(1, 2)

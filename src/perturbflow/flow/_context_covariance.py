"""Covariances of an effect between contexts, and what noisy measurements in some of them say under each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

_FEWEST_FOR_FACTORS = 9  # contexts
_TOLERANCE = 0.05  # of a correlation between contexts
_ROUNDS = 8  # of the principal-factor method for each number of factors

# Of some scales (K,): the weights ``(s^2 C + diag(noise))^-1 y`` and the diagonal of the inverse (K, O, G).
Solution: TypeAlias = Callable[["NDArray[np.intp]"], tuple["NDArray[np.floating]", "NDArray[np.floating]"]]


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
        """Log evidence (S, G) of measurements (O, G) with noise (O, G), at S scales of the effects; and how to solve.

        It is computed in the precision of the measurements, and without ``-sum(log(noise)) / 2``, which is common to
        all covariances and scales.
        """
        among = self.matrix[np.ix_(observed, observed)]
        first, second = np.tril_indices(len(among))
        entries = squared_scales[:, None, None] * among[first, second][:, None] + np.zeros(noise.shape[1])
        entries[:, first == second] += noise
        cholesky = VectorCholesky(entries, len(among))
        weights = cholesky.solve(np.broadcast_to(measured, (len(squared_scales), *measured.shape)))
        precision = cholesky.inverse(np.arange(len(squared_scales)))[:, first == second]
        log_evidence = -0.5 * (cholesky.log_determinant() + (measured * weights).sum(axis=1))
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
        r"""As :meth:`FullCovariance.evidence`.

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


ContextCovariance: TypeAlias = FullCovariance | FactorCovariance


def in_factors(matrix: NDArray[np.float64]) -> ContextCovariance:
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


class VectorCholesky:
    """Decompositions of positive definite n by n matrices, a matrix for every scale and gene.

    Entries are lower triangles in the order of :func:`numpy.tril_indices` (S, n (n + 1) / 2, G). Written over vectors
    of genes, several entries of a row at a time: matrices of a few rows are far too small for a call of LAPACK each.
    """

    def __init__(self, entries: NDArray[np.floating], n: int) -> None:
        # Rows by scales and genes, so that every step is over memory in one piece; diagonals are stored as inverses.
        self.n, self._factor = n, np.array(entries.swapaxes(0, 1), order="C")
        rows, found = _rows(self._factor), np.empty_like(self._factor[0])
        for i, row in enumerate(rows):
            for j in range(i + 1):
                if j:
                    row[j] -= _dot(row[:j], rows[j][:j], out=found)
                if i == j:
                    np.reciprocal(np.sqrt(row[j], out=row[j]), out=row[j])
                else:
                    row[j] *= rows[j][j]

    def log_determinant(self) -> NDArray[np.floating]:
        """Logarithms of the determinants (S, G)."""
        return -2 * np.log(np.stack([row[-1] for row in _rows(self._factor)])).sum(axis=0)

    def solve(self, right: NDArray[np.floating]) -> NDArray[np.floating]:
        """Solve for right sides (S, n, G)."""
        found = np.array(right.swapaxes(0, 1), dtype=self._factor.dtype, order="C")
        rows, product = _rows(self._factor), np.empty_like(found)
        for i, row in enumerate(rows):
            if i:
                found[i] -= _dot(row[:i], found[:i], out=product[0])
            found[i] *= row[i]
        for i, row in reversed(list(enumerate(rows))):
            found[i] *= row[i]
            found[:i] -= np.multiply(row[:i], found[i], out=product[:i])
        return found.swapaxes(0, 1)

    def inverse(self, chosen: NDArray[np.intp]) -> NDArray[np.floating]:
        """Lower triangles of the inverses at some scales, as ``entries`` has them (K, n (n + 1) / 2, G)."""
        factor = self._factor if len(chosen) == self._factor.shape[1] else self._factor[:, chosen]
        inverse = np.zeros_like(factor)  # of the factor
        rows, product = _rows(inverse), np.empty_like(factor[: self.n])
        for i, row in enumerate(_rows(factor)):
            for k in range(i):
                rows[i][: k + 1] -= np.multiply(rows[k], row[k], out=product[: k + 1])
            rows[i][:i] *= row[i]
            rows[i][i] = row[i]
        for i, own in enumerate(rows):  # in place: what is overwritten is not needed any more
            own *= own[i].copy()
            for row in rows[i + 1 :]:
                own += np.multiply(row[: i + 1], row[i], out=product[: i + 1])
        return inverse.swapaxes(0, 1)


def _rows(triangle: NDArray[np.floating]) -> list[NDArray[np.floating]]:
    """Rows of a lower triangle (n (n + 1) / 2, ...), of 1 to n entries."""
    rows: list[NDArray[np.floating]] = []
    first = 0
    while first < len(triangle):
        rows.append(triangle[first : first + len(rows) + 1])
        first += len(rows)
    return rows


def _dot(x: NDArray[np.floating], y: NDArray[np.floating], out: NDArray[np.floating]) -> NDArray[np.floating]:
    """Sum of the products of entries (k, S, G) over the first axis."""
    return np.einsum("ksg,ksg->sg", x, y, out=out)

"""A few factors of perturbations, contexts and genes that effects differ by between contexts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray

_MOST_DIRECTIONS = 12  # of genes, among which the factors are looked for
_MOST_FACTORS = 6
_MORE_DIRECTIONS = 8  # that are followed, so that those which are kept are found
_POWERS = 3
_EM_STEPS = 12
_START_SHARE = 0.3  # of the variance within a row that is taken for a rest before anything is known
_LEAST = 1e-9


@dataclass(frozen=True, eq=False)
class Rows:
    """Effects of perturbations in contexts, one a row, in a few directions of genes."""

    values: NDArray[np.float64]  # effects (N, R)
    noise: NDArray[np.float64]  # their sampling variances, the same in all directions (N,)
    which: NDArray[np.intp]  # perturbation of every row (N,)
    contexts: NDArray[np.intp]  # its context (N,)
    shape: tuple[int, int]  # numbers of perturbations P and of contexts C

    def take(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> Self:
        """Some of the rows."""
        return type(self)(self.values[rows], self.noise[rows], self.which[rows], self.contexts[rows], self.shape)

    @cached_property
    def by_perturbation(self) -> sparse.csr_matrix:
        """Return which rows are of a perturbation (P, N)."""
        return _members(self.which, self.shape[0])

    @cached_property
    def by_context(self) -> sparse.csr_matrix:
        """Return which rows are of a context (C, N)."""
        return _members(self.contexts, self.shape[1])


def _members(groups: NDArray[np.intp], number: int) -> sparse.csr_matrix:
    n = len(groups)
    return sparse.csr_matrix((np.ones(n), (groups, np.arange(n))), shape=(number, n))


def gene_directions(values: NDArray[np.floating], which: NDArray[np.intp], noise: NDArray[np.float64]) -> NDArray:
    """Orthonormal directions of genes (G, R) in which effects (N, G) of a perturbation differ most between contexts.

    Effects are in units of the noise of genes. The random start is in the space of genes, so that the order of rows
    makes no difference.
    """
    precision = 1 / noise
    of_perturbation = _members(which, int(which.max()) + 1)
    total = np.maximum(of_perturbation @ precision, _LEAST)  # of a perturbation without rows it is 0
    mean = of_perturbation @ (precision[:, None] * values) / total[:, None]
    apart = (values - mean[which]) * np.sqrt(precision)[:, None]
    n_genes = values.shape[1]
    n_kept = min(_MOST_DIRECTIONS, n_genes)
    start = np.random.default_rng(0).standard_normal((n_genes, min(n_kept + _MORE_DIRECTIONS, n_genes)))
    found = np.linalg.qr(apart.T @ (apart @ start))[0]
    for _ in range(_POWERS):
        found = np.linalg.qr(apart.T @ (apart @ found))[0]
    within = apart @ found
    vectors = np.linalg.eigh(within.T @ within)[1]
    return found @ vectors[:, ::-1][:, :n_kept]


@dataclass(frozen=True, eq=False)
class InteractionFactors:
    r"""Effects :math:`z_{pc} = m_p + \sum_k a_{pk} b_{ck} l_k` and a rest, in R directions of genes.

    What is the same in all contexts, m, is free; the factors a are normal with variance 1, the factors b with a
    variance for each that is learned, so that factors that are not needed vanish.
    """

    contexts: NDArray[np.float64]  # factors b (C, K)
    context_covariances: NDArray[np.float64]  # what is not known of them (C, K, K)
    loadings: NDArray[np.float64]  # directions l of unit length (K, R)
    context_variances: NDArray[np.float64]  # of the factors b (K,)
    rest: float  # variance of what no factor explains, the same in all directions

    @classmethod
    def fit(cls, rows: Rows) -> Self:
        """Find the factors by expectation-maximisation; the first directions of genes vary most."""
        n_factors = min(_MOST_FACTORS, rows.values.shape[1])
        factors = cls._start(rows, n_factors)
        for _ in range(_EM_STEPS):
            factors = factors._improved(rows, PerturbationFactors.of(factors, rows))
        return factors

    @classmethod
    def _start(cls, rows: Rows, n_factors: int) -> Self:
        """Factors along the directions, each with the contexts that differ most along it."""
        of_perturbation = rows.by_perturbation
        number = np.maximum(of_perturbation @ np.ones(len(rows.which)), 1)
        apart = rows.values - (of_perturbation @ rows.values / number[:, None])[rows.which]
        n_contexts = rows.shape[1]
        contexts = np.zeros((n_contexts, n_factors))
        for factor in range(n_factors):
            table = sparse.csr_matrix((apart[:, factor], (rows.which, rows.contexts)), shape=rows.shape)
            values, vectors = np.linalg.eigh((table.T @ table).toarray())
            contexts[:, factor] = vectors[:, -1] * np.sqrt(max(values[-1], 0) / rows.shape[0])
        return cls(
            contexts=contexts,
            context_covariances=np.zeros((n_contexts, n_factors, n_factors)),
            loadings=np.eye(n_factors, rows.values.shape[1]),
            context_variances=np.maximum(np.square(contexts).mean(axis=0), _LEAST),
            rest=max(_START_SHARE * float(apart.var()), _LEAST),
        )

    def _improved(self, rows: Rows, known: PerturbationFactors) -> Self:
        """Loadings, then contexts, then the rest, given what is known of perturbations."""
        which, precision = rows.which, known.precision
        own = known.factors[which]
        left = (known.squares * known.gram).sum(axis=0)
        weighted = precision[:, None] * own * known.apart
        n_factors = len(left)
        steady = (_LEAST + 1e-6 * np.trace(left) / n_factors) * np.eye(n_factors)
        loadings = np.linalg.solve(left + steady, weighted.T @ rows.values)
        lengths = np.linalg.norm(loadings, axis=1) + _LEAST
        loadings /= lengths[:, None]
        variances = self.context_variances * lengths**2
        conserved = known.conserved(rows, loadings, known.centre * lengths)
        projected = (rows.values - conserved[which]) @ loadings.T
        of_context = rows.by_context
        flat = (precision[:, None] * known.squares.reshape(len(known.squares), -1)[which]).reshape(len(which), -1)
        needed = (of_context @ flat).reshape(-1, n_factors, n_factors) * (loadings @ loadings.T)
        covariances = np.linalg.inv(needed + np.diag(1 / np.maximum(variances, _LEAST)))
        contexts = np.einsum("ckl,cl->ck", covariances, of_context @ (precision[:, None] * own * projected))
        variances = (np.square(contexts) + np.diagonal(covariances, axis1=1, axis2=2)).mean(axis=0)
        remains = rows.values - (own * contexts[rows.contexts]) @ loadings
        of_perturbation = rows.by_perturbation
        remains -= (of_perturbation @ (precision[:, None] * remains) / known.total[:, None])[which]
        freedom = max(len(which) - int((np.diff(of_perturbation.indptr) > 0).sum()), 1) * rows.values.shape[1]
        rest = max(float(np.square(remains).sum()) / freedom - float(rows.noise.mean()), _LEAST)
        return type(self)(contexts, covariances, loadings, variances, rest)

    def with_contexts_of(self, rows: Rows) -> Self:
        """The same loadings with the contexts as more rows show them."""
        found = self._improved(rows, PerturbationFactors.of(self, rows))
        return type(self)(found.contexts, found.context_covariances, found.loadings, found.context_variances, self.rest)

    def of_new_context(self, own: Rows, known: PerturbationFactors, others: Rows) -> NDArray[np.float64]:
        """Factors of a context without part in the fit, for each of its rows from all but this one (n, K).

        ``known`` is what the rows of the other contexts, ``others``, tell of the perturbations.
        """
        which = own.which
        conserved = known.conserved(others, self.loadings, known.centre)
        precision = 1 / (own.noise + self.rest + 1 / known.total[which])
        needed = precision[:, None, None] * known.squares[which] * (self.loadings @ self.loadings.T)
        right = precision[:, None] * known.factors[which] * ((own.values - conserved[which]) @ self.loadings.T)
        everything = needed.sum(axis=0) + np.diag(1 / np.maximum(self.context_variances, _LEAST))
        return np.linalg.solve(everything - needed, (right.sum(axis=0) - right)[:, :, None])[:, :, 0]


@dataclass(frozen=True, eq=False)
class PerturbationFactors:
    """Information of rows about the perturbations, given the factors of contexts and genes."""

    factors: NDArray[np.float64]  # expected factors a (P, K)
    covariances: NDArray[np.float64]  # what is not known of them (P, K, K)
    precision: NDArray[np.float64]  # of every row, of its noise and the rest (N,)
    total: NDArray[np.float64]  # sum of these over the rows of a perturbation (P,), at least a little
    centre: NDArray[np.float64]  # context factors, averaged with these over the contexts of a perturbation (P, K)
    apart: NDArray[np.float64]  # context factors of every row beyond that (N, K)
    gram: NDArray[np.float64]  # sum of their products over a perturbation's rows, with what is not known (P, K, K)

    @classmethod
    def of(cls, model: InteractionFactors, rows: Rows) -> Self:
        """Posterior of the factors of perturbations, whatever is the same in all contexts."""
        of_perturbation, n_factors = rows.by_perturbation, len(model.loadings)
        precision = 1 / (rows.noise + model.rest)
        total = np.maximum(of_perturbation @ precision, _LEAST)
        own = model.contexts[rows.contexts]
        centre = of_perturbation @ (precision[:, None] * own) / total[:, None]
        apart = own - centre[rows.which]
        products = apart[:, :, None] * apart[:, None] + model.context_covariances[rows.contexts]
        products *= precision[:, None, None]
        gram = (of_perturbation @ products.reshape(len(own), -1)).reshape(-1, n_factors, n_factors)
        covariances = np.linalg.inv(np.eye(n_factors) + gram * (model.loadings @ model.loadings.T))
        right = of_perturbation @ (precision[:, None] * apart * (rows.values @ model.loadings.T))
        factors = np.einsum("pkl,pl->pk", covariances, right)
        return cls(factors, covariances, precision, total, centre, apart, gram)

    @property
    def squares(self) -> NDArray[np.float64]:
        """Expected products of the factors (P, K, K)."""
        return self.factors[:, :, None] * self.factors[:, None] + self.covariances

    def conserved(self, rows: Rows, loadings: NDArray[np.float64], centre: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what is the same in all contexts (P, R)."""
        mean = rows.by_perturbation @ (self.precision[:, None] * rows.values) / self.total[:, None]
        return mean - (self.factors * centre) @ loadings

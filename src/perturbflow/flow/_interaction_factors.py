"""A few factors of perturbations, contexts and genes that effects differ by between contexts, and what they are learned from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from perturbflow.flow._measurements import Measurements, alone, members

_MOST_DIRECTIONS = 12  # of genes, among which the factors are looked for
_MOST_FACTORS = 6
_MORE_DIRECTIONS = 8  # that are followed, so that those which are kept are found
_POWERS = 3
_EM_STEPS = 12
_START_SHARE = 0.3  # of the variance within a row that is taken for a rest before anything is known
_LEAST = 1e-9
_FEWEST_CONTEXTS = 3  # in which effects were measured
_FEWEST_LEVELS = 8  # that were measured in several
FEWEST_IN_CONTEXT = 3  # effects, that say what a context does
_MOST_LEVELS = 600  # from which the factors are learned
_VALUES_AT_ONCE = 4_000_000


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
        return members(self.which, self.shape[0])

    @cached_property
    def by_context(self) -> sparse.csr_matrix:
        """Return which rows are of a context (C, N)."""
        return members(self.contexts, self.shape[1])


def gene_directions(values: NDArray[np.floating], which: NDArray[np.intp], noise: NDArray[np.float64]) -> NDArray:
    """Orthonormal directions of genes (G, R) in which effects (N, G) of a perturbation differ most between contexts.

    Effects are in units of the noise of genes. The random start is in the space of genes, so that the order of rows
    makes no difference.
    """
    precision = 1 / noise
    of_perturbation = members(which, int(which.max()) + 1)
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


@dataclass(frozen=True, eq=False)
class SingleEffects:
    """Groups of one level and no other, of levels that several contexts have."""

    rows: NDArray[np.intp]  # numbers of the groups (N,)
    numbers: NDArray[np.intp]  # of their levels among `levels` (N,)
    contexts: NDArray[np.intp]  # of the groups (N,)
    levels: NDArray[np.intp]
    is_measured: NDArray[np.bool_]  # whether a level was measured in a context, alone or not (P, C)
    is_fitted: NDArray[np.bool_]  # whether the effects of a level are known (P,)

    @classmethod
    def of(cls, measured: Measurements, fitted: NDArray[np.intp], n_contexts: int) -> SingleEffects | None:
        """Find them; None where they are too few to learn from."""
        design = measured.design
        if len(np.unique(measured.which)) < _FEWEST_CONTEXTS:
            return None
        rows, level = alone(design)
        contexts = measured.which[rows]
        several = np.bincount(level, minlength=design.shape[1]) > 1  # a group is a level in a context
        levels = np.flatnonzero(several)
        if len(levels) < _FEWEST_LEVELS:
            return None
        kept = several[level]
        rows, level, contexts = rows[kept], level[kept], contexts[kept]
        if len(np.unique(contexts)) < _FEWEST_CONTEXTS:
            return None
        is_measured = np.zeros((len(levels), n_contexts), dtype=bool)
        for number, each in enumerate(levels):
            is_measured[number, measured.which[measured.of_level(int(each))[0]]] = True
        numbers = np.searchsorted(levels, level)
        return cls(rows, numbers, contexts, levels, is_measured, np.isin(levels, fitted))

    @cached_property
    def is_known(self) -> NDArray[np.bool_]:
        """Return whether enough effects of a context were measured to say how it differs from others (C,)."""
        return np.bincount(self.contexts, minlength=self.is_measured.shape[1]) >= FEWEST_IN_CONTEXT

    @property
    def asking(self) -> NDArray[np.intp]:
        """Contexts of which enough effects were measured, but not all."""
        return np.flatnonzero(self.is_known & ~self.is_measured[self.is_fitted].all(axis=0))

    def some_levels(self) -> NDArray[np.bool_]:
        """Choose levels from which factors are learned: evenly spaced among those of every context (P,)."""
        chosen = np.zeros(len(self.levels), dtype=bool)
        places = np.unique(self.contexts)
        most = max(_MOST_LEVELS // len(places), 1)
        for place in places:
            own = self.numbers[self.contexts == place]
            chosen[own[:: max(1, -(-len(own) // most))]] = True
        return chosen if len(self.levels) > _MOST_LEVELS else np.ones(len(self.levels), dtype=bool)


@dataclass(frozen=True, eq=False)
class EffectTable:
    """Measured effects of some levels beyond the shared part, from which the factors are learned."""

    single: SingleEffects
    measured: Measurements
    shared: NDArray[np.float64]  # mean effect of a perturbation (C, G), which is taken from the measured
    rows: Rows  # effects in units of their noise, in directions of genes in which contexts differ
    levels: NDArray[np.intp]  # of the rows (N,)
    changes: NDArray[np.float32]  # effects on all genes (N, G)
    units: NDArray[np.float64]  # noise of every gene (G,)
    directions: NDArray[np.float64]  # of genes (G, R)

    @classmethod
    def of(cls, single: SingleEffects, measured: Measurements, shared: NDArray[np.float64]) -> EffectTable:
        """Collect the effects."""
        which = np.flatnonzero(single.some_levels()[single.numbers])
        groups, numbers, contexts = single.rows[which], single.numbers[which], single.contexts[which]
        variances = measured.variances[groups]
        units = np.sqrt(variances.mean(axis=0, dtype=np.float64))
        noise = 1 / (units**2 / variances).mean(axis=1)
        changes = measured.effects[groups] - shared[contexts].astype(np.float32)
        scaled = changes / units.astype(np.float32)
        directions = gene_directions(scaled, numbers, noise)
        rows = Rows(scaled @ directions, noise, numbers, contexts, single.is_measured.shape)
        return cls(single, measured, shared, rows, single.levels[numbers], changes, units, directions)

    @cached_property
    def factors(self) -> InteractionFactors:
        """Factors of the effects of these levels."""
        return InteractionFactors.fit(self.rows)

    def genes(self, factors: InteractionFactors) -> NDArray[np.float64]:
        """Return what factors do to genes (K, G)."""
        return factors.loadings @ self.directions.T * self.units

    def known(self) -> tuple[InteractionFactors, PerturbationFactors, Rows]:
        """Factors with what the effects of all levels say of contexts and of perturbations, and these effects."""
        factors, rows = self.factors, self._all_rows()
        if rows is not self.rows:
            factors = factors.with_contexts_of(rows)
        return factors, PerturbationFactors.of(factors, rows), rows

    def _all_rows(self) -> Rows:
        """Effects of all levels, whose genes are not needed, block by block."""
        single = self.single
        if len(self.levels) == len(single.rows):
            return self.rows
        scale = self.directions / self.units[:, None]
        values, noise = np.empty((len(single.rows), self.directions.shape[1])), np.empty(len(single.rows))
        at_once = max(1, _VALUES_AT_ONCE // len(self.units))
        for first in range(0, len(noise), at_once):
            block = slice(first, first + at_once)
            groups = single.rows[block]
            noise[block] = 1 / (self.units**2 / self.measured.variances[groups]).mean(axis=1)
            values[block] = (self.measured.effects[groups] - self.shared[single.contexts[block]]) @ scale
        return Rows(values, noise, single.numbers, single.contexts, self.rows.shape)

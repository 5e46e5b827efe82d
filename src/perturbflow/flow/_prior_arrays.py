"""Arrays of the additive hurdle prior, and what follows from them at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from perturbflow.flow._arrays import Arrays
from perturbflow.flow._carry import Way, carried, from_array
from perturbflow.flow._control_factors import ControlFactors
from perturbflow.flow._data import TrainingGroups
from perturbflow.flow._dose_levels import DoseLevels
from perturbflow.flow._hurdle_distribution import Context
from perturbflow.flow._prior_fit import Pool, shrink_base, squared_distances


@dataclass(frozen=True, eq=False)
class PriorArrays(Arrays):
    """Fields of :class:`AdditiveHurdlePrior`, where they are described, and ways to look conditions up in them."""

    _packed = {
        "effects": ("effect_codes", "effect_steps"),
        "interactions": ("interaction_codes", "interaction_steps"),
    }
    _deviations = {"effect_variances": "effect_sds"}

    contexts: NDArray[np.int64]
    n_controls: NDArray[np.float64]
    control_expressed: NDArray[np.float32]
    control_mean: NDArray[np.float32]
    control_profile: NDArray[np.float32]
    distance_unit: NDArray[np.float64]
    carry: NDArray[np.float64]
    pool_expressed: NDArray[np.float32]
    all_expressed: NDArray[np.float32]
    all_mean: NDArray[np.float32]
    variance: NDArray[np.float32]
    level_components: NDArray[np.int64]
    level_doses: NDArray[np.float64]
    trained: NDArray[np.bool_]
    shared: NDArray[np.float32]
    effects: NDArray[np.float32]
    group_starts: NDArray[np.int64]
    group_components: NDArray[np.int64]
    group_amounts: NDArray[np.float32]
    group_contexts: NDArray[np.int64]
    group_cells: NDArray[np.float64]
    interactions: NDArray[np.float32]
    effect_variances: NDArray[np.float32]
    interaction_variances: NDArray[np.float32]
    context_variances: NDArray[np.float32]
    told_variances: NDArray[np.float32]
    base_precisions: NDArray[np.float32]
    features: NDArray[np.float32]
    fraction: NDArray[np.float32]
    level_factors: NDArray[np.float32]
    context_factors: NDArray[np.float32]
    gene_factors: NDArray[np.float32]
    slope: NDArray[np.float32]
    read_variances: NDArray[np.float32]

    @property
    def n_genes(self) -> int:
        """Number of genes G."""
        return len(self.variance)

    @cached_property
    def levels(self) -> DoseLevels:
        """The measured doses of every component."""
        return DoseLevels(self.level_components, self.level_doses)

    @cached_property
    def ways(self) -> list[tuple[Way, ...]]:
        """Return how changes of angles and of means are carried to contexts without them."""
        return from_array(self.carry)

    @cached_property
    def dose_unit(self) -> NDArray[np.float32]:
        """Largest training dose of every component (P,)."""
        last = np.searchsorted(self.level_components, np.arange(len(self.trained)), side="right") - 1
        return self.level_doses[last].astype(np.float32)

    @cached_property
    def groups(self) -> TrainingGroups:
        """The training groups, to look them up."""
        parts = (self.group_amounts, self.group_components, self.group_starts)
        shape = (len(self.group_contexts), len(self.trained))
        return TrainingGroups(sparse.csr_matrix(parts, shape=shape), self.group_contexts)

    @cached_property
    def _context_numbers(self) -> dict[tuple[int, ...], int]:
        return {tuple(codes): i for i, codes in enumerate(self.contexts.tolist())}

    @cached_property
    def bases(self) -> NDArray[np.float64]:
        """Return what changes are added to in every training context (2, C, G)."""
        pool = Pool(self.pool_expressed, self.all_expressed, self.all_mean, self.variance)
        expressing = self.control_expressed * self.n_controls[:, None]
        parts = zip(self.n_controls, expressing, expressing * self.control_mean, strict=True)
        return np.stack([shrink_base(float(n), k, total, pool) for n, k, total in parts], axis=1)

    @cached_property
    def agreement(self) -> float:
        """Correlation of the effects on angles with those on means, over levels, genes and the contexts where they were measured."""
        squares = np.zeros((2, 2))
        for level, contexts in enumerate(self._contexts_of_levels):
            both = self.effects[:, level, contexts].reshape(2, -1).astype(np.float64)
            squares += both @ both.T
        size = np.sqrt(squares[0, 0] * squares[1, 1])
        return float(squares[0, 1] / size) if size > 0 else 0.0

    @cached_property
    def _contexts_of_levels(self) -> list[NDArray[np.intp]]:
        """Contexts where a level was measured, for every level."""
        design = sparse.csc_matrix(self.levels.design(self.groups.doses))
        starts = design.indptr
        return [
            np.unique(self.group_contexts[design.indices[first:last]])
            for first, last in zip(starts[:-1], starts[1:], strict=True)
        ]

    def change(self, level: int, context: Context) -> NDArray[np.float64]:
        """Change of angle and mean by a level, with what all have in common (2, G); to a new context it is carried."""
        if context.index is not None:
            own = self.shared[:, context.index].astype(np.float64)
            return own + self.effects[:, level, context.index]
        shared, base = self._shared_in(context)
        observed = self._contexts_of_levels[level]
        if not len(observed):  # the same expected effect in all contexts
            return shared + self.effects[:, level, 0]
        where = self.bases[:, observed] + self.shared[:, observed]
        effects = self._carried(self.effects[:, level, observed], where, base + shared, context, observed)
        if self.level_factors[:, level].any():
            effects += self._read(level, context, observed)
        return shared + effects

    def _read(self, level: int, context: Context, observed: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return what the controls of a new context add to an effect that is carried there (2, G)."""
        distances = context.distances[observed]
        added = np.zeros((2, self.n_genes))
        for half, (factors, ways) in enumerate(zip(self._of_controls, self.ways, strict=True)):
            if factors.is_read:
                place = factors.place(self._among, context.distances)
                added[half] = factors.added(level, place, observed, distances, ways)
        return added

    @cached_property
    def _of_controls(self) -> list[ControlFactors]:
        """Return what controls tell of effects on angles and on means."""
        parts = (np.asarray(getattr(self, name), dtype=np.float64) for name in ControlFactors._fields)
        return [ControlFactors(*each) for each in zip(*parts, strict=True)]

    @cached_property
    def _among(self) -> NDArray[np.float64]:
        """Squared distances between the controls of all training contexts (C, C)."""
        profile = self.control_profile.astype(np.float64)
        return squared_distances(profile, profile) / self.distance_unit[0]

    def told_in(self, context: Context) -> NDArray[np.floating]:
        """Return how much of the variance of an effect between contexts is told of those not measured in one (2, G).

        Of a new context controls tell something at most.
        """
        return self.read_variances if context.index is None else self.told_variances[:, context.index]

    def _shared_in(self, context: Context) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return what all perturbations have in common in a new context, and what it is added to (2, G)."""
        base, measured = np.stack([context.base_angle, context.base_mean]), self.groups.all_contexts
        if not len(measured):
            return np.zeros_like(base), base
        changes, bases = self.shared[:, measured], self.bases[:, measured]
        return self._carried(changes, bases, base, context, measured), base

    def _carried(
        self,
        changes: NDArray[np.floating],
        bases: NDArray[np.floating],
        base: NDArray[np.floating],
        context: Context,
        observed: NDArray[np.integer],
    ) -> NDArray[np.float64]:
        """Carry changes (2, O, G) to a new context (2, G)."""
        distances = context.distances[observed]
        halves = zip(changes.astype(np.float64), bases, base, self.ways, strict=True)
        return np.stack([carried(delta, there, here, distances, ways) for delta, there, here, ways in halves])

    def within(self, perturbations: NDArray[np.floating] | sparse.csr_matrix) -> sparse.csr_matrix:
        """Doses (n, P) as they count, CSR without stored zeros: none is above the largest of training."""
        if sparse.issparse(perturbations):
            doses = sparse.csr_matrix(perturbations, dtype=np.float32, copy=True)
        else:  # much faster than through the constructor, for the few of a condition
            dense = np.atleast_2d(np.asarray(perturbations, dtype=np.float32))
            counts, components = np.count_nonzero(dense, axis=1), np.nonzero(dense)[1]
            parts = dense[dense != 0], components, np.append(0, np.cumsum(counts))
            doses = sparse.csr_matrix(parts, shape=dense.shape)
        doses.data = np.minimum(doses.data, self.dose_unit[doses.indices])
        doses.eliminate_zeros()
        doses.sort_indices()
        return doses

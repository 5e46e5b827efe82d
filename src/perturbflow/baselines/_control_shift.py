"""Baselines that move control cells by mean effects of the groups of training cells."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from perturbflow._warnings import warn
from perturbflow.baselines._sampler import checked_sample, not_fitted, of_fit, of_sample

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from numpy.typing import NDArray

    from perturbflow.flow import CellData, GroupSums

_SAME_DISTANCE = 1e-6  # of log doses, above the rounding of float32


@dataclass(frozen=True)
class GroupEffects:
    """Effects (g, G) of the perturbed groups: the group's mean minus the mean of the controls of its context.

    With them the dose of every component (g, P) and the covariate codes of every group.
    """

    doses: NDArray[np.float64]
    contexts: list[tuple[int, ...]]
    effects: NDArray[np.float64]

    @cached_property
    def _rows_of(self) -> dict[tuple[int, ...], list[int]]:
        """Rows of every set of components."""
        rows = defaultdict(list)
        for row, doses in enumerate(self.doses):
            rows[tuple(np.flatnonzero(doses).tolist())].append(row)
        return dict(rows)

    def of_perturbation(
        self, doses: NDArray[np.float64], *, within: Callable[[tuple[int, ...]], bool]
    ) -> NDArray[np.float64] | None:
        """Mean effect (G,) of the groups with exactly these components, at the doses nearest to those asked for (P,), or None.

        Nearest is the smallest sum over components of ``|log(dose / asked)|``; equally near groups count alike.
        """
        components = np.flatnonzero(doses)
        same = self._rows_of.get(tuple(components.tolist()), [])
        rows = np.array([row for row in same if within(self.contexts[row])], dtype=np.intp)
        if not len(rows):
            return None
        distances = np.abs(np.log(self.doses[np.ix_(rows, components)] / doses[components])).sum(axis=1)
        nearest = rows[distances <= distances.min() + _SAME_DISTANCE]
        return self.effects[nearest].mean(axis=0)


def group_effects(cells: CellData | GroupSums) -> GroupEffects:
    """Compute the effects of all perturbed groups; time is linear in the stored values.

    Groups of contexts without control cells have no effect to measure: they are left out, with a warning.
    """
    from perturbflow.flow import GroupSums  # here, because it loads torch

    sums = (cells if isinstance(cells, GroupSums) else GroupSums.of(cells)).ordered()
    contexts = list(map(tuple, sums.covariates.tolist()))
    control_of = {contexts[row]: row for row in np.flatnonzero(sums.is_control).tolist()}
    perturbed = np.flatnonzero(~sums.is_control).tolist()
    usable = [row for row in perturbed if contexts[row] in control_of]
    if not usable:
        msg = (
            "Expected perturbed cells and control cells of the same context, "
            f"found {len(perturbed)} perturbed groups and controls in {len(control_of)} contexts, none in common. "
            "Add training cells, or register fewer covariates."
        )
        raise ValueError(msg)
    if len(usable) < len(perturbed):
        msg = (
            f"Left out {len(perturbed) - len(usable)} of {len(perturbed)} perturbed groups, "
            "whose contexts (combinations of covariates) have no control cells."
        )
        warn(msg)

    effects = sums.total[usable] / sums.n_cells[usable, None]
    for effect, row in zip(effects, usable, strict=True):
        control = control_of[contexts[row]]
        effect -= sums.total[control] / sums.n_cells[control]
    return GroupEffects(
        doses=sums.doses[usable].toarray().astype(np.float64),
        contexts=[contexts[row] for row in usable],
        effects=effects,
    )


class ControlShift(ABC):
    """Control cells plus one shift per gene and condition, cut off at zero.

    ``predicted = max(controls + shift(perturbation, covariates), 0)``; the shift of no perturbation is 0. Subclasses
    implement :meth:`_fit` and :meth:`_shift`. The cells keep the spread and the gene-gene dependence of the controls
    (but for the cut), so a shift up turns all zeros of a gene into small values.
    """

    _shape: tuple[int, int, int] | None = None

    @of_fit
    def fit(self, cells: CellData | GroupSums | GroupEffects) -> Self:
        """Learn the shifts."""
        groups = cells if isinstance(cells, GroupEffects) else group_effects(cells)
        self._fit(groups)
        self._shape = (groups.effects.shape[1], groups.doses.shape[1], len(groups.contexts[0]))
        return self

    @of_sample
    def sample(
        self,
        controls: NDArray[np.float32],
        perturbation: NDArray[np.float32],
        covariates: NDArray[np.int64],
        *,
        rng: np.random.Generator,
    ) -> NDArray[np.float32]:
        """Predict perturbed cells of one condition, row by row for the control cells, without chance."""
        if self._shape is None:
            raise not_fitted(self)
        controls, perturbation, covariates = checked_sample(self._shape, controls, perturbation, covariates)
        if not perturbation.any():
            return np.maximum(controls, 0)
        shift = self._shift(perturbation.astype(np.float64), tuple(covariates.tolist()))
        predicted = controls + shift.astype(np.float32)
        return np.maximum(predicted, 0, out=predicted)

    @abstractmethod
    def _fit(self, groups: GroupEffects) -> None:
        """Learn from measured effects whatever :meth:`_shift` needs."""

    @abstractmethod
    def _shift(self, perturbation: NDArray[np.float64], context: tuple[int, ...]) -> NDArray[np.float64]:
        """Shift (G,) of a perturbation with at least one dose that is not 0."""


class ControlCells(ControlShift):
    """Control cells as they are: the floor of every comparison.

    *Weakness*: hard to beat where a perturbation does little, since real cells carry everything but the effect.

    Examples
    --------
    >>> from perturbflow.flow import CellData
    >>> cells = CellData(np.ones((2, 3)), np.array([[0.0], [1.0]]), np.zeros((2, 0), dtype=int))
    >>> controls = np.zeros((1, 3), dtype=np.float32)
    >>> ControlCells().fit(cells).sample(controls, np.ones(1), np.zeros(0, dtype=int), rng=np.random.default_rng(0))
    array([[0., 0., 0.]], dtype=float32)
    """

    @of_fit
    def fit(self, cells: CellData | GroupSums | GroupEffects) -> Self:
        """Learn how many genes, components and covariates there are; perturbed cells are not needed."""
        from perturbflow.flow import CellData  # here, because it loads torch

        if isinstance(cells, GroupEffects):
            return super().fit(cells)
        doses = cells.perturbations if isinstance(cells, CellData) else cells.doses
        self._shape = (cells.n_genes, doses.shape[1], cells.covariates.shape[1])
        return self

    def _fit(self, groups: GroupEffects) -> None:
        """Learn nothing: no effect is what is predicted."""

    def _shift(self, perturbation: NDArray[np.float64], context: tuple[int, ...]) -> NDArray[np.float64]:
        return np.zeros(0 if self._shape is None else self._shape[0])


class MeanEffect(ControlShift):
    """Control cells plus the mean effect of all perturbed training groups.

    ::

        shift = mean over groups of ( mean(cells of the group) - mean(controls of its context) )

    A group is a perturbation (with its dose) in a context; every group counts once, whatever its number of cells.

    *Weakness*: knows neither perturbation nor context nor dose. It nevertheless wins where perturbations share a
    response, and shows how much of a score that response explains.

    Examples
    --------
    >>> from perturbflow.flow import CellData
    >>> cells = CellData(
    ...     np.array([[1.0], [2.0], [4.0]]), np.array([[0, 0], [1, 0], [0, 1]]), np.zeros((3, 0), dtype=int)
    ... )
    >>> controls = np.zeros((1, 1), dtype=np.float32)
    >>> perturbation = np.array([1.0, 1.0])
    >>> MeanEffect().fit(cells).sample(controls, perturbation, np.zeros(0, dtype=int), rng=np.random.default_rng(0))
    array([[2.]], dtype=float32)
    """

    def _fit(self, groups: GroupEffects) -> None:
        self._effect = groups.effects.mean(axis=0)

    def _shift(self, perturbation: NDArray[np.float64], context: tuple[int, ...]) -> NDArray[np.float64]:
        return self._effect


class CovariateMean(ControlShift):
    """Control cells plus the mean effect of the perturbed training groups of the same context.

    ::

        shift = mean over perturbed groups of the context of ( mean(cells of the group) - mean(controls of the context) )

    A context is a combination of covariates. Contexts without perturbed training cells take the mean over all groups,
    as :class:`MeanEffect` does.

    *Weakness*: knows neither perturbation nor dose.

    Examples
    --------
    >>> from perturbflow.flow import CellData
    >>> x, perturbations = np.array([[1.0], [2.0], [1.0], [4.0]]), np.array([[0.0], [1.0], [0.0], [1.0]])
    >>> cells = CellData(x, perturbations, np.array([[0], [0], [1], [1]]))
    >>> controls = np.zeros((1, 1), dtype=np.float32)
    >>> CovariateMean().fit(cells).sample(controls, np.ones(1), np.array([1]), rng=np.random.default_rng(0))
    array([[3.]], dtype=float32)
    """

    def _fit(self, groups: GroupEffects) -> None:
        self._groups, self._mean = groups, groups.effects.mean(axis=0)
        self._by_context = {
            context: groups.effects[[other == context for other in groups.contexts]].mean(axis=0)
            for context in set(groups.contexts)
        }

    def _shift(self, perturbation: NDArray[np.float64], context: tuple[int, ...]) -> NDArray[np.float64]:
        return self._by_context.get(context, self._mean)


class CrossContextEffect(CovariateMean):
    """Control cells plus the mean effect of the same perturbation in the other contexts.

    ::

        shift = mean over contexts c other than the one asked for of ( mean(cells of the group in c) - mean(controls of c) )

    A context is a combination of covariates, a perturbation a set of components with their doses. Contexts count whose
    dose is the one asked for or, where there is none, the one nearest in ratio (the smallest sum over components of
    ``|log(dose / asked)|``). A perturbation without a group in another context, whatever its dose, has the shift of
    :class:`CovariateMean`: the mean effect of the context asked for.

    *Weakness*: a context has no say but through its controls, and cells of the perturbation in the context itself are
    not used, whatever their dose; combinations only where the same combination was seen.

    References
    ----------
    Wenkel et al. (2025), TxPert: leveraging biochemical relationships for out-of-distribution transcriptomic
    perturbation prediction. *arXiv* 2505.14919, the general baseline.

    Examples
    --------
    >>> from perturbflow.flow import CellData
    >>> x, perturbations = np.array([[1.0], [5.0], [1.0]]), np.array([[0.0], [1.0], [0.0]])
    >>> cells = CellData(x, perturbations, np.array([[0], [0], [1]]))
    >>> controls = np.ones((1, 1), dtype=np.float32)
    >>> CrossContextEffect().fit(cells).sample(controls, np.ones(1), np.array([1]), rng=np.random.default_rng(0))
    array([[5.]], dtype=float32)
    """

    def _shift(self, perturbation: NDArray[np.float64], context: tuple[int, ...]) -> NDArray[np.float64]:
        effect = self._groups.of_perturbation(perturbation, within=lambda other: other != context)
        return super()._shift(perturbation, context) if effect is None else effect


class MatchingMean(CovariateMean):
    """Control cells plus the mean, not the sum, of the effects of the components of a combination.

    ::

        shift = mean over components p of e_p          a combination
        shift = mean effect of the context             a single perturbation, seen or not

    The effect ``e_p`` of a component is that of its training group alone (mean of the group minus mean of the controls
    of its context), from the first of these that exist:

    1. its group in the same context;
    2. the mean of its groups over all contexts;
    3. the mean effect of the context, that of :class:`CovariateMean`.

    Of several doses the one nearest in ratio to the dose asked for is taken. With one context, the mean of the
    predicted cells is, but for the cut at zero, the mean of the centroids of the components.

    *Weakness*: no perturbation adds to another, so combinations of different effects come out too small; one and the
    same prediction for all single perturbations of a context.

    References
    ----------
    Viñas Torné et al. (2025), Systema, *Nat. Biotechnol.*, https://doi.org/10.1038/s41587-025-02777-8, section
    Nonparametric baselines.

    Examples
    --------
    >>> from perturbflow.flow import CellData
    >>> cells = CellData(
    ...     np.array([[1.0], [2.0], [4.0]]), np.array([[0, 0], [1, 0], [0, 1]]), np.zeros((3, 0), dtype=int)
    ... )
    >>> controls = np.zeros((1, 1), dtype=np.float32)
    >>> perturbation = np.array([1.0, 1.0])
    >>> MatchingMean().fit(cells).sample(controls, perturbation, np.zeros(0, dtype=int), rng=np.random.default_rng(0))
    array([[2.]], dtype=float32)
    """

    def _shift(self, perturbation: NDArray[np.float64], context: tuple[int, ...]) -> NDArray[np.float64]:
        mean = super()._shift(perturbation, context)
        components = np.flatnonzero(perturbation)
        if len(components) == 1:
            return mean
        effects = [self._effect_alone(int(p), perturbation, context) for p in components]
        return np.mean([mean if effect is None else effect for effect in effects], axis=0)

    def _effect_alone(
        self, component: int, perturbation: NDArray[np.float64], context: tuple[int, ...]
    ) -> NDArray[np.float64] | None:
        alone = np.zeros_like(perturbation)
        alone[component] = perturbation[component]
        own = self._groups.of_perturbation(alone, within=lambda other: other == context)
        return self._groups.of_perturbation(alone, within=lambda _: True) if own is None else own

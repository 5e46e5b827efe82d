"""The baseline that adds the effects of single perturbations."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from perturbflow.baselines._control_shift import ControlShift, GroupEffects


class AdditiveEffect(ControlShift):
    """Control cells plus the sum of the effects of the single perturbations.

    ::

        shift = sum over components p of dose_p * slope_p

    The slope of a component, its effect per unit of dose, is a least-squares fit through the origin to the effects
    ``e`` of training groups (mean of the group minus mean of the controls of its context, every group counted once),
    ``slope = sum(dose * e) / sum(dose^2)``, from the first of these that exist:

    1. the groups of the same context with this component alone;
    2. the groups of all contexts with this component alone;
    3. the combinations of all contexts that contain it: least squares on what the components that were seen alone leave
       over (of minimum norm, so components that only ever come together share their effect);
    4. for a component that was never seen, the mean effect of all groups, whatever the dose.

    With one dose level, 1 is the effect of the single perturbation and 2 its mean over contexts.

    *Weakness*: no interactions, dose response a straight line, context effects only where they were seen.

    References
    ----------
    Ahlmann-Eltze, Huber and Anders (2025), Deep-learning-based gene perturbation effect prediction does not yet
    outperform simple linear baselines. *Nat. Methods* 22, 1657-1661.

    Examples
    --------
    >>> from perturbflow.flow import CellData
    >>> cells = CellData(
    ...     np.array([[1.0], [2.0], [4.0]]), np.array([[0, 0], [1, 0], [0, 1]]), np.zeros((3, 0), dtype=int)
    ... )
    >>> controls = np.zeros((1, 1), dtype=np.float32)
    >>> perturbation = np.array([1.0, 1.0])
    >>> AdditiveEffect().fit(cells).sample(controls, perturbation, np.zeros(0, dtype=int), rng=np.random.default_rng(0))
    array([[4.]], dtype=float32)
    """

    def _fit(self, groups: GroupEffects) -> None:
        self._mean = groups.effects.mean(axis=0)
        self._own: dict[tuple[tuple[int, ...], int], NDArray[np.float64]] = {}
        self._pooled: dict[int, NDArray[np.float64]] = {}

        is_component = groups.doses != 0
        of_component, of_context = defaultdict(list), defaultdict(list)
        for row in np.flatnonzero(is_component.sum(axis=1) == 1).tolist():
            component = int(is_component[row].argmax())
            of_component[component].append(row)
            of_context[groups.contexts[row], component].append(row)
        for component, rows in of_component.items():
            self._pooled[component] = _slope(groups, component, rows)
        for (context, component), rows in of_context.items():
            self._own[context, component] = _slope(groups, component, rows)
        self._fit_combinations(groups)

    def _fit_combinations(self, groups: GroupEffects) -> None:
        """Estimate the components that were never seen alone."""
        is_component = groups.doses != 0
        never_alone = is_component.any(axis=0)
        never_alone[list(self._pooled)] = False
        rows = np.flatnonzero(is_component[:, never_alone].any(axis=1))
        if not len(rows):
            return
        left_over = groups.effects[rows].copy()
        for effect, row in zip(left_over, rows, strict=True):
            for component in np.flatnonzero(is_component[row] & ~never_alone):
                effect -= groups.doses[row, component] * self._slope_of(int(component), groups.contexts[row])
        slopes = np.linalg.lstsq(groups.doses[np.ix_(rows, never_alone)], left_over)[0]
        self._pooled.update(zip(np.flatnonzero(never_alone).tolist(), slopes, strict=True))

    def _slope_of(self, component: int, context: tuple[int, ...]) -> NDArray[np.float64]:
        own = self._own.get((context, component))
        return self._pooled[component] if own is None else own

    def _shift(self, perturbation: NDArray[np.float64], context: tuple[int, ...]) -> NDArray[np.float64]:
        shift = np.zeros_like(self._mean)
        for component in np.flatnonzero(perturbation).tolist():
            if component in self._pooled:
                shift += perturbation[component] * self._slope_of(component, context)
            else:
                shift += self._mean
        return shift


def _slope(groups: GroupEffects, component: int, rows: list[int]) -> NDArray[np.float64]:
    doses = groups.doses[rows, component]
    return (doses @ groups.effects[rows]) / (doses @ doses)

"""The baseline that averages the effects of the components of a combination."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from perturbflow.baselines._covariate_mean import CovariateMean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perturbflow.baselines._group_effects import GroupEffects


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
    Viñas Torné et al. (2025), Systema: a framework for evaluating genetic perturbation response prediction beyond
    systematic variation. *Nat. Biotechnol.*, https://doi.org/10.1038/s41587-025-02777-8, section Nonparametric
    baselines.

    Examples
    --------
    >>> import numpy as np
    >>> from perturbflow.flow import CellData
    >>> cells = CellData(
    ...     np.array([[1.0], [2.0], [4.0]]), np.array([[0, 0], [1, 0], [0, 1]]), np.zeros((3, 0), dtype=int)
    ... )
    >>> controls = np.zeros((1, 1), dtype=np.float32)
    >>> perturbation = np.array([1.0, 1.0])
    >>> MatchingMean().fit(cells).sample(controls, perturbation, np.zeros(0, dtype=int), rng=np.random.default_rng(0))
    array([[2.]], dtype=float32)
    """

    def _fit(self, groups: GroupEffects) -> None:
        super()._fit(groups)
        self._groups = groups

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

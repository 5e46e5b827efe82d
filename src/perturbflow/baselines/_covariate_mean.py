"""The baseline that predicts one effect per context."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perturbflow.baselines._control_shift import ControlShift

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from perturbflow.baselines._group_effects import GroupEffects


class CovariateMean(ControlShift):
    """Control cells plus the mean effect of the perturbed training groups of the same context.

    ::

        shift = mean over perturbed groups of the context of ( mean(cells of the group) - mean(controls of the context) )

    A context is a combination of covariates. Contexts without perturbed training cells take the mean over all groups,
    as :class:`MeanEffect` does.

    *Weakness*: knows neither perturbation nor dose.

    Examples
    --------
    >>> import numpy as np
    >>> from perturbflow.flow import CellData
    >>> x, perturbations = np.array([[1.0], [2.0], [1.0], [4.0]]), np.array([[0.0], [1.0], [0.0], [1.0]])
    >>> cells = CellData(x, perturbations, np.array([[0], [0], [1], [1]]))
    >>> controls = np.zeros((1, 1), dtype=np.float32)
    >>> CovariateMean().fit(cells).sample(controls, np.ones(1), np.array([1]), rng=np.random.default_rng(0))
    array([[3.]], dtype=float32)
    """

    def _fit(self, groups: GroupEffects) -> None:
        self._mean = groups.effects.mean(axis=0)
        self._by_context = {
            context: groups.effects[[other == context for other in groups.contexts]].mean(axis=0)
            for context in set(groups.contexts)
        }

    def _shift(self, perturbation: NDArray[np.float64], context: tuple[int, ...]) -> NDArray[np.float64]:
        return self._by_context.get(context, self._mean)

"""The baseline that predicts one effect for all perturbations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perturbflow.baselines._control_shift import ControlShift

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from perturbflow.baselines._group_effects import GroupEffects


class MeanEffect(ControlShift):
    """Control cells plus the mean effect of all perturbed training groups.

    ::

        shift = mean over groups of ( mean(cells of the group) - mean(controls of its context) )

    A group is a perturbation (with its dose) in a context; every group counts once, whatever its number of cells.

    *Weakness*: knows neither perturbation nor context nor dose. It nevertheless wins where perturbations share a
    response, and shows how much of a score that response explains.

    Examples
    --------
    >>> import numpy as np
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

"""The baseline that predicts no effect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from perturbflow.baselines._control_shift import ControlShift
from perturbflow.baselines._group_effects import GroupEffects
from perturbflow.baselines._sampler import of_fit

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray

    from perturbflow.flow import CellData, GroupSums


class ControlCells(ControlShift):
    """Control cells as they are: the floor of every comparison.

    *Weakness*: hard to beat where a perturbation does little, since real cells carry everything but the effect.

    Examples
    --------
    >>> import numpy as np
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

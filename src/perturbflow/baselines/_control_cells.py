"""The baseline that predicts no effect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from perturbflow.baselines._shifted_controls import ShiftedControls

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perturbflow.flow import CellData


class ControlCells(ShiftedControls):
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

    def _fit(self, cells: CellData) -> None:
        self._n_genes = cells.n_genes

    def _shift(self, perturbation: NDArray[np.float64], context: tuple[int, ...]) -> NDArray[np.float64]:
        return np.zeros(self._n_genes)

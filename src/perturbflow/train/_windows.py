"""Cells of steps from windows of neighbouring cells, for files in which single cells are far apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BUFFER = 16_384  # cells that are shuffled together


class Windows:
    """Order of cells in training: drawn a window of neighbours at a time and shuffled among those of many windows.

    Some thousands of cells, from windows all over the cells, are shuffled and dealt out to the next steps; thus a file gives
    whole windows, and yet a step has cells of many of them, also where cells are stored condition by condition. Every window
    is drawn once before any is drawn again. Where the first one begins is drawn anew each time, so that neighbours part;
    the last one goes on at the beginning, and a few cells are then drawn twice. All follows from the seed and the
    number of the step.

    Examples
    --------
    >>> windows = Windows(n_cells=100_000, batch_size=4, width=64, seed=0)
    >>> windows.n_steps, len(windows.rows(0)), bool((windows.rows(0) == windows.rows(0)).all())
    (4096, 4, True)
    """

    def __init__(self, n_cells: int, batch_size: int, width: int, seed: int) -> None:
        self.n_cells, self.batch_size, self.seed = n_cells, batch_size, seed
        self.width = min(width, n_cells)
        self.n_steps = max(1, BUFFER // batch_size)
        """Steps whose cells are shuffled together."""
        self._n_windows = -(-n_cells // self.width)
        self._number = -1
        self._rows = np.zeros(0, dtype=np.int64)

    def rows(self, number: int) -> NDArray[np.int64]:
        """Cells of a step (batch_size,)."""
        if number // self.n_steps != self._number:
            self._number = number // self.n_steps
            self._rows = self._shuffled(self._number)
        place = number % self.n_steps * self.batch_size
        return self._rows[place : place + self.batch_size]

    def _shuffled(self, number: int) -> NDArray[np.int64]:
        """All cells of the steps that belong together."""
        n_drawn = -(-self.n_steps * self.batch_size // self.width)
        drawn = np.arange(number * n_drawn, (number + 1) * n_drawn)
        passes, places = np.divmod(drawn, self._n_windows)
        starts = np.empty(n_drawn, dtype=np.int64)
        for one in np.unique(passes):
            rng = np.random.default_rng([self.seed, 0, one])
            order, offset = rng.permutation(self._n_windows), rng.integers(self.width)
            own = passes == one
            starts[own] = order[places[own]] * self.width + offset
        rows = ((starts[:, None] + np.arange(self.width)) % self.n_cells).ravel()
        np.random.default_rng([self.seed, 1, number]).shuffle(rows)
        return rows

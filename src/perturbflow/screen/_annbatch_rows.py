"""Rows of a CSR matrix in a zarr store through annbatch, which reads many chunks at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from annbatch import Loader
from annbatch.abc import Sampler
from numpy.typing import NDArray
from scipy import sparse

from perturbflow.screen._expression import CsrInFile

GAP = 64  # rows that are read for nothing rather than to open a chunk once more, about as many as there are in one


class AnnbatchRows:
    """A CSR matrix in a zarr store: neighbouring rows are read together, and all that are far apart at once."""

    def __init__(self, values: Any) -> None:
        self.shape: tuple[int, int] = values.shape
        self._values = values
        self._asked = _Asked()
        self._loader = Loader(batch_sampler=self._asked, preload_to_gpu=False).add_dataset(values)

    def read(self, rows: NDArray[np.intp]) -> sparse.csr_matrix:
        """Return ascending, distinct rows."""
        if not len(rows):
            return CsrInFile(self._values).read(rows)
        runs = np.split(rows, np.flatnonzero(np.diff(rows) > GAP) + 1)
        self._asked.rows = np.concatenate([np.arange(run[0], run[-1] + 1) for run in runs])
        self._asked.places = np.searchsorted(self._asked.rows, rows)
        (batch,) = self._loader
        return batch["X"]


class _Asked(Sampler):
    """Reader of annbatch: one batch, the rows that were asked for."""

    rows: NDArray[np.intp]
    places: NDArray[np.intp]

    @property
    def batch_size(self) -> int:
        return len(self.places)

    @property
    def shuffle(self) -> bool:
        return False

    def n_batches(self, n_obs: int) -> int:
        del n_obs
        return 1

    def validate(self, n_obs: int) -> None:
        """Rows are checked by who asks."""

    def _sample(self, n_obs: int) -> Iterator[Any]:
        del n_obs
        yield {"requests": self.rows, "splits": [self.places]}

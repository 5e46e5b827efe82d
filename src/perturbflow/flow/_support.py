"""Support of every gene: the values that it has in real cells."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from numpy.typing import NDArray

    from perturbflow.flow._data import Expression


@dataclass(frozen=True, eq=False)
class GeneSupport:
    """Smallest and largest value of every gene among the cells that express it.

    Log-normalised counts have no values between zero and that of a single molecule, and a mean that is moved far can
    take a few cells beyond anything that was seen: predictions with such values are cells that could not be measured.

    Parameters
    ----------
    smallest
        Smallest value above 0 (G,); 0 for a gene that no cell expresses.
    largest
        Largest value (G,); infinite for a gene that no cell expresses, of which nothing is known.
    zero_below
        Values below it are zeros (G,), see :func:`zero_thresholds`; 0 for predictions that have their zeros.

    Examples
    --------
    >>> import numpy as np
    >>> import perturbflow as pf
    >>> support = pf.flow.GeneSupport.of([np.array([[0.0, 1.0], [0.7, 3.0]], dtype=np.float32)])
    >>> support.within(np.array([[0.2, 0.0], [0.9, 3.5]], dtype=np.float32)).round(1).tolist()
    [[0.7, 0.0], [0.7, 3.0]]
    """

    smallest: NDArray[np.float32]
    largest: NDArray[np.float32]
    zero_below: NDArray[np.float32] | float = 0.0

    @classmethod
    def unknown(cls, n_genes: int) -> Self:
        """Any value that is not negative.

        Parameters
        ----------
        n_genes
            Number of genes G.

        Returns
        -------
        Support that leaves all values as they are.
        """
        return cls(np.zeros(n_genes, dtype=np.float32), np.full(n_genes, np.inf, dtype=np.float32))

    @classmethod
    def of(cls, chunks: Iterable[Expression]) -> Self:
        """Look at cells.

        Parameters
        ----------
        chunks
            Cells (n, G), arrays or CSR matrices, at least one.

        Returns
        -------
        What they have.
        """
        smallest, largest = np.zeros((2, 0), dtype=np.float32)
        for x in chunks:
            if not len(largest):
                smallest = np.full(x.shape[1], np.inf, dtype=np.float32)
                largest = np.full(x.shape[1], -np.inf, dtype=np.float32)
            if isinstance(x, np.ndarray):
                np.minimum(smallest, np.where(x > 0, x, np.inf).min(axis=0, initial=np.inf), out=smallest)
                np.maximum(largest, np.where(x > 0, x, -np.inf).max(axis=0, initial=-np.inf), out=largest)
            else:
                is_on = x.data > 0
                np.minimum.at(smallest, x.indices[is_on], x.data[is_on])
                np.maximum.at(largest, x.indices[is_on], x.data[is_on])
        known = np.isfinite(largest)
        return cls(np.where(known, smallest, 0).astype(np.float32), np.where(known, largest, np.inf).astype(np.float32))

    def rounded(self) -> Self:
        """Take values for zeros that are nearer to zero than to the smallest, as if molecules were counted.

        Returns
        -------
        Support with these thresholds.
        """
        return replace(self, zero_below=self.smallest / np.float32(2))

    def within(self, cells: NDArray[np.float32], controls: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Bring values to the nearest that were seen; from the threshold of zeros on, a gene stays expressed.

        Parameters
        ----------
        cells
            Predicted cells (n, G).
        controls
            Control cells that they start from (m, G), whose values were seen, too.

        Returns
        -------
        The cells, changed in place.
        """
        smallest, largest = self.smallest, self.largest
        if controls is not None and len(controls):
            smallest = np.minimum(smallest, np.where(controls > 0, controls, np.inf).min(axis=0))
            largest = np.maximum(largest, controls.max(axis=0))
        cells[(cells > 0) & (cells < self.zero_below)] = 0
        np.minimum(cells, largest, out=cells)
        np.maximum(cells, smallest, out=cells, where=cells > 0)
        return cells

    def to_arrays(self) -> dict[str, NDArray]:
        """The support as named arrays.

        Returns
        -------
        Every field by its name; infinite values as 0, which no gene has as its largest.
        """
        finite = np.where(np.isfinite(self.largest), self.largest, 0).astype(np.float32)
        below = np.broadcast_to(np.float32(self.zero_below), finite.shape)
        return {"smallest": self.smallest, "largest": finite, "zero_below": below.copy()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray]) -> Self:
        """Rebuild the support from :meth:`to_arrays`.

        Parameters
        ----------
        arrays
            Every array by name.

        Returns
        -------
        The support.
        """
        found = {field.name: np.asarray(arrays[field.name]) for field in fields(cls)}
        largest = np.where(found["largest"] > 0, found["largest"], np.inf).astype(np.float32)
        return cls(**found | {"largest": largest})

"""Support of every gene: the values that it has in real cells, and which small ones are zeros."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from perturbflow.flow._data import Expression


@dataclass(frozen=True, eq=False)
class GeneSupport:
    """Smallest and largest value of every gene among the cells that express it.

    Log-normalised counts have no values between zero and that of a single molecule, and a mean that is moved far can
    take cells beyond anything that was seen: these could not be measured.
    """

    smallest: NDArray[np.float32]  # value above 0 (G,); 0 for a gene that no cell expresses
    largest: NDArray[np.float32]  # value (G,); infinite for a gene that no cell expresses
    zero_below: NDArray[np.float32] | float = 0.0  # of zeros (G,), see `zero_thresholds`; 0 for none

    @classmethod
    def unknown(cls, n_genes: int) -> Self:
        """Support that leaves all values that are not negative as they are."""
        return cls(np.zeros(n_genes, dtype=np.float32), np.full(n_genes, np.inf, dtype=np.float32))

    @classmethod
    def of(cls, chunks: Iterable[Expression]) -> Self:
        """Support of cells, in chunks (n, G) of arrays or CSR matrices, at least one."""
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
        """Take values for zeros that are nearer to zero than to the smallest, as if molecules were counted."""
        return replace(self, zero_below=self.smallest / np.float32(2))

    def within(self, cells: NDArray[np.float32], controls: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Bring cells (n, G) in place to the nearest values seen, those of their controls (m, G) among them.

        From the threshold of zeros on, a gene stays expressed.
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
        """Every field by its name; infinite values as 0, which no gene has as its largest."""
        finite = np.where(np.isfinite(self.largest), self.largest, 0).astype(np.float32)
        below = np.broadcast_to(np.float32(self.zero_below), finite.shape)
        return {"smallest": self.smallest, "largest": finite, "zero_below": below.copy()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray]) -> Self:
        """Rebuild the support from :meth:`to_arrays`."""
        found = {field.name: np.asarray(arrays[field.name]) for field in fields(cls)}
        largest = np.where(found["largest"] > 0, found["largest"], np.inf).astype(np.float32)
        return cls(**found | {"largest": largest})


def zero_thresholds(predicted: NDArray[np.floating], expressed: NDArray[np.floating]) -> NDArray[np.float32]:
    """Thresholds below which predicted values are zero, so that as many are expressed as in real cells.

    A velocity without a distribution of the gene is a smooth function of noise: where real cells have an exact zero,
    its cells have a small value of either sign. The threshold of a gene is the quantile of its predicted values, over
    all conditions at once, that leaves the real share of cells above.

    Parameters
    ----------
    predicted
        Predicted cells (n, G) of conditions with as many cells as the real ones have in proportion.
    expressed
        Share of real cells of these conditions that express the gene (G,).

    Returns
    -------
    Thresholds (G,), not negative: values below them are zero.

    Raises
    ------
    ValueError
        If there are no cells, or not one share per gene, between 0 and 1.

    Examples
    --------
    >>> import perturbflow as pf
    >>> predicted = np.array([[0.1, 2.0], [-0.1, 3.0], [0.2, 4.0], [1.5, 5.0]])
    >>> pf.flow.zero_thresholds(predicted, np.array([0.25, 1.0])).tolist()  # one cell of four, and all of them
    [1.5, 2.0]
    """
    n_cells, n_genes = predicted.shape
    if not n_cells:
        msg = "Expected predicted cells, found none. Predict cells for every training condition."
        raise ValueError(msg)
    share = np.asarray(expressed, dtype=np.float64)
    if share.shape != (n_genes,) or not ((share >= 0) & (share <= 1)).all():
        msg = (
            f"Expected `expressed` to be {n_genes} shares between 0 and 1, one per gene, found shape {share.shape} with values "
            f"from {share.min(initial=np.inf):g} to {share.max(initial=-np.inf):g}. Use the means of `x > 0`."
        )
        raise ValueError(msg)
    n_zeros = np.rint(n_cells * (1 - share)).astype(int)
    ordered = np.sort(np.maximum(predicted, 0), axis=0).astype(np.float32)
    above = np.nextafter(ordered[-1:], np.float32(np.inf))
    return np.take_along_axis(np.vstack([ordered, above]), n_zeros[None], axis=0)[0]

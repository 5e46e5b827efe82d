"""Mean expression that was measured in a condition, found by what was done and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from perturbflow.flow import GroupSums
from perturbflow.flow._grouping import group_keys
from perturbflow.screen._fields import read_screen, text_column

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData
    from numpy.typing import NDArray

    from perturbflow.predict._fitted_flow import FittedFlow
    from perturbflow.screen._conditions import Vocabulary
    from perturbflow.screen._screen import Screen


@dataclass(frozen=True, eq=False)
class MeasuredMean:
    """Mean expression of some cells and its sampling variance (G,), and how many they are."""

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    n_cells: int


class MeasuredMeans:
    """Means of the cells of conditions, all from one pass over those that are asked for.

    Conditions that will be asked for are those with the ``doses`` (n, P), and controls; with fewer than ``min_cells``
    they count as not measured. With a ``readout``, weights of genes (G,), means are those of the weighted sum of every
    cell, one number in the place of genes.
    """

    def __init__(
        self,
        screen: Screen,
        doses: NDArray[np.float32],
        *,
        min_cells: int,
        readout: NDArray[np.float64] | None = None,
    ) -> None:
        wanted = {*_keys(sparse.csr_matrix(doses)), *_keys(sparse.csr_matrix((1, doses.shape[1]), dtype=np.float32))}
        is_wanted = np.array([name in wanted for name in _keys(screen.distinct)], dtype=bool)
        n_values = screen.n_genes if readout is None else 1
        sums = GroupSums.empty(n_values, screen.distinct.shape[1], screen.covariates.shape[1])
        for chunk in screen.chunks(np.flatnonzero(is_wanted[screen.codes])):
            x = chunk.x if readout is None else np.asarray(chunk.x @ readout)[:, None]
            sums.add(x, chunk.perturbations, chunk.covariates)
        self._sums, self._min_cells = sums, max(min_cells, 2)
        self._rows = {name: row for row, name in enumerate(group_keys(sums.doses, sums.covariates))}

    def of(self, doses: NDArray[np.floating], covariates: NDArray[np.integer]) -> MeasuredMean | None:
        """The cells of a condition by doses (P,), all zero for controls, and covariates (K,); None if too few."""
        asked = sparse.csr_matrix(np.asarray(doses, dtype=np.float32)[None])
        (name,) = group_keys(asked, np.asarray(covariates, dtype=np.int64)[None])
        row = self._rows.get(name)
        if row is None or self._sums.n_cells[row] < self._min_cells:
            return None
        n = int(self._sums.n_cells[row])
        mean = self._sums.total[row] / n
        variance = np.maximum(self._sums.squares[row] / n - np.square(mean), 0) / (n - 1)
        return MeasuredMean(mean, variance, n)


def measured_screen(adata: AnnData, flow: FittedFlow, vocabulary: Vocabulary) -> Screen | None:
    """Cells whose perturbation a flow knows, in any split; None where ``adata`` says of no cell what was done to it."""
    fields = flow.fields
    columns = (fields.perturbation_key, fields.dose_key, fields.perturbation_type_key)
    if any(column is not None and column not in adata.obs for column in columns):
        return None
    labels = text_column(adata, fields.perturbation_key)
    distinct = () if fields.perturbation_type_key else set(labels.tolist())
    unknown = [label for label in distinct if flow.vocabulary.known(label) is None]
    rows = np.flatnonzero(~np.isin(labels.astype(str), sorted(unknown))) if unknown else None
    return read_screen(adata, genes=flow.genes, fields=fields, vocabulary=vocabulary, rows=rows)


def _keys(doses: sparse.csr_matrix) -> Iterator[tuple[bytes, bytes, bytes]]:
    return group_keys(doses, np.zeros((doses.shape[0], 0), dtype=np.int64))

"""A screen: what was done to every cell, encoded once, beside expression that stays where it is stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from perturbflow.flow import CellData, Grouping, GroupSums
from perturbflow.screen._expression import ROWS_AT_ONCE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from scipy import sparse

    from perturbflow.screen._expression import Expression
    from perturbflow.screen._fields import PerturbationFields


@dataclass(frozen=True, eq=False)
class Screen:
    """Cells with numbers for what was done to them, as :class:`perturbflow.flow.CellData`, read when asked for."""

    fields: PerturbationFields  # where the AnnData says it
    x: Expression  # expression (n, G)
    distinct: sparse.csr_matrix  # doses (m, P), a row for every label, dose and type; not necessarily different
    codes: NDArray[np.intp]  # the row of `distinct` of every cell (n,)
    covariates: NDArray[np.int64]  # codes of the covariates (n, K)

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def n_genes(self) -> int:
        """Number of genes G."""
        return self.x.n_vars

    @cached_property
    def perturbations(self) -> sparse.csr_matrix:
        """Dose of every component in every cell: CSR (n, P)."""
        return self.distinct[self.codes]

    def grouping(self) -> Grouping:
        """Divide the cells by what was done to them and their context, as :meth:`perturbflow.flow.CellData.grouping`."""
        return Grouping.of(self.perturbations, self.covariates)

    @property
    def is_control(self) -> NDArray[np.bool_]:
        """Return whether nothing was done to a cell (n,)."""
        return (self.distinct.getnnz(axis=1) == 0)[self.codes]

    def part(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Screen:
        """Return some cells, in the order of ``rows``, whose expression stays where it is stored."""
        return Screen(self.fields, self.x.part(rows=rows), self.distinct, self.codes[rows], self.covariates[rows])

    def subset(self, rows: NDArray[np.integer] | NDArray[np.bool_] | None = None) -> CellData:
        """Read cells, by default all, into memory, in the order of ``rows``."""
        if rows is None:
            return CellData(self.x.take(), self.perturbations, self.covariates)
        return CellData(self.x[rows], self.distinct[self.codes[rows]], self.covariates[rows])

    def chunks(
        self, rows: NDArray[np.integer] | NDArray[np.bool_] | None = None, n_cells: int = ROWS_AT_ONCE
    ) -> Iterator[CellData]:
        """Read cells, by default all, a chunk at a time, in the order of ``rows``."""
        for some, block in self.x.chunks(rows, n_cells):
            yield CellData(block, self.distinct[self.codes[some]], self.covariates[some])


def sums_of_parts(screen: Screen, n_parts: int, *, seed: int, apart: int | None = None) -> list[GroupSums]:
    """Sums over random parts of every group of cells, in one pass; beyond ``apart`` parts all are summed together."""
    part = _even_parts(screen.grouping(), n_parts, np.random.default_rng(seed))
    if apart is not None:
        part, n_parts = np.minimum(part, apart), min(n_parts, apart + 1)
    n_components, n_covariates = screen.distinct.shape[1], screen.covariates.shape[1]
    sums = [GroupSums.empty(screen.n_genes, n_components, n_covariates) for _ in range(n_parts)]
    for rows, block in screen.x.chunks():
        for number, own in enumerate(sums):
            members = np.flatnonzero(part[rows] == number)
            some = rows[members]
            own.add(block[members], screen.distinct[screen.codes[some]], screen.covariates[some])
    return sums


def _even_parts(grouping: Grouping, n_parts: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Number of the part of every cell (n,)."""
    n_cells, codes = grouping.n_cells, grouping.codes
    order = np.lexsort([rng.random(len(codes)), codes])
    rank = np.arange(len(codes)) - np.repeat(grouping.starts[:-1], n_cells)
    part = np.empty(len(codes), dtype=np.intp)
    # Groups of fewer cells than parts should not all be in the first ones.
    part[order] = (rank + np.repeat(rng.integers(n_parts, size=len(n_cells)), n_cells)) % n_parts
    return part

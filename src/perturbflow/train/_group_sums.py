"""Sums over the cells of every group, in one pass over cells that need not be in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from perturbflow.flow import GroupSums

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perturbflow.flow import Grouping
    from perturbflow.screen._screen import Screen


def sums_of_parts(screen: Screen, n_parts: int, *, seed: int, apart: int | None = None) -> list[GroupSums]:
    """Sums over random parts of the cells, among which the cells of every group are divided evenly.

    A chunk of the cells is read at a time. Only ``apart`` parts are needed, by default all: the others are summed
    together, which takes less memory.
    """
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

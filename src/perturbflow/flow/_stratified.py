"""Random numbers spread evenly over the cells of a batch, gene by gene: independent ones are too few to show means.

Stratified or Latin hypercube sampling (McKay, Beckman and Conover, Technometrics 1979) leaves every cell what it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

if TYPE_CHECKING:
    from numpy.typing import NDArray


def stratified_uniforms(members: NDArray[np.bool_], *, rng: np.random.Generator) -> NDArray[np.float32]:
    """Uniform numbers (n, G), stratified apart over the members (n, G) and the others of every column.

    A number below s occurs in ``m s`` of m members, rounded up or down at random with the right mean.
    """
    n_cells, n_genes = members.shape
    by_gene = np.ascontiguousarray(members.T)
    keys = rng.random((n_genes, n_cells), dtype=np.float32)
    keys += by_gene
    order = keys.argsort(axis=1)
    place = np.empty((n_genes, n_cells), dtype=np.float32)
    np.put_along_axis(place, order, np.arange(n_cells, dtype=np.float32)[None], axis=1)
    n_members = by_gene.sum(axis=1, dtype=np.float32)[:, None]
    n_others = n_cells - n_members
    # Members come last in the order.
    place -= n_others * by_gene
    place += rng.random((n_genes, 1), dtype=np.float32)
    place /= np.maximum(np.where(by_gene, n_members, n_others), 1)
    return place.T


def stratified_normals(shape: tuple[int, int], *, rng: np.random.Generator) -> NDArray[np.float32]:
    """Standard normal numbers (n, G), stratified over the rows of every column."""
    uniforms = stratified_uniforms(np.zeros(shape, dtype=bool), rng=rng)
    return ndtri(np.clip(uniforms, 1e-7, 1 - 1e-7)).astype(np.float32)

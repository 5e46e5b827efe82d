"""Random numbers that are spread evenly over the cells of a batch, gene by gene.

A few hundred predicted cells are too few for independent draws to show a model's means: a gene that 2 % of cells express
is expressed by 2 ± 1.4 of 100. Numbers drawn one from each of n equal intervals leave every cell what it is and take most
of that luck out of the batch (stratified or Latin hypercube sampling; McKay, Beckman and Conover, Technometrics 1979).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

if TYPE_CHECKING:
    from numpy.typing import NDArray


def stratified_uniforms(members: NDArray[np.bool_], *, rng: np.random.Generator) -> NDArray[np.float32]:
    """Uniform numbers, stratified apart over the members and the others of every column.

    A number below s occurs in ``m s`` of m members, rounded up or down at random with the right mean.

    Parameters
    ----------
    members
        Which cells belong together (n, G).
    rng
        Source of randomness.

    Returns
    -------
    Numbers between 0 and 1 (n, G).
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
    """Standard normal numbers, stratified over the rows of every column.

    Parameters
    ----------
    shape
        Number of cells n and of genes G.
    rng
        Source of randomness.

    Returns
    -------
    Numbers (n, G).
    """
    uniforms = stratified_uniforms(np.zeros(shape, dtype=bool), rng=rng)
    return ndtri(np.clip(uniforms, 1e-7, 1 - 1e-7)).astype(np.float32)

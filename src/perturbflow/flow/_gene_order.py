"""An order of the genes in which neighbours vary together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perturbflow.flow._data import Expression

_RANK = 32
_POWER_ITERATIONS = 4


def coexpression_order(x: Expression) -> NDArray[np.intp]:
    """Order genes so that correlated genes become neighbours.

    Genes are placed in a low-rank embedding whose inner products are their correlations, cut to the components above
    the noise, and split in two again and again: along the direction of their largest spread, where the two parts are
    compactest, with the part nearer to what already stands on the left coming first. Time and memory are linear in
    cells and, up to a logarithm, in genes.

    Parameters
    ----------
    x
        Expression (n, G), an array or a CSR matrix.

    Returns
    -------
    Permutation (G,): the gene at every position. Genes that do not vary come last.

    Raises
    ------
    ValueError
        If there are fewer than two cells, or entries are not finite.

    Notes
    -----
    The components kept have singular values above sqrt(n) + sqrt(G), the edge for independent standardised entries
    (Marchenko and Pastur 1967); the split is principal direction divisive partitioning (Boley 1998,
    doi:10.1023/A:1009740529316) with the cut of Otsu (1979, doi:10.1109/TSMC.1979.4310076).

    Examples
    --------
    >>> import numpy as np
    >>> factors = np.random.default_rng(0).standard_normal((200, 2))
    >>> coexpression_order(factors[:, [0, 1, 0, 1]]).tolist()
    [0, 2, 1, 3]
    """
    if x.ndim != 2 or x.shape[0] < 2:
        msg = f"Expected expression of at least 2 cells (n, G), found shape {x.shape}."
        raise ValueError(msg)
    if not np.isfinite(x.data if sparse.issparse(x) else x).all():
        msg = "Expected finite expression, found NaN or infinity. Remove or fill such entries."
        raise ValueError(msg)
    embedding, varies = _correlation_embedding(x)
    order = np.flatnonzero(varies)
    parts = [order] if len(order) else []
    placed: list[NDArray[np.intp]] = []
    left = embedding[order[0]] if len(order) else np.zeros(0)
    while parts:
        part = parts.pop()
        first, second = _split(embedding, part, left)
        if len(second):
            parts += [second, first]
        else:
            placed.append(first)
            left = embedding[first].mean(axis=0)
    return np.concatenate([*placed, np.flatnonzero(~varies)])


def _correlation_embedding(x: Expression) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Embedding of genes (G, r) whose inner products are correlations up to noise, and which genes vary (G,)."""
    n, n_genes = x.shape
    x = x.astype(np.float64)
    mean = np.asarray(x.mean(axis=0)).ravel()
    square = np.asarray((sparse.csr_array(x).power(2) if sparse.issparse(x) else x**2).mean(axis=0)).ravel()
    variance = square - mean**2
    varies = variance > 1e-10 * square
    scale = np.zeros(n_genes)
    scale[varies] = 1 / np.sqrt(variance[varies])

    # Randomised singular value decomposition (Halko et al. 2011) of the standardised matrix, never formed.
    def times(right: NDArray[np.float64]) -> NDArray[np.float64]:
        right = scale[:, None] * right
        return x @ right - mean @ right

    def transposed_times(right: NDArray[np.float64]) -> NDArray[np.float64]:
        return scale[:, None] * (x.T @ right - np.outer(mean, right.sum(axis=0)))

    basis = np.random.default_rng(0).standard_normal((n_genes, min(2 * _RANK, n, n_genes)))
    for _ in range(_POWER_ITERATIONS):
        basis = np.linalg.qr(transposed_times(np.linalg.qr(times(basis))[0]))[0]
    _, values, right = np.linalg.svd(times(basis), full_matrices=False)
    n_kept = max(1, int((values[:_RANK] > np.sqrt(n) + np.sqrt(n_genes)).sum()))
    return basis @ right[:n_kept].T * values[:n_kept] / np.sqrt(n), varies


def _split(
    embedding: NDArray[np.float64], part: NDArray[np.intp], left: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Two parts, the one nearer to ``left`` first; the second is empty where the genes are in one place."""
    points = embedding[part]
    points = points - points.mean(axis=0)
    direction = np.linalg.eigh(points.T @ points)[1][:, -1]
    along = points @ direction
    by_position = np.argsort(along, kind="stable")
    position = along[by_position]
    if not position[-1] - position[0] > 1e-9:
        return part, part[:0]
    size = np.arange(1, len(part))
    # Between-part sum of squares of every cut; the positions sum to zero.
    between = np.cumsum(position)[:-1] ** 2 / (size * (len(part) - size))
    cut = int(np.argmax(between)) + 1
    low, high = np.sort(part[by_position[:cut]]), np.sort(part[by_position[cut:]])
    distances = [np.linalg.norm(embedding[half].mean(axis=0) - left) for half in (low, high)]
    return (low, high) if distances[0] <= distances[1] else (high, low)

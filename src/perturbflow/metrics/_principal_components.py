"""Principal components of reference cells, and the cosine of mean vectors in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.sparse.linalg import aslinearoperator, svds

from perturbflow._checks import check_whole_number
from perturbflow.metrics._cells import Cells, check_cells
from perturbflow.metrics._distances import Centred
from perturbflow.metrics._moments import Moments

MAX_COVARIANCE_GENES = 4000
ROWS = 4096
RELATIVE_ZERO = 1e-12


@dataclass(frozen=True, eq=False)
class PrincipalComponents:
    """Directions of largest variance of reference cells, by falling variance; the largest loading of each is positive."""

    mean: NDArray[np.float64]  # of every gene in the reference cells (G,)
    loadings: NDArray[np.float64]  # orthonormal directions (K, G)
    variance: NDArray[np.float64]  # of the reference cells along each (K,), ddof 1

    @classmethod
    def of(cls, cells: Cells, *, n_components: int = 100) -> Self:
        """Fit to reference cells (n, G); no more than n - 1 or G components, none without variance.

        Up to 4,000 genes the eigenvectors of the covariance matrix, beyond them the singular vectors of the centred
        cells by Lanczos iteration to machine precision, from a fixed start. Sparse cells are not made dense as a whole.
        """
        check_whole_number(n_components, name="n_components", least=1)
        cells = check_cells(cells, name="cells", minimum=2)
        moments = Moments.of(cells)
        mean, spread = moments.mean, float(moments.variance.sum())
        if spread <= RELATIVE_ZERO**2 * float(mean @ mean):  # what rounding leaves of equal cells
            msg = "Expected cells that differ, found identical values in all of `cells`. Pass cells of more conditions."
            raise ValueError(msg)
        n_cells, n_genes = cells.shape
        if n_genes <= MAX_COVARIANCE_GENES:
            k = min(n_components, n_cells - 1, n_genes)
            covariance = _covariance(cells, mean)
            variance, vectors = linalg.eigh(covariance, subset_by_index=(n_genes - k, n_genes - 1), overwrite_a=True)
            variance, loadings = variance[::-1], vectors.T[::-1]
        else:
            k = min(n_components, n_cells - 1, n_genes - 1)
            start = np.random.default_rng(0).normal(size=min(cells.shape))
            means = aslinearoperator(np.ones((n_cells, 1))) @ aslinearoperator(mean[None])
            _, values, loadings = svds(aslinearoperator(cells) - means, k=k, v0=start, return_singular_vectors="vh")
            order = np.argsort(-values)
            variance, loadings = values[order] ** 2 / (n_cells - 1), loadings[order]
        kept = variance > RELATIVE_ZERO * spread
        variance, loadings = variance[kept], loadings[kept]
        largest = np.abs(loadings).argmax(axis=1)
        signs = np.sign(loadings[np.arange(len(loadings)), largest])
        return cls(mean, np.ascontiguousarray(loadings * signs[:, None]), variance)

    def project(self, cells: Cells) -> NDArray[np.float64]:
        """Coordinates (n, K) of cells, or of their means, from the mean of the reference cells."""
        if not isinstance(cells, np.ndarray):
            return np.asarray(cells @ self.loadings.T) - self.loadings @ self.mean
        starts = range(0, cells.shape[0], ROWS)
        return np.concatenate([(cells[start : start + ROWS] - self.mean) @ self.loadings.T for start in starts])


def cosine_in_components(predicted: NDArray[np.float64], observed: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosine () or (P,) between predicted and observed means (K,) or (P, K) in principal components of the reference cells.

    PerturBench's ``cosine_pca_average`` (Wu et al. 2024): 0 for a prediction that is the origin, the mean of all reference
    cells, and NaN where the reference is (PerturBench leaves both undefined).

    *Weakness*: measured from the centre of all cells and not from the controls: what separates the cell type or batch
    of a condition from the rest counts as effect, so copying the controls scores well wherever there are several
    contexts. Depends on which cells the components were fitted to, and their mixture; small effects lie outside of the
    first components.
    """
    x, y = _directions(predicted, observed)
    return np.clip(np.einsum("...k,...k->...", x, y), -1.0, 1.0)


def cross_cosine_in_components(predicted: NDArray[np.float64], observed: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosine (P, Q) between all predicted means (P, K), the rows, and all observed ones (Q, K) in principal components."""
    x, y = _directions(predicted, observed)
    return np.clip(x @ y.T, -1.0, 1.0)


def _directions(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Vectors of length 1; those without direction become 0 in ``x`` and NaN in ``y``."""
    norms_x, norms_y = (np.linalg.norm(vectors, axis=-1, keepdims=True) for vectors in (x, y))
    # What rounding leaves of a mean that is the origin has no direction.
    zero = RELATIVE_ZERO * max(norms_x.max(), norms_y.max())
    return (
        np.divide(x, norms_x, out=np.zeros_like(x), where=norms_x > zero),
        np.divide(y, norms_y, out=np.full_like(y, np.nan), where=norms_y > zero),
    )


def _covariance(cells: Cells, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    total = np.zeros((len(mean), len(mean)))
    for start in range(0, cells.shape[0], ROWS):
        block, _ = Centred(cells, mean).block(slice(start, start + ROWS))
        total += block.T @ block
    return total / (cells.shape[0] - 1)

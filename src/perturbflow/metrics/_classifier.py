"""Classifier two-sample tests: how well predicted cells are told from real ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from perturbflow.metrics._cells import Cells, check_samples, dense
from perturbflow.metrics._families import of_cells
from perturbflow.metrics._ranking import auroc_of

N_COMPONENTS = 20
MOST_CELLS = 1000
N_VARIABLE = 2000


@of_cells
def classifier_auroc(x: Cells, y: Cells) -> float:
    """AUROC of a classifier that tells predicted from real cells by their neighbours.

    Cells of both are looked at in the first 20 principal components that they have together, of standardised genes. The
    score of a cell is the share of predicted cells among its ``sqrt(n + m)`` nearest neighbours, itself left out; the AUROC is
    the probability that a predicted cell has a higher one than a real cell.

    *Direction*: lower is better. *Range*: 0 to 1; 0.5 where they cannot be told apart, slightly less by chance because
    a cell is not its own neighbour, and far less where predictions repeat real cells. NaN if no gene varies.

    *Weakness*: a small difference in every cell is as bad as a large one, so that an otherwise good prediction without
    exact zeros has a value of 1. The nearest neighbours of cells in sparse data are the cells with as few counts.

    Parameters
    ----------
    x
        Predicted cells (n, G); of more than 1,000, evenly spaced ones.
    y
        Real cells (m, G); the same.

    References
    ----------
    Lopez-Paz and Oquab (2017), Revisiting classifier two-sample tests, ICLR; Schilling (1986), Multivariate two-sample tests
    based on nearest neighbors, *J. Am. Stat. Assoc.* 81, 799-806.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = rng.normal(size=(200, 5))
    >>> classifier_auroc(y + 10, y)
    1.0
    """
    x, y = check_samples(x=x, y=y, minimum=2)
    both = np.concatenate([_some(x), _some(y)])
    is_predicted = np.arange(len(both)) < min(x.shape[0], MOST_CELLS)
    centred = both - both.mean(axis=0)
    deviation = centred.std(axis=0)
    genes = np.argsort(-deviation, kind="stable")[:N_VARIABLE]
    genes = genes[deviation[genes] > 1e-9 * np.maximum(np.abs(both[:, genes]).max(axis=0), 1)]
    if not len(genes):
        return float("nan")
    scaled = centred[:, genes] / deviation[genes]
    left, sizes, _ = np.linalg.svd(scaled, full_matrices=False)
    return auroc_of(_shares(left[:, :N_COMPONENTS] * sizes[:N_COMPONENTS], is_predicted), is_predicted)


def _some(cells: Cells) -> NDArray[np.float64]:
    chosen = np.unique(np.linspace(0, cells.shape[0] - 1, min(cells.shape[0], MOST_CELLS)).astype(np.intp))
    return dense(cells[chosen])


def _shares(points: NDArray[np.float64], is_predicted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of predicted cells among the neighbours of every cell (n,)."""
    n_neighbours = min(max(round(np.sqrt(len(points))), 1), len(points) - 1)
    distances = cdist(points, points)
    np.fill_diagonal(distances, np.inf)
    nearest = np.argpartition(distances, n_neighbours - 1)[:, :n_neighbours]
    return is_predicted[nearest].mean(axis=1)

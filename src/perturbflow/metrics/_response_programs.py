"""Response programs: metrics of the dependence between the genes of a response."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perturbflow.metrics._cells import Cells
from perturbflow.metrics._energy import energy_distance
from perturbflow.metrics._families import of_cells
from perturbflow.metrics._response_axis import ResponseAxis, checked, dense

N_RESPONDING = 30
N_GENES = 100
N_PROGRAMS = 5


@of_cells
def error_of_response_correlation(x: Cells, y: Cells, control: Cells, *, n_top: int = N_RESPONDING) -> float:
    """Absolute error of the mean correlation between the genes of a response.

    The mean correlation, ``mean over pairs g < h of sign_g sign_h R_gh`` for the ``n_top`` genes that differ most between
    real and control cells (Welch's t), with the sign of their change, is positive where cells that respond in one gene
    respond in the others. This is its difference between predicted and real cells, for the same genes.

    *Direction*: lower is better. *Range*: 0 to 2. Moving every gene for itself has the whole real correlation as its error.

    *Weakness*: a mean over pairs, which is precise but says nothing of their pattern; see
    :func:`agreement_of_correlations`.

    Parameters
    ----------
    n_top
        Number of genes.

    Returns
    -------
    The error; NaN if fewer than 2 genes differ between real and control cells.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> control = rng.normal(size=(100, 2))
    >>> y = control + np.repeat([[0.0, 0.0], [6.0, 6.0]], 50, axis=0)
    >>> shuffled = np.column_stack([rng.permutation(values) for values in y.T])
    >>> error_of_response_correlation(y, y, control), error_of_response_correlation(shuffled, y, control) > 0.7
    (0.0, True)
    """
    x, y, control = checked(x, y, control)
    genes, sign = _responding(ResponseAxis.of(y, control), n_top)
    return abs(_mean_correlation(x, genes, sign) - _mean_correlation(y, genes, sign))


@of_cells
def energy_in_programs(x: Cells, y: Cells, control: Cells) -> float:
    """Energy distance in the space of a response: its direction, and what varies along with it.

    Cells are looked at in the 100 genes that differ most between real and control cells (Welch's t), in units of
    their standard deviation: along the direction of the change, and along those of the first 5 principal components of the
    real cells that vary more than independent genes would. Every coordinate has unit variance over the real cells. In this space :func:`energy_distance`, unbiased, sees who
    responds and what rises together, which many independent genes hide from it in the space of all genes.

    *Direction*: lower is better. *Range*: 0 for equal distributions, below it by chance.

    *Weakness*: the space is that of the real cells, in which they are a little farther apart from new cells of
    their own distribution than in others. Changes that no program of these has are not seen.

    Returns
    -------
    The energy distance; NaN if no gene differs between real and control cells.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> control = rng.normal(size=(300, 10))
    >>> y, again = (rng.normal(size=(300, 10)) + 4 * rng.integers(2, size=(300, 1)) for _ in range(2))
    >>> energy_in_programs(control + 2, y, control) > 0.3 > 0.03 > energy_in_programs(again, y, control)
    True
    """
    x, y, control = checked(x, y, control)
    axis = ResponseAxis.of(y, control)
    genes = axis.most_changed(N_GENES)
    if not len(genes) or np.isnan(axis.origin):
        return float("nan")
    unit = axis.deviation[genes]
    real = dense(y, genes) / unit
    centre = real.mean(axis=0)
    _, sizes, programs = np.linalg.svd(real - centre, full_matrices=False)
    # Components of independent genes have a variance of at most this (Marchenko and Pastur 1967).
    beyond_noise = np.square(sizes[:N_PROGRAMS]) / len(real) > (1 + np.sqrt(len(genes) / len(real))) ** 2
    directions = np.column_stack([axis.weights[genes] * unit, programs[:N_PROGRAMS][beyond_noise].T])
    spread = ((real - centre) @ directions).std(axis=0)
    directions = directions[:, spread > 1e-9] / spread[spread > 1e-9]
    predicted, observed = ((values - centre) @ directions for values in (dense(x, genes) / unit, real))
    return energy_distance(predicted, observed) if directions.shape[1] else float("nan")


def _responding(axis: ResponseAxis, n_top: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    if n_top < 2:
        msg = f"Expected `n_top` to be at least 2, found {n_top!r}."
        raise ValueError(msg)
    genes = axis.most_changed(n_top)
    return genes, np.sign(axis.t[genes])


def _mean_correlation(cells: Cells, genes: NDArray[np.intp], sign: NDArray[np.float64]) -> float:
    if len(genes) < 2:
        return float("nan")
    values = dense(cells, genes)
    values = values - values.mean(axis=0)
    size = np.linalg.norm(values, axis=0)
    values = np.divide(values, size, out=np.zeros_like(values), where=size > 1e-9 * np.sqrt(len(values)))
    together = np.square(values @ sign).sum()  # the sum of all correlations, those of genes with themselves included
    return float((together - np.square(values).sum()) / (len(genes) * (len(genes) - 1)))

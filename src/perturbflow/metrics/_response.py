"""Response of cells: its direction, which cells follow it, and which genes go together in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from perturbflow._checks import check_whole_number
from perturbflow.metrics._cells import Cells, check_samples, dense
from perturbflow.metrics._energy import energy_distance
from perturbflow.metrics._families import of_cells
from perturbflow.metrics._moments import Moments

LEAST_T = 2.0
LEAST_GENES = 5


@dataclass(frozen=True, eq=False)
class ResponseAxis:
    """Direction in which real cells differ from controls: genes by their change over their standard deviation."""

    t: NDArray[np.float64]  # Welch's t (G,), 0 where a gene varies on neither side
    deviation: NDArray[np.float64]  # standard deviations within the two groups (G,)
    weights: NDArray[np.float64]  # of genes in a score, on average 0 over controls and 1 over real cells (G,)
    origin: float  # score of the controls before it is subtracted

    @classmethod
    def of(cls, y: Cells, control: Cells) -> Self:
        """Find the direction of real cells (m, G) from controls (c, G).

        The genes with a t beyond 2, or the five most changed ones if they are fewer, count with their change over their
        variance: the best direction to tell cells apart by if genes varied independently (Fisher 1936).
        """
        real, reference = Moments.of(y), Moments.of(control)
        change = real.mean - reference.mean
        error = np.sqrt(real.variance / real.n_cells + reference.variance / reference.n_cells)
        deviation = np.sqrt((real.variance + reference.variance) / 2)
        # A gene that is constant on both sides is no measure of cells.
        varies = deviation > 1e-9 * np.maximum(np.abs(real.mean), 1)
        t = np.divide(change, error, out=np.zeros_like(change), where=varies)
        threshold = min(LEAST_T, float(np.sort(np.abs(t))[-min(LEAST_GENES, len(t))]))
        counts = varies & (np.abs(t) >= threshold)
        weights = np.divide(change, deviation**2, out=np.zeros_like(change), where=counts)
        size = float(weights @ change)
        weights = weights / size if size > 0 else np.full_like(weights, np.nan)
        return cls(t, deviation, weights, float(weights @ reference.mean))

    def scores(self, cells: Cells) -> NDArray[np.float64]:
        """Return where cells (n, G) are between controls and what responds (n,)."""
        return np.asarray(cells @ self.weights, dtype=np.float64).ravel() - self.origin

    def most_changed(self, n_top: int) -> NDArray[np.intp]:
        """The most changed genes among those that vary, the most changed first."""
        order = np.argsort(-np.abs(self.t), kind="stable")[:n_top]
        return order[self.t[order] != 0]


def responding_share(scores: NDArray[np.float64], control: NDArray[np.float64], level: float) -> float:
    """Share of cells with scores (n,) beyond the ``level`` quantile of those of controls (c,), less that of controls."""
    if not 0 < level < 1:
        msg = f"Expected `level` between 0 and 1, found {level!r}. The usual one is 0.95."
        raise ValueError(msg)
    above = float((scores > np.quantile(control, level)).mean())
    return max((above - (1 - level)) / level, 0.0)


LEVEL = 0.95


@of_cells
def error_of_responders(x: Cells, y: Cells, control: Cells, *, level: float = LEVEL) -> float:
    """Absolute error of the fraction of responders.

    Cells are scored along the direction of the real change (Fisher's, with independent genes): 0 is the mean of the
    controls, 1 that of the real cells. With F the share of cells whose score is above the ``level`` quantile of that of
    the controls the fraction is ``(F - (1 - level)) / level``, not below 0; this is its difference between predicted and
    real cells. Where the response and controls overlap, fractions are lower than the share of responders.

    *Direction*: lower is better. *Range*: 0 to 1. NaN if no gene differs between real and control cells.

    *Weakness*: the direction is estimated from the real cells, which therefore lie a little farther along it than new
    cells do. A prediction that shifts all cells by the mean effect has a large error where few cells
    respond strongly, and hardly any where nearly all do; sampling alone gives some ``sqrt(F (1 - F) (1/n + 1/m))``.

    Parameters
    ----------
    level
        Share of the controls that do not count as responding.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> control = rng.normal(size=(200, 3))
    >>> y = np.concatenate([control[:100], control[100:] + 10])
    >>> error_of_responders(control + 5, y, control).__round__(2)  # every cell responds by half as much
    0.5
    """
    x, y, control = check_samples(x=x, y=y, control=control, minimum=2)
    axis = ResponseAxis.of(y, control)
    return abs(_fraction(axis, x, control, level) - _fraction(axis, y, control, level))


def _fraction(axis: ResponseAxis, cells: Cells, control: Cells, level: float) -> float:
    share = responding_share(axis.scores(cells), axis.scores(control), level)
    return float("nan") if np.isnan(axis.origin) else share


N_RESPONDING = 30
N_GENES = 100
N_PROGRAMS = 5


@of_cells
def error_of_response_correlation(x: Cells, y: Cells, control: Cells, *, n_top: int = N_RESPONDING) -> float:
    """Absolute error of the mean correlation between the genes of a response.

    The mean correlation, ``mean over pairs g < h of sign_g sign_h R_gh`` for the ``n_top`` genes that differ most between
    real and control cells (Welch's t), with the sign of their change, is positive where cells that respond in one gene
    respond in the others. This is its difference between predicted and real cells, for the same genes.

    *Direction*: lower is better. *Range*: 0 to 2. Moving every gene for itself has the whole real correlation as its
    error. NaN if fewer than 2 genes differ between real and control cells.

    *Weakness*: a mean over pairs, which is precise but says nothing of their pattern; see
    :func:`agreement_of_correlations`.

    Parameters
    ----------
    n_top
        Number of genes.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> control = rng.normal(size=(100, 2))
    >>> y = control + np.repeat([[0.0, 0.0], [6.0, 6.0]], 50, axis=0)
    >>> shuffled = np.column_stack([rng.permutation(values) for values in y.T])
    >>> error_of_response_correlation(y, y, control), error_of_response_correlation(shuffled, y, control) > 0.7
    (0.0, True)
    """
    x, y, control = check_samples(x=x, y=y, control=control, minimum=2)
    check_whole_number(n_top, name="n_top", least=2)
    axis = ResponseAxis.of(y, control)
    genes = axis.most_changed(n_top)
    sign = np.sign(axis.t[genes])
    return abs(_mean_correlation(x, genes, sign) - _mean_correlation(y, genes, sign))


@of_cells
def energy_in_programs(x: Cells, y: Cells, control: Cells) -> float:
    """Energy distance in the space of a response: its direction, and what varies along with it.

    Cells are looked at in the 100 genes that differ most between real and control cells (Welch's t), in units of
    their standard deviation: along the direction of the change, and along those of the first 5 principal components of the
    real cells that vary more than independent genes would. Every coordinate has unit variance over the real cells. In this space :func:`energy_distance`, unbiased, sees who
    responds and what rises together, which many independent genes hide from it in the space of all genes.

    *Direction*: lower is better. *Range*: 0 for equal distributions, below it by chance. NaN if no gene differs between
    real and control cells.

    *Weakness*: the space is that of the real cells, in which they are a little farther apart from new cells of
    their own distribution than in others. Changes that no program of these has are not seen.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> control = rng.normal(size=(300, 10))
    >>> y, again = (rng.normal(size=(300, 10)) + 4 * rng.integers(2, size=(300, 1)) for _ in range(2))
    >>> energy_in_programs(control + 2, y, control) > 0.3 > 0.03 > energy_in_programs(again, y, control)
    True
    """
    x, y, control = check_samples(x=x, y=y, control=control, minimum=2)
    axis = ResponseAxis.of(y, control)
    genes = axis.most_changed(N_GENES)
    if not len(genes) or np.isnan(axis.origin):
        return float("nan")
    unit = axis.deviation[genes]
    real = dense(y[:, genes]) / unit
    centre = real.mean(axis=0)
    _, sizes, programs = np.linalg.svd(real - centre, full_matrices=False)
    # Components of independent genes have a variance of at most this (Marchenko and Pastur 1967).
    beyond_noise = np.square(sizes[:N_PROGRAMS]) / len(real) > (1 + np.sqrt(len(genes) / len(real))) ** 2
    directions = np.column_stack([axis.weights[genes] * unit, programs[:N_PROGRAMS][beyond_noise].T])
    spread = ((real - centre) @ directions).std(axis=0)
    directions = directions[:, spread > 1e-9] / spread[spread > 1e-9]
    predicted, observed = ((values - centre) @ directions for values in (dense(x[:, genes]) / unit, real))
    return energy_distance(predicted, observed) if directions.shape[1] else float("nan")


def _mean_correlation(cells: Cells, genes: NDArray[np.intp], sign: NDArray[np.float64]) -> float:
    if len(genes) < 2:
        return float("nan")
    values = dense(cells[:, genes])
    values = values - values.mean(axis=0)
    size = np.linalg.norm(values, axis=0)
    values = np.divide(values, size, out=np.zeros_like(values), where=size > 1e-9 * np.sqrt(len(values)))
    together = np.square(values @ sign).sum()  # the sum of all correlations, those of genes with themselves included
    return float((together - np.square(values).sum()) / (len(genes) * (len(genes) - 1)))

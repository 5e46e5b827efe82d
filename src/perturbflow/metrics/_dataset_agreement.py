"""Agreement over all conditions of a split: which perturbations are strong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perturbflow.metrics._families import of_strengths
from perturbflow.metrics._profiles import pearson, spearman


@dataclass(frozen=True)
class Strengths:
    """Strengths of perturbations, in ways that do not say which genes change.

    Parameters
    ----------
    n_significant
        Numbers of significant genes, shape (P,), or (..., P) for several choices of P conditions.
    energy_distance
        Energy distances to the controls, the same shape.

    Examples
    --------
    >>> import perturbflow as pf
    >>> strengths = pf.metrics.Strengths(np.array([3.0, 120.0, 0.0]), np.array([0.1, 2.0, 0.0]))
    >>> float(pf.metrics.METRICS["pearson_of_energy_distances"].function(strengths, strengths))
    1.0
    """

    n_significant: NDArray[np.float64]
    energy_distance: NDArray[np.float64]


@of_strengths
def spearman_of_numbers_of_significant_genes(predicted: Strengths, observed: Strengths) -> NDArray[np.float64]:
    """Rank correlation over conditions of the predicted and observed numbers of significant genes.

    *Direction*: higher is better. *Range*: -1 to 1; 0 if all predicted numbers are equal; NaN with fewer than two
    conditions or if all observed numbers are equal.

    Cell-eval's ``de_spearman_sig`` leaves out conditions in which no observed gene is significant, so that any number of
    genes predicted there costs nothing; without any condition left it has 1.

    *Weakness*: numbers of significant genes follow the numbers of cells, so a predictor that knows nothing but those
    scores well.

    Examples
    --------
    >>> predicted, observed = (Strengths(np.array(n), np.zeros(3)) for n in ([1.0, 5.0, 4.0], [2.0, 30.0, 9.0]))
    >>> float(spearman_of_numbers_of_significant_genes(predicted, observed))
    1.0
    """
    return spearman(*_same(predicted.n_significant, observed.n_significant))


@of_strengths
def pearson_of_energy_distances(predicted: Strengths, observed: Strengths) -> NDArray[np.float64]:
    """Correlation over conditions of the energy distances of predicted and of real cells to the controls.

    Pearson's coefficient of ``E(x_p, control)`` and ``E(y_p, control)`` over the conditions p, with E the
    :func:`energy_distance`: whether the right perturbations are strong. Cell-eval's ``pearson_edistance`` has the biased
    distances.

    *Direction*: higher is better. *Range*: -1 to 1; 0 if all predicted distances are equal; NaN with fewer than two
    conditions or if all observed distances are equal.

    *Weakness*: says nothing about the direction of an effect, nor about its size beyond a factor and a constant that
    all conditions share. A few strong conditions decide. With biased distances conditions of few cells look strong on
    both sides.

    References
    ----------
    Arc Institute, cell-eval (MIT licence); Székely and Rizzo (2013), *J. Stat. Plan. Inference* 143, 1249-1272.

    Examples
    --------
    >>> predicted, observed = (Strengths(np.zeros(3), np.array(far)) for far in ([1.0, 3.0, 2.0], [2.0, 6.0, 4.0]))
    >>> float(pearson_of_energy_distances(predicted, observed).round(6))
    1.0
    """
    return pearson(*_same(predicted.energy_distance, observed.energy_distance))


def _same(predicted: NDArray[np.float64], observed: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    if np.shape(predicted) != np.shape(observed):
        msg = (
            f"Expected the same number of predicted and observed conditions, found {np.shape(predicted)} and {np.shape(observed)}. "
            "Pass the same conditions in the same order."
        )
        raise ValueError(msg)
    return predicted, observed

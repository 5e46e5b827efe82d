"""Agreement over all conditions of a screen: which perturbations are strong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest

import numpy as np

from perturbflow.metrics._cells import Cells
from perturbflow.metrics._differential_agreement import numbers_of_significant_genes
from perturbflow.metrics._differential_expression import DifferentialExpression
from perturbflow.metrics._energy import energy_distance_to
from perturbflow.metrics._profiles import pearson, spearman
from perturbflow.screen._named_arrays import aligned, without_names


def spearman_of_numbers_of_significant_genes(
    predicted: Sequence[DifferentialExpression],
    observed: Sequence[DifferentialExpression],
    *,
    fdr: float = 0.05,
    keep_silent: bool = True,
) -> float:
    """Rank correlation over conditions of the predicted and observed numbers of significant genes.

    *Direction*: higher is better. *Range*: -1 to 1; 0 if all predicted numbers are equal; NaN with fewer than two
    conditions or if all observed numbers are equal.

    Cell-eval's ``de_spearman_sig`` leaves out conditions in which no observed gene is significant
    (``keep_silent=False``), so that any number of genes predicted there costs nothing; without any condition left it
    has 1, and NaN where the predicted numbers are equal.

    *Weakness*: numbers of significant genes follow the numbers of cells, so a predictor that knows nothing but those
    scores well.

    Parameters
    ----------
    predicted
        Differential expression of predicted cells of every condition.
    observed
        That of real cells, same conditions and genes.
    fdr
        Level of significance of adjusted p-values.
    keep_silent
        Keep conditions without any significant gene in the real cells.

    Returns
    -------
    The correlation, or NaN.

    Raises
    ------
    ValueError
        If the numbers of conditions or of genes differ, or ``fdr`` is not above 0 and at most 1.

    References
    ----------
    Arc Institute, cell-eval (MIT licence).

    Examples
    --------
    >>> import numpy as np
    >>> weak, strong = (DifferentialExpression.of(np.ones(3), np.array(p)) for p in ([1e-4, 1, 1], [1e-4, 1e-4, 1]))
    >>> spearman_of_numbers_of_significant_genes([weak, strong], [weak, strong])
    1.0
    """
    if len(predicted) != len(observed):
        msg = (
            f"Expected as many predicted as observed conditions, found {len(predicted)} and {len(observed)}. "
            "Pass the same conditions in the same order."
        )
        raise ValueError(msg)
    pairs = zip(predicted, observed, strict=True)
    numbers = np.array([numbers_of_significant_genes(*pair, fdr=fdr) for pair in pairs], dtype=np.float64)
    numbers = numbers.reshape(-1, 2)
    if not keep_silent:
        numbers = numbers[numbers[:, 1] > 0]
    return float(spearman(numbers[:, 0], numbers[:, 1]))


def pearson_of_energy_distances(
    predicted: Iterable[Cells], observed: Iterable[Cells], control: Cells, *, unbiased: bool = True
) -> float:
    """Correlation over conditions of the energy distances of predicted and of real cells to the controls.

    Pearson's coefficient of ``E(x_p, control)`` and ``E(y_p, control)`` over the conditions p, with E the
    :func:`energy_distance`: whether the right perturbations are strong. Cell-eval's ``pearson_edistance``, which has
    the biased distances (``unbiased=False``).

    *Direction*: higher is better. *Range*: -1 to 1; 0 if all predicted distances are equal; NaN with fewer than two
    conditions or if all observed distances are equal.

    *Weakness*: says nothing about the direction of an effect, nor about its size beyond a factor and a constant that
    all conditions share. A few strong conditions decide. With biased distances conditions of few cells look strong on
    both sides.

    Parameters
    ----------
    predicted
        Predicted cells of every condition, each (n, G); read one after another.
    observed
        Real cells of the same conditions in the same order, each (m, G).
    control
        Control cells (c, G).
    unbiased
        Use the unbiased energy distance, which has no term from the numbers of cells.

    Returns
    -------
    The correlation, or NaN.

    Raises
    ------
    ValueError
        If the numbers of conditions or of genes differ, values are not finite, or the unbiased distance is asked of a
        single cell.

    References
    ----------
    Arc Institute, cell-eval (MIT licence); Székely and Rizzo (2013), *J. Stat. Plan. Inference* 143, 1249-1272.

    Examples
    --------
    >>> import numpy as np
    >>> control = np.zeros((2, 1))
    >>> pearson_of_energy_distances([control + 1, control + 3], [control + 2, control + 6], control).__round__(6)
    1.0
    """
    distance = energy_distance_to(without_names(control, name="control"), unbiased=unbiased)
    distances = []
    for number, (x, y) in enumerate(zip_longest(predicted, observed), start=1):
        if x is None or y is None:
            msg = (
                "Expected the same conditions in `predicted` and `observed`, found one more of the "
                f"{'observed' if x is None else 'predicted'} after {number - 1}. Pass them in the same order."
            )
            raise ValueError(msg)
        _, *cells = aligned("genes", control=control, predicted=x, observed=y)
        distances.append(list(map(distance, cells)))
    return float(pearson(*np.array(distances).reshape(-1, 2).T))

"""Responders: metrics of the distribution of cells between controls and the response."""

from __future__ import annotations

import numpy as np

from perturbflow.metrics._cells import Cells
from perturbflow.metrics._families import of_cells
from perturbflow.metrics._response_axis import ResponseAxis, checked, responding_share

LEVEL = 0.95


@of_cells
def error_of_responders(x: Cells, y: Cells, control: Cells, *, level: float = LEVEL) -> float:
    """Absolute error of the fraction of responders.

    Cells are scored along the direction of the real change (Fisher's, with independent genes): 0 is the mean of the
    controls, 1 that of the real cells. With F the share of cells whose score is above the ``level`` quantile of that of
    the controls the fraction is ``(F - (1 - level)) / level``, not below 0; this is its difference between predicted and
    real cells. Where the response and controls overlap, fractions are lower than the share of responders.

    *Direction*: lower is better. *Range*: 0 to 1.

    *Weakness*: the direction is estimated from the real cells, which therefore lie a little farther along it than new
    cells do. A prediction that shifts all cells by the mean effect has a large error where few cells
    respond strongly, and hardly any where nearly all do; sampling alone gives some ``sqrt(F (1 - F) (1/n + 1/m))``.

    Parameters
    ----------
    level
        Share of the controls that do not count as responding.

    Returns
    -------
    The error; NaN if no gene differs between real and control cells.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> control = rng.normal(size=(200, 3))
    >>> y = np.concatenate([control[:100], control[100:] + 10])
    >>> error_of_responders(control + 5, y, control).__round__(2)  # every cell responds by half as much
    0.5
    """
    x, y, control = checked(x, y, control)
    axis = ResponseAxis.of(y, control)
    return abs(_fraction(axis, x, control, level) - _fraction(axis, y, control, level))


def _fraction(axis: ResponseAxis, cells: Cells, control: Cells, level: float) -> float:
    share = responding_share(axis.scores(cells), axis.scores(control), level)
    return float("nan") if np.isnan(axis.origin) else share

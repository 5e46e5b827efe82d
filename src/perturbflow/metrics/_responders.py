"""Which cells respond: metrics of the distribution of cells between controls and the response."""

from __future__ import annotations

import numpy as np

from perturbflow.metrics._cells import Cells
from perturbflow.metrics._response_axis import ResponseAxis, checked, responding_share
from perturbflow.screen._named_arrays import by_name

LEVEL = 0.95


@by_name("genes", of=("x", "y", "control"))
def fraction_of_responders(x: Cells, y: Cells, control: Cells, *, level: float = LEVEL) -> float:
    """Share of cells that respond more than nearly all controls do.

    Cells are scored along the direction of the real change (Fisher's, with independent genes): 0 is the mean of the
    controls, 1 that of the real cells. With F the share of cells whose score is above the ``level`` quantile of that of
    the controls it is ``(F - (1 - level)) / level``, not below 0. Pass the real cells in the place of ``x`` for their own
    fraction.

    *Direction*: none. *Range*: 0 to 1. Where the response and controls do not overlap it is the fraction of responders;
    where they do, it is lower.

    *Weakness*: the direction is estimated from the real cells, which therefore lie a little farther along it than new
    cells of the same law do: with few cells and many changed genes a prediction cannot reach their fraction. Responses in
    several directions are one.

    Parameters
    ----------
    x
        Cells (n, G).
    y
        Real cells of the condition (m, G).
    control
        Control cells (c, G).
    level
        Share of the controls that do not count as responding.

    Returns
    -------
    The fraction; NaN if no gene differs between real and control cells.

    Raises
    ------
    ValueError
        If shapes disagree, values are not finite, there are fewer than 2 cells, or the level is not between 0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> control = rng.normal(size=(200, 3))
    >>> y = np.concatenate([control[:100], control[100:] + 10])  # half respond
    >>> fraction_of_responders(y, y, control).__round__(2)
    0.5
    """
    x, y, control = checked(x, y, control)
    axis = ResponseAxis.of(y, control)
    return _fraction(axis, x, control, level)


@by_name("genes", of=("x", "y", "control"))
def error_of_responders(x: Cells, y: Cells, control: Cells, *, level: float = LEVEL) -> float:
    """Absolute error of the fraction of responders.

    The difference of :func:`fraction_of_responders` between predicted and real cells, along the direction of the real
    change for both.

    *Direction*: lower is better. *Range*: 0 to 1.

    *Weakness*: as of the fraction. A prediction that moves all cells by the mean effect has a large error where few cells
    respond strongly, and hardly any where nearly all do; sampling alone gives some ``sqrt(F (1 - F) (1/n + 1/m))``.

    Parameters
    ----------
    x
        Predicted cells (n, G).
    y
        Real cells (m, G).
    control
        Control cells (c, G).
    level
        Share of the controls that do not count as responding.

    Returns
    -------
    The error; NaN if no gene differs between real and control cells.

    Raises
    ------
    ValueError
        If shapes disagree, values are not finite, there are fewer than 2 cells, or the level is not between 0 and 1.

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

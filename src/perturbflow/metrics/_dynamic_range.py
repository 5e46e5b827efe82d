"""Position of a score between the controls and the best that the real cells allow."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def dynamic_range_fraction(model: float, control: float, ceiling: float) -> float:
    """Share of the way from the controls to the ceiling that a prediction covers, for a metric where lower is better.

    ::

        (control - model) / (control - ceiling)

    *Direction*: higher is better. *Range*: 0 is as far from the real cells as the controls are, 1 is as close as the
    real cells are to themselves. Below 0 the prediction is worse than predicting no effect; slightly above 1 is noise
    of the ceiling.

    *Weakness*: explodes where the effect is hardly measurable; do not average it over conditions, but use
    :func:`pooled_dynamic_range_fraction`.

    Parameters
    ----------
    model
        Score of the prediction against the real cells.
    control
        Score of the control cells against the real cells.
    ceiling
        Score of one half of the real cells against the other.

    Returns
    -------
    The fraction; NaN where ``control <= ceiling`` (the effect is not measurable with these cells) or a score is NaN.

    Examples
    --------
    >>> dynamic_range_fraction(0.3, 2.1, 0.1)
    0.9
    >>> dynamic_range_fraction(0.3, 0.1, 0.1)
    nan
    """
    span = control - ceiling
    return float((control - model) / span) if span > 0 else float("nan")


def pooled_dynamic_range_fraction(models: ArrayLike, controls: ArrayLike, ceilings: ArrayLike) -> float:
    """:func:`dynamic_range_fraction` of the means over conditions; NaN where controls are not farther off than the ceiling.

    The mean of the fractions of single conditions would be decided by the conditions with the smallest effects, whose
    denominators are near 0 with either sign. In the ratio of means every condition counts with the size of its effect
    and estimation errors of small effects cancel; the largest effects decide.
    """
    return dynamic_range_fraction(
        *(float(np.asarray(scores, dtype=np.float64).mean()) for scores in (models, controls, ceilings))
    )

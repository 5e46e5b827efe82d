"""Position of a score between the controls and the best that the real cells allow."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from perturbflow.screen._named_arrays import by_name, real_numbers


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


@by_name("conditions", of=("models", "controls", "ceilings"))
def pooled_dynamic_range_fraction(models: ArrayLike, controls: ArrayLike, ceilings: ArrayLike) -> float:
    """:func:`dynamic_range_fraction` of the means over conditions; NaN where controls are not farther off than the ceiling.

    The mean of the fractions of single conditions would be decided by the conditions with the smallest effects, whose
    denominators are near 0 with either sign. In the ratio of means every condition counts with the size of its effect
    and estimation errors of small effects cancel; the largest effects decide.
    """
    scores = {
        name: real_numbers(values, name=name)
        for name, values in (("models", models), ("controls", controls), ("ceilings", ceilings))
    }
    shapes = {name: values.shape for name, values in scores.items()}
    if len(set(shapes.values())) > 1 or scores["models"].ndim != 1 or scores["models"].size == 0:
        msg = f"Expected one score per condition in each of `models`, `controls` and `ceilings`, found shapes {shapes}."
        raise ValueError(msg)
    for name, values in scores.items():
        if not np.isfinite(values).all():
            msg = f"Expected finite scores in `{name}`, found {values}. Leave out conditions that could not be scored."
            raise ValueError(msg)
    return dynamic_range_fraction(
        float(scores["models"].mean()), float(scores["controls"].mean()), float(scores["ceilings"].mean())
    )

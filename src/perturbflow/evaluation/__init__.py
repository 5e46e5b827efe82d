"""Evaluation on arrays: predictions beside real cells, simple baselines and two bounds.

:func:`perturbflow.tl.evaluate` does all of it for an AnnData. Here are its parts: :func:`score_cells` for predicted cells
that are arrays, :func:`score_samplers` for models that predict from control cells, and :func:`summary_table` for the means
of their scores with intervals.
"""

from perturbflow.evaluation._conditions import Condition, judged_conditions, registered_cells
from perturbflow.evaluation._predictors import fitted_baselines
from perturbflow.evaluation._score_arrays import score_cells, score_samplers
from perturbflow.evaluation._tables import summary_table

__all__ = [
    "Condition",
    "fitted_baselines",
    "judged_conditions",
    "registered_cells",
    "score_cells",
    "score_samplers",
    "summary_table",
]

"""Decorators of metrics by what they take: arguments are put in order by name, and what they mean is said once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from perturbflow._docs import shares
from perturbflow.screen._named_arrays import by_name

Function = TypeVar("Function", bound=Callable[..., Any])

CELLS = {
    "x": "Predicted cells (n, G).",
    "y": "Real cells (m, G), same genes and scale as ``x``.",
    "control": "Control cells (c, G).",
    "unbiased": "Average over pairs of different cells.",
    "n_top": "Number of genes with the largest variance in ``y``.",
}
MOMENTS = {
    "x": "Predicted cells (n, G), log1p-normalised, or their :class:`Moments`.",
    "y": "Real cells (m, G), log1p-normalised, or their moments.",
    "control": "Control cells (c, G), log1p-normalised, or their moments.",
    "predicted_control": "Separate control cells for the prediction, as in cell-eval; see :func:`mse_of_mean_effects`.",
    "base": (
        'Base of the logarithm of the expression, as in ``adata.uns["log1p"]["base"]``; None for natural logarithms.'
    ),
}
TESTS = {
    "predicted": ":class:`DifferentialExpression` of predicted cells of one condition.",
    "observed": "The same for real cells and the same genes.",
    "fdr": "Adjusted p-value below which a gene is significant.",
    "targets": "Genes targeted by the perturbation (G,); they are left out, since their change need not be predicted.",
    "smallest": "Predicted adjusted p-values are clipped at this value; 0 for no clipping, 1e-10 as in cell-eval.",
}
PROFILES = {
    "predicted": "Mean expression of the predicted cells of P conditions of one context, shape (P, G).",
    "observed": "The same for the real cells, shape (P, G), in the same order.",
    "weights": "Non-negative weights of genes, shape (P, G) or (G,).",
    "reference": "Reference of changes, shape (G,) or (P, G): the mean of perturbed cells, or of controls.",
}
NETWORKS = {
    "edge_scores": "Scores (r, d).",
    "truth": "Known network (r, d), signed or not.",
    "candidates": "Pairs to evaluate (r, d).",
    "threshold": "A pair is predicted to be an edge if its absolute score is larger.",
}

VALUE = "The value, or NaN if undefined."
BAD_CELLS = (
    "ValueError\n    If shapes disagree, values are not finite, there are too few cells, or an option is out of range."
)


def of_cells(function: Function) -> Function:
    """Decorator of metrics of cells."""
    return shares(CELLS, returns=VALUE, raises=BAD_CELLS)(by_name("genes", of=("x", "y", "control", "again"))(function))


def of_moments(function: Function) -> Function:
    """Decorator of metrics of the moments of cells."""
    return shares(MOMENTS, returns=VALUE, raises=BAD_CELLS)(
        by_name("genes", of=("x", "y", "control", "predicted_control"))(function)
    )


def of_tests(function: Function) -> Function:
    """Decorator of metrics of tests of differential expression."""
    raises = "ValueError\n    If the genes disagree, none is left, or an option is out of range."
    return shares(TESTS, returns=VALUE, raises=raises)(
        by_name("genes", of=("predicted", "observed", "targets"))(function)
    )


def of_profiles(function: Function) -> Function:
    """Decorator of metrics of the profiles of conditions."""
    raises = "ValueError\n    If shapes disagree, values are not finite, or an option is out of range."
    names = ("predicted", "observed", "weights", "reference", "scores", "targets")
    return shares(PROFILES, returns="The value of every condition (P,), or NaN.", raises=raises)(
        by_name("conditions", "genes", of=names)(function)
    )


of_networks = shares(
    NETWORKS,
    returns=VALUE,
    raises=(
        "ValueError\n    If shapes disagree, values are not finite, the threshold is negative, or edges or non-edges are\n"
        "    missing."
    ),
)

of_strengths = shares(
    {
        "predicted": ":class:`Strengths` from predicted cells, conditions (..., P).",
        "observed": "The same from real cells, for the same conditions.",
    },
    returns="The correlation (...), or NaN.",
    raises="ValueError\n    If shapes disagree.",
)
of_panels = shares(
    {"panel": "Predicted and observed moments of P conditions, and of the controls."},
    returns="The value of every condition (P,), or of all of them; NaN where undefined.",
    raises="ValueError\n    If shapes disagree or a variance is unknown (one cell).",
)

"""The table of metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args

from perturbflow.metrics._differential import recall_of_top_genes
from perturbflow.metrics._effects import (
    cosine_of_log_fold_changes,
    cosine_of_mean_effects,
    rmse_of_log_fold_changes,
    rmse_of_mean_effects,
)
from perturbflow.metrics._energy import energy_distance
from perturbflow.metrics._mmd import mmd
from perturbflow.metrics._rank import normalised_rank

Kind = Literal["distribution", "effect", "rank"]


@dataclass(frozen=True)
class Metric:
    """A metric and what is needed to read it.

    Parameters
    ----------
    name
        Name in tables.
    function
        What computes it. Its arguments follow from the kind.
    kind
        ``"distribution"``: called with predicted and reference cells, ``function(x, y)``.
        ``"effect"``: called with control cells as well, ``function(x, y, control)``.
        ``"rank"``: called with the scores of all predictions at all references,
        ``function(scores, higher_is_better=...)``.
    higher_is_better
        Whether large values are good.
    best
        Value of a perfect prediction.
    description
        One line for tables and plots.

    Examples
    --------
    >>> METRICS["energy_distance"].higher_is_better
    False
    """

    name: str
    function: Callable[..., Any]
    kind: Kind
    higher_is_better: bool
    best: float
    description: str

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            msg = f"Expected `kind` to be one of {sorted(get_args(Kind))}, found {self.kind!r}."
            raise ValueError(msg)


_METRICS: dict[str, Metric] = {}

METRICS: Mapping[str, Metric] = MappingProxyType(_METRICS)
"""All metrics by name, a read-only view; :func:`register` adds one."""


def register(metric: Metric) -> Metric:
    """Add a metric to :data:`METRICS`.

    Parameters
    ----------
    metric
        The metric; its name must be new.

    Returns
    -------
    The same metric.

    Raises
    ------
    ValueError
        If the name is taken.
    """
    if metric.name in _METRICS:
        msg = f"Expected a new metric name, found {metric.name!r}, which is one of {sorted(_METRICS)}."
        raise ValueError(msg)
    _METRICS[metric.name] = metric
    return metric


for _metric in (
    Metric(
        "energy_distance",
        energy_distance,
        kind="distribution",
        higher_is_better=False,
        best=0.0,
        description="Energy distance between predicted and real cells (unbiased)",
    ),
    Metric(
        "mmd",
        mmd,
        kind="distribution",
        higher_is_better=False,
        best=0.0,
        description="Squared MMD between predicted and real cells (Gaussian kernels, unbiased)",
    ),
    Metric(
        "rmse_of_mean_effects",
        rmse_of_mean_effects,
        kind="effect",
        higher_is_better=False,
        best=0.0,
        description="RMSE of the mean effect over genes",
    ),
    Metric(
        "cosine_of_mean_effects",
        cosine_of_mean_effects,
        kind="effect",
        higher_is_better=True,
        best=1.0,
        description="Cosine of the mean effect over genes",
    ),
    Metric(
        "rmse_of_log_fold_changes",
        rmse_of_log_fold_changes,
        kind="effect",
        higher_is_better=False,
        best=0.0,
        description="RMSE of the log2 fold changes over genes",
    ),
    Metric(
        "cosine_of_log_fold_changes",
        cosine_of_log_fold_changes,
        kind="effect",
        higher_is_better=True,
        best=1.0,
        description="Cosine of the log2 fold changes over genes",
    ),
    Metric(
        "recall_of_top_genes",
        recall_of_top_genes,
        kind="effect",
        higher_is_better=True,
        best=1.0,
        description="Share of the 50 most changed genes that are among those predicted",
    ),
    Metric(
        "normalised_rank",
        normalised_rank,
        kind="rank",
        higher_is_better=False,
        best=0.0,
        description="Rank of the own prediction among those of other conditions (0 best, 0.5 random)",
    ),
):
    register(_metric)

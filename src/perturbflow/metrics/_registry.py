"""The table of metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args

Kind = Literal["distribution", "components", "response", "effect", "differential", "panel", "screen"]


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
        ``"distribution"``: predicted and real cells, ``function(x, y)``.
        ``"components"``: the same in principal components of the real cells.
        ``"response"``: predicted, real and control cells, ``function(x, y, control)``.
        ``"effect"``: :class:`Moments` of predicted, real and control cells, ``function(x, y, control)``.
        ``"differential"``: :class:`DifferentialExpression` of predicted and real cells, ``function(predicted,
        observed)``.
        ``"panel"``: a :class:`Panel` of P conditions, ``function(panel)``, with a value for each (P,).
        ``"screen"``: how strong all conditions of a split are, :class:`Strengths` predicted and observed,
        ``function(predicted, observed)``, with one value for all P; where arrays are (..., P), for each of them (...).
    higher_is_better
        Whether large values are good.
    best
        Value of a perfect prediction.
    description
        One line for tables and plots.
    source
        Where it was defined, and under which name if that is another.

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
    source: str = ""

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

    Examples
    --------
    >>> import perturbflow as pf
    >>> pf.metrics.register(pf.metrics.METRICS["mmd"])
    Traceback (most recent call last):
    ValueError: Expected a new metric name, found 'mmd', ...
    """
    if metric.name in _METRICS:
        msg = f"Expected a new metric name, found {metric.name!r}, which is one of {sorted(_METRICS)}."
        raise ValueError(msg)
    _METRICS[metric.name] = metric
    return metric

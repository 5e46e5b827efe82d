"""Definition of a metric, and the table of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from perturbflow.metrics._samples import Comparison, Pair

KindName = Literal["distribution", "components", "response", "effect", "differential", "panel", "dataset"]
Scope = Literal["condition", "panel", "dataset"]


@dataclass(frozen=True)
class Kind:
    """What metrics of one kind have a value for, how their functions are called, and what has to be prepared for them."""

    scope: Scope
    call: Callable[..., Any]
    needs: frozenset[str] = frozenset()


def of_pairs(function: Callable[[Pair], Any]) -> Callable[[Comparison], float]:
    """Return the mean of a function over the predictions that are compared with the real cells."""
    return lambda comparison: float(np.mean([function(pair) for pair in comparison.pairs]))


def _of_cells(function: Callable[..., Any], comparison: Comparison) -> float:
    return of_pairs(lambda pair: function(pair.predicted.cells, pair.real.cells))(comparison)


def _of_components(function: Callable[..., Any], comparison: Comparison) -> float:
    return of_pairs(lambda pair: function(pair.predicted.components, pair.real.components))(comparison)


def _of_response(function: Callable[..., Any], comparison: Comparison) -> float:
    return of_pairs(lambda pair: function(pair.predicted.cells, pair.real.cells, comparison.control))(comparison)


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "distribution": Kind("condition", _of_cells, frozenset({"cells"})),
        "components": Kind("condition", _of_components, frozenset({"components"})),
        "response": Kind("condition", _of_response, frozenset({"cells"})),
        "effect": Kind("condition", lambda function, one: float(function(*one.moments)), frozenset({"moments"})),
        "differential": Kind("condition", lambda function, one: float(function(*one.tests)), frozenset({"tests"})),
        "panel": Kind("panel", lambda function, panel: function(panel)),
        "dataset": Kind("dataset", lambda function, strengths: function(*strengths)),
    }
)


@dataclass(frozen=True)
class Metric:
    """A metric: what computes it, and what is needed to read it.

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
        ``"dataset"``: how strong all conditions of a split are, :class:`Strengths` predicted and observed,
        ``function(predicted, observed)``, with one value for all P; where arrays are (..., P), for each of them (...).
    higher_is_better
        Whether large values are good.
    best
        Value of a perfect prediction.
    description
        One line for tables and plots.
    source
        Where it was defined, and under which name if that is another.
    shared
        How the same value is computed where other metrics have computed a part of it already; by default the function is
        called. For the metrics of the package.
    needs
        What it needs beyond what its kind does. For the metrics of the package.

    Examples
    --------
    >>> METRICS["energy_distance"].higher_is_better
    False
    """

    name: str
    function: Callable[..., Any]
    kind: KindName
    higher_is_better: bool
    best: float
    description: str
    source: str = ""
    shared: Callable[[Any], float] | None = None
    needs: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            msg = f"Expected `kind` to be one of {sorted(KINDS)}, found {self.kind!r}. Choose the kind that has its arguments."
            raise ValueError(msg)
        object.__setattr__(self, "needs", self.needs | KINDS[self.kind].needs)

    @property
    def scope(self) -> Scope:
        """Return what it has a value for: ``"condition"``, ``"panel"`` or ``"dataset"``."""
        return KINDS[self.kind].scope

    def value(self, given: Any) -> Any:
        """Return the value, or the values.

        Parameters
        ----------
        given
            What its scope has: a comparison of predicted with real cells, a panel, or predicted and observed strengths.

        Returns
        -------
        A number; for a panel one for every condition (P,), for strengths (...).
        """
        return KINDS[self.kind].call(self.function, given) if self.shared is None else self.shared(given)


_METRICS: dict[str, Metric] = {}

METRICS: Mapping[str, Metric] = MappingProxyType(_METRICS)
"""All metrics by name (read-only); :func:`register` adds one."""


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

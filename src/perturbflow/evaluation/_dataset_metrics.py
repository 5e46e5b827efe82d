"""Metrics with one value for all conditions of a split: which perturbations are strong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from perturbflow.evaluation._tables import CEILING, DUPLICATE, best_of, interval
from perturbflow.metrics import Strengths

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perturbflow.metrics import Metric


def dataset_rows(
    strengths: Mapping[str, Mapping[str, NDArray[np.float64]]],
    metrics: Sequence[Metric],
    *,
    baselines: Sequence[str],
    n_resamples: int,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """Rows for the summary, with intervals, and with the difference to the best baseline.

    ``strengths`` are, by split and model, those of P conditions (P, 2, 2): numbers of significant genes and energy distances
    to the controls, each predicted and real. Conditions that a model lacks are NaN.
    """
    rows = []
    wanted = [metric for metric in metrics if metric.scope == "dataset"]
    for split, by_model in strengths.items() if wanted else ():
        known = {name: np.asarray(np.isfinite(values).any(axis=(1, 2))) for name, values in by_model.items()}
        known = {name: where for name, where in known.items() if where.any()}  # the interpolated duplicate is a mean
        n = len(next(iter(by_model.values())))
        drawn = np.vstack([np.arange(n), rng.integers(n, size=(n_resamples, n))])  # first as they are
        for metric in wanted:
            values = {name: _values(metric, by_model[name], where, drawn) for name, where in known.items()}
            table = np.array([[values[name][0] for name in values]])
            best = best_of(table, list(values), baselines, higher_is_better=metric.higher_is_better)
            for model, found in values.items():
                low, high = _interval(found[1:], known[model])
                row = {"split": split, "model": model, "metric": metric.name, "mean": found[0], "sd": np.nan}
                row |= {"n_conditions": int(known[model].sum()), "lower": low, "upper": high}
                row |= {"best_baseline": "", "difference": np.nan}
                row |= {"difference_lower": np.nan, "difference_upper": np.nan}
                if best is not None and model not in {CEILING, DUPLICATE, best}:
                    both = known[model] & known[best]
                    own, other = (
                        values[name]
                        if known[name].sum() == both.sum()
                        else _values(metric, by_model[name], both, drawn)
                        for name in (model, best)
                    )
                    difference = own - other
                    low, high = _interval(difference[1:], both)
                    row |= {"best_baseline": best, "difference": difference[0]}
                    row |= {"difference_lower": low, "difference_upper": high}
                rows.append(row)
    return rows


def _interval(draws: NDArray[np.float64], known: NDArray[np.bool_]) -> tuple[float, float]:
    """Ends of the interval; NaN where there is a single condition."""
    low, high = interval(draws[:, None])
    return (float(low[0]), float(high[0])) if known.sum() > 1 else (np.nan, np.nan)


def _values(
    metric: Metric, strengths: NDArray[np.float64], known: NDArray[np.bool_], drawn: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Value of every draw of conditions (B,), of those among them that the model has."""
    found = np.full(len(drawn), np.nan)
    if known.all():
        drawn_strengths = strengths[drawn]
        predicted, observed = (Strengths(*np.moveaxis(drawn_strengths[..., side], -1, 0)) for side in range(2))
        return np.asarray(metric.value((predicted, observed)), dtype=np.float64)
    for place, conditions in enumerate(drawn):
        of_model = strengths[conditions[known[conditions]]]
        if len(of_model):
            predicted, observed = (Strengths(*of_model[..., side].T) for side in range(2))
            found[place] = metric.value((predicted, observed))
    return found

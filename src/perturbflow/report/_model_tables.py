"""Tables that compare the models of an evaluation, formatted as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from perturbflow.evaluation._leaderboard import Leaderboard, by_mean_rank, higher_is_better, is_own, metrics_in
from perturbflow.evaluation._tables import CEILING, DUPLICATE, FLOOR
from perturbflow.pl._drawing import metric_name
from perturbflow.report._words import number

BETTER, WORSE, ALIKE, ONE_CONDITION = "better", "worse", "no difference", "one condition only"


@dataclass(frozen=True)
class Comparison:
    """A model and the best baseline under one metric: means over the conditions of a split, NaN where unknown.

    ``difference`` is model minus baseline over shared conditions; ``best_baseline`` is empty if there is none.
    """

    metric: str
    model: float
    baseline: float
    floor: float
    ceiling: float
    best_baseline: str
    difference: float
    lower: float
    upper: float
    n_conditions: int

    @property
    def sign(self) -> int:
        """1 where higher is better, else -1."""
        return 1 if higher_is_better(self.metric) else -1

    @property
    def finding(self) -> str:
        """Whether the interval of the difference shows the model to be better or worse; empty without a baseline."""
        if not self.best_baseline or np.isnan(self.difference):
            return ""
        if self.difference == 0:  # identical cells, or both perfect
            return ALIKE
        if np.isnan(self.lower):
            return ONE_CONDITION
        low, high = sorted((self.sign * self.lower, self.sign * self.upper))
        return BETTER if low > 0 else WORSE if high < 0 else ALIKE


def metric_label(metric: str) -> str:
    """Return the name of a metric, with an arrow in the direction of better values."""
    return f"{metric_name(metric)}\N{NO-BREAK SPACE}{'↑' if higher_is_better(metric) else '↓'}"


def comparisons(summary: pd.DataFrame, split: str, model: str) -> list[Comparison]:
    """Compare a model with the best baseline and the bounds, for all metrics with a value in a split."""
    part = summary[summary["split"] == split]
    means = part.pivot(index="metric", columns="model", values="mean")
    rows = part[part["model"] == model].set_index("metric")
    found = []
    for metric in metrics_in(part, None):
        if metric not in rows.index or np.isnan(rows["mean"][metric]):
            continue
        row = rows.loc[metric]
        best = str(row["best_baseline"])
        values = {
            name: float(means[column][metric]) if column in means else np.nan
            for name, column in {"baseline": best, "floor": FLOOR, "ceiling": CEILING}.items()
        }
        ends = {name: float(row[f"difference_{name}"]) for name in ("lower", "upper")}
        found.append(
            Comparison(
                metric=metric,
                model=float(row["mean"]),
                best_baseline=best,
                difference=float(row["difference"]),
                n_conditions=int(row["n_conditions"]),
                **values,
                **ends,
            )
        )
    return found


def comparison_table(found: Sequence[Comparison], model: str) -> pd.DataFrame:
    """Format comparisons as a table, without empty columns."""
    table = pd.DataFrame(
        {
            "metric": [metric_label(one.metric) for one in found],
            model: [_cell(one.model) for one in found],
            "best baseline": [_cell(one.baseline) for one in found],
            "no effect": [_cell(one.floor) for one in found],
            "ceiling": [_cell(one.ceiling) for one in found],
            f"{model} is": [one.finding for one in found],
            "which baseline": [one.best_baseline for one in found],
        }
    )
    return _without_empty(table)


def models_table(summary: pd.DataFrame, split: str) -> tuple[pd.DataFrame, list[list[str]]]:
    """Format the means of all models of a split as a table, ordered by mean rank; metrics without values are left out.

    Baselines with equal means share a column; their names are returned, too.
    """
    part = summary[summary["split"] == split]
    metrics = metrics_in(part, None)
    board = Leaderboard.of(summary, split, metrics, list(dict.fromkeys(map(str, part["model"]))))
    columns: dict[tuple[object, ...], list[str]] = {}
    for model in by_mean_rank([board]):
        means = board.means[board.models.index(model)]
        may_share = not is_own(model) and model not in {FLOOR, CEILING, DUPLICATE}
        # Means that agree to the last digit under every metric are from the same cells; NaN does not equal itself.
        key = ("" if may_share else model, *(None if np.isnan(mean) else float(mean) for mean in means))
        columns.setdefault(key, []).append(model)
    table = pd.DataFrame({"metric": [metric_label(metric) for metric in metrics]})
    for (_, *means), names in columns.items():
        table[", ".join(names)] = [_cell(mean) for mean in means]
    has_values = (table.iloc[:, 1:] != "").any(axis=1)
    return _without_empty(table[has_values]), [names for names in columns.values() if len(names) > 1]


def _cell(value: object) -> str:
    return "" if value is None or np.isnan(float(value)) else number(float(value))  # type: ignore[arg-type]


def _without_empty(table: pd.DataFrame) -> pd.DataFrame:
    return table.loc[:, (table != "").any()]

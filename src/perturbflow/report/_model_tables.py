"""Models of an evaluation beside each other, as a reader sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from perturbflow.evaluation._leaderboard import Leaderboard, by_mean_rank, higher_is_better, is_own, metrics_in
from perturbflow.evaluation._tables import CEILING, DUPLICATE, FLOOR
from perturbflow.pl._drawing import metric_name
from perturbflow.report._words import number

BETTER, WORSE, ALIKE, ONE_CONDITION = "better", "worse", "not told apart", "one condition only"


@dataclass(frozen=True)
class Comparison:
    """A model and the best baseline under one metric, means over the conditions of a split; NaN where unknown.

    The difference is model minus baseline, over the conditions that both have; without a baseline its name is empty.
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
        """Return whether the interval of the difference shows the model better or worse than the baseline; empty without one."""
        if not self.best_baseline or np.isnan(self.difference):
            return ""
        if self.difference == 0:  # the same cells, or none of the two gets anything wrong
            return ALIKE
        if np.isnan(self.lower):
            return ONE_CONDITION
        low, high = sorted((self.sign * self.lower, self.sign * self.upper))
        return BETTER if low > 0 else WORSE if high < 0 else ALIKE


def metric_label(metric: str) -> str:
    """Name a metric in words, with an arrow to its better side."""
    return f"{metric_name(metric)}\N{NO-BREAK SPACE}{'↑' if higher_is_better(metric) else '↓'}"


def comparisons(summary: pd.DataFrame, split: str, model: str) -> list[Comparison]:
    """Compare a model with the best baseline and the bounds under all metrics that have a value in a split."""
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
    """Write comparisons as a table of text; columns without anything are left out."""
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
    """Write the means of all models of a split as a table of text, from the best to the worst mean rank.

    Baselines with equal means share a column, and their names are returned too; metrics without any value are left out.
    """
    part = summary[summary["split"] == split]
    metrics = metrics_in(part, None)
    board = Leaderboard.of(summary, split, metrics, list(dict.fromkeys(map(str, part["model"]))))
    columns: dict[tuple[object, ...], list[str]] = {}
    for model in by_mean_rank([board]):
        means = board.means[board.models.index(model)]
        may_share = not is_own(model) and model not in {FLOOR, CEILING, DUPLICATE}
        # Means that are equal to the last digit under every metric are those of the same cells; NaN does not equal itself.
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

"""Models side by side under several metrics: what plots and exported tables show of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.stats import rankdata

from perturbflow._checks import check_key, check_one_of, check_unique_names
from perturbflow.baselines import BASELINES
from perturbflow.evaluation._tables import CEILING, CHALLENGE, DUPLICATE, FLOOR, FRACTION, HARM
from perturbflow.metrics import METRICS, SUITES

TABLES = {"scores": "", "summary": "_summary", "verdicts": "_verdicts"}
BOUNDS = {FLOOR: f"{FLOOR} (floor)", DUPLICATE: DUPLICATE, CEILING: "real halves (ceiling)"}
POSITIVE_CONTROLS = {CEILING, DUPLICATE}


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """Means of M models under K metrics in one split, NaN where unknown."""

    models: tuple[str, ...]  # from the best to the worst mean rank, then the controls
    metrics: tuple[str, ...]
    means: NDArray[np.float64]  # over conditions (M, K)
    lower: NDArray[np.float64]  # ends of their intervals (M, K)
    upper: NDArray[np.float64]
    n_conditions: NDArray[np.int64]  # largest number behind a mean of a metric (K,)
    beats_baselines: NDArray[np.bool_]  # shown by the interval of the difference to the best (M, K)

    @classmethod
    def of(cls, summary: pd.DataFrame, split: str, metrics: Sequence[str], models: Sequence[str]) -> Leaderboard:
        """Read the table of a split; models and metrics that it lacks are unknown."""
        part = summary[summary["split"] == split]
        wide = part.pivot(index="model", columns="metric")

        def read(column: str) -> NDArray[np.float64]:
            return wide[column].reindex(index=list(models), columns=list(metrics)).to_numpy(dtype=np.float64)

        higher = np.array([higher_is_better(metric) for metric in metrics])
        beats = np.where(higher, read("difference_lower") > 0, read("difference_upper") < 0)
        counts = np.nan_to_num(read("n_conditions")).max(axis=0, initial=0).astype(np.int64)
        return cls(tuple(models), tuple(metrics), read("mean"), read("lower"), read("upper"), counts, beats)

    @property
    def ranked(self) -> NDArray[np.bool_]:
        """Return which rows compete (M,): all but positive controls."""
        return np.array([model not in POSITIVE_CONTROLS for model in self.models])

    @property
    def losses(self) -> NDArray[np.float64]:
        """Return the means with the sign with which lower is better (M, K)."""
        return self.means * [-1.0 if higher_is_better(metric) else 1.0 for metric in self.metrics]

    def ranks(self) -> NDArray[np.float64]:
        """Rank of every model under each metric (M, K), 1 is best, ties share their mean; NaN for what is unknown."""
        values = np.where(self.ranked[:, None], self.losses, np.nan)
        return np.asarray(rankdata(values, axis=0, nan_policy="omit"), dtype=np.float64)

    def is_best(self) -> NDArray[np.bool_]:
        """Return whether no other model has a better mean (M, K)."""
        values = np.where(self.ranked[:, None] & ~np.isnan(self.means), self.losses, np.inf)
        return (values == values.min(axis=0, initial=np.inf)) & np.isfinite(values)

    def positions(self) -> NDArray[np.float64]:
        """Return where means lie between those of the control cells (0) and of the ceiling (1), (M, K).

        NaN for a metric of which a bound is unknown, or under which real cells are no nearer to real cells than the
        controls are.
        """
        bounds = [self.models.index(name) for name in (FLOOR, CEILING) if name in self.models]
        positions = np.full(self.means.shape, np.nan)
        if len(bounds) == 2:
            floor, ceiling = self.losses[bounds]
            np.divide(floor - self.losses, floor - ceiling, out=positions, where=ceiling < floor)
        return positions


def read_table(adata: AnnData, key: str, table: str = "summary") -> pd.DataFrame:
    """Table of an evaluation: "scores", "summary" or "verdicts"; a KeyError says which call makes it."""
    argument = "" if key == "evaluation" else f", key_added={key!r}"
    for name in (key, f"{key}{TABLES[table]}"):
        check_key(name, adata.uns, where="adata.uns", hint=f"Run pf.tl.evaluate(adata{argument}) first.")
    found: pd.DataFrame = adata.uns[f"{key}{TABLES[table]}"]
    return found


def splits_of(table: pd.DataFrame, split: str | None) -> list[str]:
    """The splits of a table, or the one that is asked for."""
    splits = list(dict.fromkeys(map(str, table["split"])))
    if split is None:
        return splits
    check_one_of(split, splits, name="split")
    return [split]


def metrics_in(table: pd.DataFrame, metrics: str | Sequence[str] | None) -> list[str]:
    """Metrics to show: those of the table, or those asked for, of which a suite may have more than the table."""
    present = [
        metric for metric in dict.fromkeys(map(str, table["metric"])) if metric not in {FRACTION, CHALLENGE, *HARM}
    ]
    if metrics is None:
        return present
    if isinstance(metrics, str):
        check_one_of(metrics, SUITES, name="metrics")
        chosen = [metric for metric in SUITES[metrics] if metric in present]
        if not chosen:
            msg = f"Expected metrics of the suite {metrics!r} in the evaluation, found only {present}. Evaluate with this suite."
            raise ValueError(msg)
        return chosen
    return _chosen(metrics, list(dict.fromkeys(map(str, table["metric"]))), name="metrics")


def models_in(table: pd.DataFrame, models: Sequence[str] | None) -> list[str]:
    """Models to show: those of the table or, of these, the ones that are asked for."""
    present = list(dict.fromkeys(map(str, table["model"])))
    return present if models is None else _chosen(models, present, name="models")


def by_mean_rank(boards: Sequence[Leaderboard]) -> list[str]:
    """Names of models from the best to the worst mean rank over all metrics and boards, then the controls."""
    ranks: dict[str, list[float]] = {}
    for board in boards:
        for model, row in zip(board.models, board.ranks(), strict=True):
            ranks.setdefault(model, []).extend(row[~np.isnan(row)])
    others = [model for model in ranks if model not in BOUNDS]
    others.sort(key=lambda model: float(np.mean(ranks[model])) if ranks[model] else np.inf)
    return [*others, *(bound for bound in BOUNDS if bound in ranks)]


def higher_is_better(metric: str) -> bool:
    """Direction of a metric of the summary."""
    return metric not in HARM and (metric in {FRACTION, CHALLENGE} or METRICS[metric].higher_is_better)


def is_own(model: str) -> bool:
    """Return whether a model is neither a baseline nor a control."""
    return model not in BASELINES and model not in POSITIVE_CONTROLS


def _chosen(names: Sequence[str], present: Sequence[str], *, name: str) -> list[str]:
    check_unique_names(names, what=f"`{name}`", hint="Name each once.")
    if isinstance(names, str) or not len(names):
        msg = f"Expected a list of at least one of {sorted(present)} in `{name}`, found {names!r}."
        raise ValueError(msg)
    for one in names:
        check_one_of(one, present, name=name)
    return list(names)

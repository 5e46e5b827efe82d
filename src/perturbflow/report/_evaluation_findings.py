"""Findings of an evaluation: which model is best on held-out conditions, by how much, and what remains unknown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbflow.evaluation._leaderboard import is_own, metrics_in, read_table
from perturbflow.evaluation._tables import (
    BASELINE_BETTER,
    CEILING,
    FLOOR,
    FRACTION,
    HARM,
    MODEL_BETTER,
    NOT_MEASURABLE,
    TIE,
)
from perturbflow.report._model_tables import (
    ALIKE,
    BETTER,
    WORSE,
    Comparison,
    comparison_table,
    comparisons,
    metric_label,
    models_table,
)
from perturbflow.report._summary import Step
from perturbflow.report._words import between, call_with, counted, listed, number

FEW = 6  # conditions: bootstrap intervals over fewer are clearly too narrow
HEADLINE = "energy_distance"
_IN_WORDS = {
    BETTER: "better on average than every baseline",
    WORSE: "worse on average than the best baseline",
    ALIKE: "not significantly different from the best baseline",
}
_COLUMNS_OF_NO_CONDITION = {
    *("split", "model", "best_baseline", "difference", "lower", "upper", "p_value", "n_cells", "n_cells_needed"),
    *("verdict", "finding", *(column for column, _ in HARM.values())),
}


@dataclass(frozen=True, eq=False)
class EvaluationFindings:
    """Findings of an evaluation in its held-out split, or in the first split if none was held out.

    ``left_out`` has the conditions that were not evaluated, with the reason; ``fitted`` the splits used in the fit.
    """

    key: str
    summary: pd.DataFrame
    verdicts: pd.DataFrame
    left_out: pd.DataFrame
    fitted: tuple[str, ...]
    split: str

    @classmethod
    def of(cls, adata: AnnData, key: str) -> EvaluationFindings:
        """Read an evaluation."""
        summary = read_table(adata, key)
        params: dict[str, Any] = dict(adata.uns.get(f"{key}_params", {}))
        fitted = tuple(map(str, params.get("fitted_splits", ())))
        splits = list(dict.fromkeys(map(str, summary["split"])))
        order = [name for name in ("test", "valid", *splits) if name in splits]
        split = next((name for name in order if name not in fitted), order[0])
        left_out = params.get("left_out", pd.DataFrame())
        return cls(key, summary, read_table(adata, key, "verdicts"), pd.DataFrame(left_out), fitted, split)

    @property
    def is_held_out(self) -> bool:
        """Whether the reported split was not used in the fit."""
        return self.split not in self.fitted

    @property
    def models(self) -> list[str]:
        """Models other than baselines."""
        part = self.summary[self.summary["split"] == self.split]
        return [model for model in dict.fromkeys(map(str, part["model"])) if is_own(model)]

    @property
    def headline(self) -> str:
        """Title of the main table."""
        return self._title(self.models[0], self.split) if self.models else self._all_models(self.split)

    def _title(self, model: str, split: str) -> str:
        return f"{model}, baselines and bounds, {self._named(split)}"

    def _all_models(self, split: str) -> str:
        return f"All models, {self._named(split)}"

    def _named(self, split: str) -> str:
        return f"{split}{' (used in the fit)' if split in self.fitted else ''}"

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return all tables by title, those of the reported split first."""
        found: dict[str, pd.DataFrame] = {}
        splits = dict.fromkeys([self.split, *map(str, self.summary["split"])])
        for split in splits:
            for model in self.models:
                if rows := comparisons(self.summary, split, model):
                    found[self._title(model, split)] = comparison_table(rows, model)
            found[self._all_models(split)] = models_table(self.summary, split)[0]
        return found

    def sentences(self) -> list[str]:
        """Say which model is best, by how much, and where it is not."""
        said = []
        for model in self.models:
            rows = comparisons(self.summary, self.split, model)
            if not rows:
                continue
            said += [self._winner(model, rows), *self._range(model), *self._metrics(model, rows)]
            said += [*self._conditions(model), *self._harm(model), *self._beaten_ceilings(model, rows)]
        if not self.models:
            said.append(f"Only baselines were evaluated, on {self._conditions_of_split()}; the table has their scores.")
        merged = models_table(self.summary, self.split)[1]
        said += [
            f"These baselines have identical scores and share a column: {listed(names, most=9)}." for names in merged
        ]
        return said

    def _conditions_of_split(self) -> str:
        part = self.summary[self.summary["split"] == self.split]
        n = int(part["n_conditions"].max())
        kind = "held-out condition" if self.is_held_out else "condition"
        return f"{counted(n, kind)} of the split {self.split!r}"

    def _winner(self, model: str, rows: list[Comparison]) -> str:
        one = next((row for row in rows if row.metric == HEADLINE), rows[0])
        where = f"On {self._conditions_of_split()}"
        fitted = "" if self.is_held_out else ", which were used in the fit and only show how well it fits"
        value = f"{metric_label(one.metric)} {number(one.model)}"
        if not one.best_baseline or np.isnan(one.difference):
            return f"{where}{fitted}, {model} has {value}; no baseline was evaluated."
        against = f"{number(one.baseline)} for the best baseline ({one.best_baseline})"
        if np.isnan(one.lower):
            return f"{where}{fitted}, {model} has {value}, compared with {against}; a single condition has no interval."
        interval = f"difference {number(one.difference)}, {between(one.lower, one.upper)}"
        return f"{where}{fitted}, {model} is {_IN_WORDS[one.finding]}: {value}, compared with {against}; {interval}."

    def _range(self, model: str) -> list[str]:
        part = self.summary[(self.summary["split"] == self.split) & (self.summary["metric"] == FRACTION)]
        share = part.set_index("model")
        if model not in share.index or np.isnan(share["mean"][model]):
            return []
        bounds = self.summary[(self.summary["split"] == self.split) & (self.summary["metric"] == HEADLINE)]
        means = bounds.set_index("model")["mean"]
        baselines = {name: value for name, value in share["mean"].items() if not is_own(str(name)) and name != CEILING}
        best = max(baselines, key=lambda name: baselines[name])
        low, high = float(share["lower"][model]), float(share["upper"][model])
        interval = "" if np.isnan(low) else f" ({between(100 * low, 100 * high)})"
        return [
            f"{metric_label(HEADLINE).capitalize()} is {number(means[FLOOR])} for a prediction of no effect (the floor) and "
            f"{number(means[CEILING])} between two halves of the real cells (the ceiling). From floor to ceiling, {model} "
            f"covers {number(100 * share['mean'][model])} %{interval} and the best baseline, {best}, "
            f"{number(100 * baselines[best])} %."
        ]

    def _metrics(self, model: str, rows: list[Comparison]) -> list[str]:
        judged = [row for row in rows if row.finding in _IN_WORDS]
        if len(judged) < 2:
            return []
        by = {finding: [metric_label(row.metric) for row in judged if row.finding == finding] for finding in _IN_WORDS}
        names = {
            finding: f" ({listed(labels)})" if labels and finding != ALIKE else "" for finding, labels in by.items()
        }
        return [
            f"Of {len(judged)} metrics, {model} is better than the respective best baseline on {len(by[BETTER])}"
            f"{names[BETTER]}, worse on {len(by[WORSE])}{names[WORSE]}, and not significantly different on {len(by[ALIKE])}."
        ]

    def _of_model(self, model: str) -> pd.DataFrame:
        if not len(self.verdicts):
            return self.verdicts
        return self.verdicts[(self.verdicts["split"] == self.split) & (self.verdicts["model"] == model)]

    def _conditions(self, model: str) -> list[str]:
        part = self._of_model(model)
        if not len(part):
            return []
        verdicts = part["verdict"].astype(str)
        n = {name: int((verdicts == name).sum()) for name in (MODEL_BETTER, BASELINE_BETTER, TIE)}
        losses = f" ({listed(self._names(part[verdicts == BASELINE_BETTER]))})" if n[BASELINE_BETTER] else ""
        return [
            f"By condition, {model} is better than every baseline in {n[MODEL_BETTER]}, a baseline is better in "
            f"{n[BASELINE_BETTER]}{losses}, and no difference could be shown in {n[TIE]}."
        ]

    def _harm(self, model: str) -> list[str]:
        part = self._of_model(model)
        if not len(part):
            return []
        worse = part[part["worse_than_controls"] == 1]
        if not len(worse):
            return []
        return [
            f"In {counted(len(worse), 'condition')}, {model} is significantly worse than predicting no effect: "
            f"{listed(self._names(worse))}."
        ]

    def _beaten_ceilings(self, model: str, rows: list[Comparison]) -> list[str]:
        beaten = [metric_label(row.metric) for row in rows if row.sign * (row.model - row.ceiling) > 0]
        if not beaten:
            return []
        why = (
            "the ceiling compares two halves of the real cells, which are noisier than all cells"
            if self.is_held_out
            else "these cells were used in the fit"
        )
        return [
            f"On {listed(beaten)}, {model} is better than the ceiling. This is possible and does not mean that the model is "
            f"perfect: {why}."
        ]

    def _names(self, part: pd.DataFrame) -> list[str]:
        """Name conditions with their context."""
        columns = [name for name in part.columns if name not in {*_COLUMNS_OF_NO_CONDITION, "perturbation"}]
        return [
            f"{row['perturbation']}" + (f" in {', '.join(str(row[name]) for name in columns)}" if columns else "")
            for _, row in part.iterrows()
        ]

    def limits(self) -> list[str]:
        """Say what the evaluation does not show."""
        said = []
        if not self.is_held_out:
            said.append("The accuracy on unseen conditions: no held-out condition was evaluated.")
        elif self.split == "valid":
            said.append("The accuracy on unseen conditions: settings were chosen on these conditions.")
        if len(self.left_out):
            names = self._names(self.left_out.drop(columns="reason"))
            said.append(f"{counted(len(names), 'condition')} with too few cells: {listed(names)}.")
        for model in self.models:
            part = self._of_model(model)
            if not len(part):
                continue
            hidden = part[part["verdict"].astype(str) == NOT_MEASURABLE]
            if len(hidden):
                needed = hidden["n_cells_needed"].to_numpy(dtype=np.float64)
                known = needed[np.isfinite(needed)]
                cells = f". About {number(float(np.median(known)))} cells each would be needed" if len(known) else ""
                said.append(
                    f"{counted(len(hidden), 'condition')} without a detectable effect, on which no model can be evaluated: "
                    f"{listed(self._names(hidden))}{cells}."
                )
        part = self.summary[self.summary["split"] == self.split]
        undefined = [
            metric for metric in metrics_in(part, None) if part.loc[part["metric"] == metric, "mean"].isna().all()
        ]
        if undefined:
            said.append(f"Metrics that are undefined for these conditions: {listed(map(metric_label, undefined))}.")
        n = int(part["n_conditions"].max())
        if n == 1:
            said.append("The accuracy on other conditions: only one was evaluated, and intervals require more.")
        elif n < FEW:
            said.append(f"The uncertainty of the averages: intervals over {n} conditions are too narrow.")
        return said

    def steps(self) -> list[Step]:
        """Say what to do next."""
        key = None if self.key == "evaluation" else self.key
        steps = []
        if len(self.verdicts):
            look = call_with("pl.verdicts", key=key, split=self.split)
            steps.append(Step("View every condition", look))
        for model in self.models:
            rows = comparisons(self.summary, self.split, model)
            one = next((row for row in rows if row.metric == HEADLINE), rows[0] if rows else None)
            if one is not None and one.finding == WORSE:
                steps.append(
                    Step(f"Use the simpler model: {one.best_baseline} is better", call_with("pl.leaderboard", key=key))
                )
        if not self.is_held_out:
            steps.append(Step("Evaluate held-out conditions", call_with("tl.evaluate", splits="test")))
        return steps

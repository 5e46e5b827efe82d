"""Tables of an evaluation: scores, their summary over conditions, and a verdict on every condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from perturbflow.metrics import METRICS
from perturbflow.metrics._dynamic_range import pooled_dynamic_range_fraction

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perturbflow.metrics._clouds import CloudScores

FLOOR = "control cells"
CEILING = "ceiling"
DUPLICATE = "interpolated duplicate"
FRACTION = "dynamic_range_fraction"
CHALLENGE = "challenge_score"
PRIOR = "shifted controls"  # the flow without its network
# Shares of conditions that a model has made worse than these are, and the columns of the verdicts that say which.
HARM = {"harm_against_controls": ("worse_than_controls", FLOOR), "harm_against_prior": ("worse_than_prior", PRIOR)}
CONFIDENCE = 0.95
NOT_MEASURABLE, MODEL_BETTER, TIE, BASELINE_BETTER = (
    "not measurable at this number of cells",
    "model better",
    "no difference could be shown",
    "a baseline is better",
)


def summary_table(
    table: pd.DataFrame,
    *,
    baselines: Sequence[str],
    n_resamples: int,
    rng: np.random.Generator,
    further: Sequence[Mapping[str, Any]] = (),
) -> pd.DataFrame:
    """Summarise scores over conditions, with intervals, and compare every model with the best baseline.

    Parameters
    ----------
    table
        Scores, one row per condition, model and metric.
    baselines
        Which models are baselines.
    n_resamples
        Bootstrap samples of conditions.
    rng
        Random generator.
    further
        Further rows, such as those of metrics that have one value for a whole split.

    Returns
    -------
    One row per split, model and metric: ``mean``, ``sd``, ``n_conditions``, ``lower`` and ``upper`` (percentile
    bootstrap over conditions, 95 %), ``best_baseline`` (by its mean), and ``difference``, ``difference_lower`` and
    ``difference_upper`` to it, paired over the conditions that both have.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> rows = [
    ...     ("test", name, model, "mmd", value)
    ...     for name, *values in (("A", 0.1, 0.3), ("B", 0.2, 0.5))
    ...     for model, value in zip(("mine", "mean effect"), values)
    ... ]
    >>> scores = pd.DataFrame(rows, columns=["split", "perturbation", "model", "metric", "value"])
    >>> table = summary_table(scores, baselines=["mean effect"], n_resamples=100, rng=np.random.default_rng(0))
    >>> table.set_index("model")[["mean", "difference"]].round(2).loc["mine"].tolist()
    [0.15, -0.25]
    """
    rows = []
    labels = _labels(table)
    for (split, metric), part in table.groupby(["split", "metric"], sort=False, observed=True):
        models = list(dict.fromkeys(part["model"]))
        wide = part.set_index([*labels, "model"])["value"].unstack("model")[models]
        values = wide.to_numpy()
        lower, upper = interval(resampled_means(values, n_resamples, rng))
        few = (~np.isnan(values)).sum(axis=0) < 2  # conditions, which say nothing of others
        lower[few], upper[few] = np.nan, np.nan
        best = best_of(values, models, baselines, higher_is_better=METRICS[metric].higher_is_better)
        for place, model in enumerate(models):
            known = values[~np.isnan(values[:, place]), place]
            row = {"split": split, "model": model, "metric": metric, "mean": known.mean() if len(known) else np.nan}
            row |= {"sd": known.std(ddof=1) if len(known) > 1 else np.nan, "n_conditions": len(known)}
            row |= {"lower": lower[place], "upper": upper[place], "best_baseline": ""}
            row |= {"difference": np.nan, "difference_lower": np.nan, "difference_upper": np.nan}
            if best is not None and model not in {CEILING, DUPLICATE, best}:
                against = values[:, place] - values[:, models.index(best)]
                ends = interval(resampled_means(against[:, None], n_resamples, rng))
                low, high = (end[0] if (~np.isnan(against)).sum() > 1 else np.nan for end in ends)
                row |= {"best_baseline": best, "difference": _mean(against)}
                row |= {"difference_lower": low, "difference_upper": high}
            rows.append(row)
    order = {name: place for place, name in enumerate(dict.fromkeys(table["split"]))}
    model_order = {name: place for place, name in enumerate(dict.fromkeys(table["model"]))}
    rows.sort(key=lambda row: (order[row["split"]], model_order[row["model"]]))
    return pd.DataFrame(rows + list(further) + _fractions(table, n_resamples, rng))


def _labels(table: pd.DataFrame) -> list[str]:
    """Columns that name a condition."""
    return [name for name in table.columns if name not in {"model", "metric", "value", "n_cells"}]


def _fractions(table: pd.DataFrame, n_resamples: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Share of the range between controls and ceiling that models cover, as a ratio of means over conditions."""
    rows: list[dict[str, Any]] = []
    energies = table[table["metric"] == "energy_distance"]
    for split, part in energies.groupby("split", sort=False, observed=True):
        wide = part.set_index([*_labels(table), "model"])["value"].unstack("model")
        if FLOOR not in wide or CEILING not in wide:
            continue
        bounds, n = wide[[FLOOR, CEILING]].to_numpy().T, len(wide)
        weights = rng.multinomial(n, np.full(n, 1 / n), size=n_resamples)
        for model in dict.fromkeys(part["model"]):
            scores = wide[model].to_numpy()
            known = ~np.isnan(scores)
            three = [each[known] for each in (scores, *bounds)]
            fraction = pooled_dynamic_range_fraction(*three) if known.any() else np.nan
            model_sum, floor_sum, ceiling_sum = (weights[:, known] @ each for each in three)
            span = floor_sum - ceiling_sum
            ratios = np.divide(floor_sum - model_sum, span, out=np.full(len(span), np.nan), where=span > 0)
            low, high = (end[0] if known.sum() > 1 else np.nan for end in interval(ratios[:, None]))
            rows.append(
                {"split": split, "model": model, "metric": FRACTION, "mean": fraction, "sd": np.nan}
                | {"n_conditions": int(known.sum()), "lower": low, "upper": high, "best_baseline": ""}
                | {"difference": np.nan, "difference_lower": np.nan, "difference_upper": np.nan}
            )
    return rows


def best_of(
    values: NDArray[np.float64], models: Sequence[str], names: Sequence[str], *, higher_is_better: bool
) -> str | None:
    """Of some models the one with the best mean over the conditions (rows) that it has; None if none has any."""
    means = {name: _mean(values[:, models.index(name)]) for name in names if name in models}
    means = {name: -mean if higher_is_better else mean for name, mean in means.items() if not np.isnan(mean)}
    return min(means, key=lambda name: means[name]) if means else None


def resampled_means(values: NDArray[np.float64], n_resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Means of the columns over bootstrap samples of the rows (B, M); rows are drawn together, NaN left out."""
    n = len(values)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=n_resamples).astype(np.float64)
    known = ~np.isnan(values)
    counts = weights @ known
    return np.divide(
        weights @ np.where(known, values, 0.0), counts, out=np.full(counts.shape, np.nan), where=counts > 0
    )


def interval(draws: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ends of the central 95 % of every column; NaN where there are fewer than two draws or a column is unknown."""
    low, high = np.full(draws.shape[1], np.nan), np.full(draws.shape[1], np.nan)
    known = ~np.isnan(draws).all(axis=0)
    if len(draws) > 1 and known.any():
        low[known], high[known] = np.nanquantile(draws[:, known], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    return low, high


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def verdict_rows(
    labels: Mapping[str, Any],
    scores: Mapping[str, CloudScores],
    *,
    baselines: Sequence[str],
    p_value: float,
    cells_needed: float,
    n_resamples: int,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """Judge every model that is no baseline at one condition, by energy scores of the same real cells.

    A row a model. The difference is that of energy distances, to the best baseline at this condition: choosing it
    afterwards favours baselines. Its interval knows that real and predicted cells are samples; that two models start
    from the same controls would only make it narrower. Whether the model is shown to be worse than the controls and than
    the prior is NaN where these are not among the baselines. ``finding`` is the verdict in words. ``p_value`` and
    ``cells_needed`` are of the test that the real cells differ from the controls at all.
    """
    known = [name for name in baselines if name in scores]
    if not known:
        return []
    best = min(known, key=lambda name: scores[name].energy_distance)
    rows = []
    for model, own in scores.items():
        if model in baselines:
            continue
        difference, low, high = _difference(own, scores[best], n_resamples, rng)
        verdict = TIE
        if p_value > 1 - CONFIDENCE:
            verdict = NOT_MEASURABLE
        elif high < 0:
            verdict = MODEL_BETTER
        elif low > 0:
            verdict = BASELINE_BETTER
        harm = {
            column: float(_is_worse(own, scores[name])) if name in known else np.nan for column, name in HARM.values()
        }
        better = [best] if verdict == BASELINE_BETTER else []
        if better and best != FLOOR and harm["worse_than_controls"] == 1:
            better.append(FLOOR)
        rows.append(
            {**labels, "model": model, "best_baseline": best, "difference": difference, "lower": low, "upper": high}
            | {"p_value": p_value, "n_cells": len(own.energy_scores), "n_cells_needed": cells_needed, **harm}
            | {"verdict": verdict, "finding": _finding(verdict, model, best, better)}
        )
    return rows


def _difference(
    own: CloudScores, other: CloudScores, n_resamples: int, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Difference of energy distances, paired over real cells, with the ends of its interval."""
    difference = 2.0 * (own.energy_scores - other.energy_scores)
    draws = resampled_means(difference[:, None], n_resamples, rng)
    draws += rng.normal(0.0, np.sqrt(own.sampling_variance + other.sampling_variance), draws.shape)
    low, high = interval(draws)
    return float(difference.mean()), float(low[0]), float(high[0])


def _is_worse(own: CloudScores, other: CloudScores) -> bool:
    """Return whether the energy distance is larger by more than sampling explains (one-sided, 97.5 %)."""
    difference = 2.0 * (own.energy_scores - other.energy_scores)
    variance = difference.var(ddof=1) / len(difference) + own.sampling_variance + other.sampling_variance
    return bool(difference.mean() > ndtri((1 + CONFIDENCE) / 2) * np.sqrt(variance))


def harm_rows(verdicts: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for the summary: in which share of the conditions a model is shown to be worse than the controls, or its prior.

    Intervals are those of Wilson for a share.
    """
    rows: list[dict[str, Any]] = []
    for (split, model), part in verdicts.groupby(["split", "model"], sort=False) if len(verdicts) else ():
        for metric, (column, _) in HARM.items():
            known = part[column].dropna().to_numpy(dtype=np.float64)
            n = len(known)
            if not n:
                continue
            rate = known.mean()
            low, high = _wilson(rate, n) if n > 1 else (np.nan, np.nan)
            rows.append(
                {"split": split, "model": model, "metric": metric, "mean": rate, "sd": np.nan, "n_conditions": n}
                | {"lower": low, "upper": high, "best_baseline": "", "difference": np.nan}
                | {"difference_lower": np.nan, "difference_upper": np.nan}
            )
    return rows


def _wilson(rate: float, n: int) -> tuple[float, float]:
    """Interval of a share of n, which has a length also where none or all are counted (Wilson, JASA 1927)."""
    z = ndtri((1 + CONFIDENCE) / 2)
    centre, half = rate + z**2 / (2 * n), z * np.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    low, high = ((centre + sign * half) / (1 + z**2 / n) for sign in (-1, 1))
    return max(0.0, float(low)), min(1.0, float(high))


def _finding(verdict: str, model: str, best: str, better: Sequence[str]) -> str:
    """The verdict in words, with the names of model and baselines."""
    in_words = {name: f"no effect ({FLOOR})" if name == FLOOR else name for name in {best, *better}}
    if verdict == MODEL_BETTER:
        return f"{model} is better than every baseline; the best is {in_words[best]}"
    if verdict == BASELINE_BETTER:
        return f"{' and '.join(in_words[name] for name in better)} {'are' if better[1:] else 'is'} better than {model}"
    return f"{verdict} between {model} and {in_words[best]}" if verdict == TIE else verdict

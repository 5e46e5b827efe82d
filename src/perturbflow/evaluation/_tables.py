"""Tables of an evaluation: scores, their summary over conditions, and a verdict on every condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri
from scipy.stats import binomtest

from perturbflow.metrics import METRICS, SUITES, Metric, Strengths, challenge_score, dynamic_range_fraction
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
            row = summary_row(split, model, metric, mean_of_known(known), len(known), (lower[place], upper[place]))
            row["sd"] = known.std(ddof=1) if len(known) > 1 else np.nan
            if best is not None and model not in {CEILING, DUPLICATE, best}:
                against = values[:, place] - values[:, models.index(best)]
                ends = interval(resampled_means(against[:, None], n_resamples, rng))
                low, high = (end[0] if (~np.isnan(against)).sum() > 1 else np.nan for end in ends)
                row |= difference_to(best, mean_of_known(against), low, high)
            rows.append(row)
    order = {name: place for place, name in enumerate(dict.fromkeys(table["split"]))}
    model_order = {name: place for place, name in enumerate(dict.fromkeys(table["model"]))}
    rows.sort(key=lambda row: (order[row["split"]], model_order[row["model"]]))
    return pd.DataFrame(rows + list(further) + _fractions(table, n_resamples, rng))


def summary_row(
    split: str, model: str, metric: str, mean: float, n_conditions: int, ends: tuple[float, float] = (np.nan, np.nan)
) -> dict[str, Any]:
    """Return a row of the summary, with the ends of the interval of the mean and no difference to a baseline."""
    row = {"split": split, "model": model, "metric": metric, "mean": mean, "sd": np.nan, "n_conditions": n_conditions}
    return row | {"lower": ends[0], "upper": ends[1]} | difference_to("", np.nan, np.nan, np.nan)


def difference_to(baseline: str, difference: float, lower: float, upper: float) -> dict[str, Any]:
    """Return what a row of the summary says of the best baseline."""
    ends = {"difference_lower": lower, "difference_upper": upper}
    return {"best_baseline": baseline, "difference": difference} | ends


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
            # Of the means: fractions of single conditions would be decided by those of the smallest effects.
            fraction = dynamic_range_fraction(*map(mean_of_known, three))
            model_sum, floor_sum, ceiling_sum = (weights[:, known] @ each for each in three)
            span = floor_sum - ceiling_sum
            ratios = np.divide(floor_sum - model_sum, span, out=np.full(len(span), np.nan), where=span > 0)
            low, high = (end[0] if known.sum() > 1 else np.nan for end in interval(ratios[:, None]))
            rows.append(summary_row(split, model, FRACTION, fraction, int(known.sum()), (low, high)))
    return rows


def best_of(
    values: NDArray[np.float64], models: Sequence[str], names: Sequence[str], *, higher_is_better: bool
) -> str | None:
    """Of some models the one with the best mean over the conditions (rows) that it has; None if none has any."""
    means = {name: mean_of_known(values[:, models.index(name)]) for name in names if name in models}
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


def mean_of_known(values: ArrayLike) -> float:
    """Return the mean of the values that are known, or NaN."""
    found = np.asarray(values, dtype=np.float64)
    known = found[~np.isnan(found)]
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
            if n := len(known):
                # That of Wilson has a length also where none or all are counted.
                ends = binomtest(int(known.sum()), n).proportion_ci(CONFIDENCE, method="wilson")
                interval_of_rate = (ends.low, ends.high) if n > 1 else (np.nan, np.nan)
                rows.append(summary_row(split, model, metric, known.mean(), n, interval_of_rate))
    return rows


def _finding(verdict: str, model: str, best: str, better: Sequence[str]) -> str:
    """The verdict in words, with the names of model and baselines."""
    in_words = {name: f"no effect ({FLOOR})" if name == FLOOR else name for name in {best, *better}}
    if verdict == MODEL_BETTER:
        return f"{model} is better than every baseline; the best is {in_words[best]}"
    if verdict == BASELINE_BETTER:
        return f"{' and '.join(in_words[name] for name in better)} {'are' if better[1:] else 'is'} better than {model}"
    return f"{verdict} between {model} and {in_words[best]}" if verdict == TIE else verdict


BASELINE = "mean effect"
# Errors are not divided by the sizes of effects here: on a scale between two ends a common factor cancels.
NAMES = {
    "discrimination_score": "pds_cosine",
    "unbiased_mse_capped": "expr_mse_unbiased_capped_norm",
    "direction_fidelity_yield": "de_wilcoxon_direction_fidelity_yield_raw",
    "direction_reach": "de_wilcoxon_direction_reach_raw",
    "jaccard_of_significant_genes": "de_wilcoxon_sig_jaccard",
    "relative_error_of_log_fold_changes": "de_wilcoxon_lfc_nmae",
}


def with_challenge_scores(summary: pd.DataFrame) -> pd.DataFrame:
    """Return a summary with the challenge's score of every model, by split.

    It has further rows, with the mean of :func:`perturbflow.metrics.challenge_score`, where it has all six metrics, the
    baseline "mean effect" and the ceiling.
    """
    rows: list[dict[str, Any]] = []
    part = summary[summary["metric"].isin(SUITES["vcc2026"])]
    for split, here in part.groupby("split", sort=False):
        means = here.pivot(index="model", columns="metric", values="mean").rename(columns=NAMES)
        if not {BASELINE, CEILING} <= {*means.index} or len(means.columns) < len(NAMES):
            continue
        counts = here.groupby("model", sort=False)["n_conditions"].min()
        for model in counts.index.drop([CEILING, DUPLICATE], errors="ignore"):
            score = challenge_score(*(means.loc[name].to_dict() for name in (model, BASELINE, CEILING)))["mean"]
            row = {"split": split, "model": model, "metric": CHALLENGE, "mean": score, "best_baseline": ""}
            rows.append(row | {"n_conditions": int(counts[model])})
    return pd.DataFrame(summary.to_dict("records") + rows, columns=summary.columns) if rows else summary


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
                row = summary_row(split, model, metric.name, found[0], int(known[model].sum()), (low, high))
                if best is not None and model not in {CEILING, DUPLICATE, best}:
                    both = known[model] & known[best]
                    own, other = (
                        values[name]
                        if known[name].sum() == both.sum()
                        else _values(metric, by_model[name], both, drawn)
                        for name in (model, best)
                    )
                    difference = own - other
                    row |= difference_to(best, difference[0], *_interval(difference[1:], both))
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

"""Tables and figures of the calibration of metrics, from the table of scores."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from _cheaters import CHEATERS, NEGATIVES
from _common import markdown
from scipy.stats import rankdata

from perturbflow.metrics import METRICS, SUITES

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

HONEST = "fresh cells"
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
LEAST_DISCRIMINATION = 0.9
LEAST_RANGE = 0.5
N_RESAMPLES = 2000
CONFIDENCE = 0.95
COLOURS = {"control cells": "#0072B2", "mean perturbed": "#D55E00"}  # Okabe and Ito
N_SIGNIFICANT = "significant genes"
ROUNDING = 1e-6  # of the range: smaller differences are none
CAUGHT, FOOLED, SAME, UNDEFINED = "caught", "fooled", "same", "undefined"


def mixed(negative: str, share: float) -> str:
    """Name of a mixture."""
    return HONEST if share == 1.0 else f"{share:g} of fresh cells, else {negative}"


@dataclass(frozen=True)
class Scores:
    """Scores of every condition (rows: seed and condition) by model, oriented so that larger is better."""

    metric: str
    values: pd.DataFrame

    @classmethod
    def of(cls, table: pd.DataFrame, metric: str) -> Scores:
        """Read those of one metric."""
        part = table[table["metric"] == metric]
        wide = part.pivot(index=["seed", "perturbation"], columns="model", values="value")
        return cls(metric, wide if METRICS[metric].higher_is_better else -wide)

    @property
    def best(self) -> float:
        """Value of a perfect prediction."""
        best = METRICS[self.metric].best
        return best if METRICS[self.metric].higher_is_better else -best

    def difference(self, model: str, other: str) -> tuple[float, float, float]:
        """Mean difference over the conditions that both have, with its interval."""
        both = (self.values[model] - self.values[other]).dropna().to_numpy()
        return with_interval(both)


def with_interval(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean and the ends of its bootstrap interval; NaN of nothing."""
    if len(values) < 2:
        return (np.nan,) * 3
    means = weights(len(values)) @ values
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(values.mean()), float(low), float(high)


@cache
def weights(n: int) -> NDArray[np.float64]:
    """Weights of n values in every bootstrap sample."""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=N_RESAMPLES) / n


def rank_correlations(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spearman correlation of every row with the shares; 0 for a constant row."""
    ranks = rankdata(values, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    shares = np.arange(len(SHARES)) - (len(SHARES) - 1) / 2
    norms = np.linalg.norm(ranks, axis=1) * np.linalg.norm(shares)
    return np.divide(ranks @ shares, norms, out=np.zeros(len(ranks)), where=norms > 0)


def calibration(scores: Scores, negative: str) -> dict[str, float | str | bool]:
    """How one metric behaves between a negative and the positive control."""
    names = [mixed(negative, share) for share in SHARES]
    values = scores.values[names]
    known = values.dropna()
    row: dict[str, float | str | bool] = {"metric": scores.metric, "negative": negative}
    row |= {f"at {share:g}": float(mean) for share, mean in zip(SHARES, known.mean(), strict=True)}
    row["undefined"] = float(values.isna().any(axis=1).mean())
    if len(known) < 2:
        return row | {"calibrated": False, "why": "undefined"}
    steps = [(a, b, *scores.difference(mixed(negative, b), mixed(negative, a))) for a, b in pairwise(SHARES)]
    wrong = [(a, b) for a, b, _, _, high in steps if high < 0]
    worst, best = known[names[0]], known[HONEST]
    share_better = float(((best > worst) + 0.5 * (best == worst)).mean())
    mean, low, _ = scores.difference(HONEST, names[0])
    span = scores.best - float(worst.mean())
    fraction = mean / span if span > 0 else np.nan
    of_conditions = rank_correlations(known.to_numpy())
    row |= {
        "Spearman of the mean": float(rank_correlations(known.mean().to_numpy()[None])[0]),
        "Spearman of a condition": float(of_conditions.mean()),
        "wrong steps": len(wrong),
        "positive better": share_better,
        "half-way": (float(known[names[2]].mean()) - float(worst.mean())) / mean if low > 0 else np.nan,
        "dynamic range": fraction,
    }
    reasons = [f"worse from {a:g} to {b:g}" for a, b in wrong]
    if not low > 0:
        reasons.append("does not tell the ends apart")
    elif share_better < LEAST_DISCRIMINATION:
        reasons.append(f"positive control better in only {share_better:.0%} of conditions")
    if not fraction >= LEAST_RANGE:
        reasons.append(f"positive control reaches only {max(fraction, 0.0):.0%} of the range")
    return row | {"calibrated": not reasons, "why": "; ".join(reasons)}


def judgement(scores: Scores, cheater: str) -> dict[str, float | str]:
    """Whether a metric catches a cheater."""
    mean, low, high = scores.difference(cheater, HONEST)
    span, least, _ = scores.difference(HONEST, mixed("control cells", 0.0))
    undefined = scores.values[cheater].isna() & scores.values[HONEST].notna()
    verdict = SAME
    if np.isnan(mean) or undefined.mean() > 0.5:
        verdict = UNDEFINED
    elif high < -ROUNDING * abs(span):
        verdict = CAUGHT
    elif low > ROUNDING * abs(span):
        verdict = FOOLED
    row = {"metric": scores.metric, "cheater": cheater, "difference": mean, "lower": low, "upper": high}
    # 1 is as much worse than the fresh cells as controls are.
    return row | {"loss": -mean / span if least > 0 else np.nan, "verdict": verdict}


def report(table: pd.DataFrame, stem: Path) -> None:
    """Print and save everything, for every number of cells."""
    ends, faults = [], []
    metrics = [name for name in METRICS if name in set(table["metric"])]
    for n_cells, part in table.groupby("cells", sort=False):
        scores = [Scores.of(part, metric) for metric in metrics]
        found = pd.DataFrame([calibration(each, negative) for each in scores for negative in NEGATIVES])
        caught = pd.DataFrame([judgement(each, cheater) for each in scores for cheater in CHEATERS])
        ends.append(found.assign(cells=n_cells))
        faults.append(caught.assign(cells=n_cells))
        n_conditions = max(len(each.values) for each in scores)
        print(f"\n{n_cells:g} real cells a condition, {n_conditions} conditions over {part['seed'].nunique()} seeds")
        print_calibration(found)
        print_cheaters(caught)
        counts = part[part["metric"] == N_SIGNIFICANT].groupby("model", sort=False)["value"].mean()
        print("\nSignificant genes, mean over conditions:", ", ".join(f"{m} {n:.1f}" for m, n in counts.items()))
        draw_interpolation(scores, stem.with_name(f"{stem.name}_interpolation_{n_cells:g}.png"))
        draw_cheaters(caught, stem.with_name(f"{stem.name}_cheaters_{n_cells:g}.png"))
    pd.concat(ends).to_csv(stem.with_name(f"{stem.name}_ends.csv"), index=False)
    pd.concat(faults).to_csv(stem.with_name(f"{stem.name}_cheaters.csv"), index=False)


def print_calibration(found: pd.DataFrame) -> None:
    """Print every metric, and those that are not calibrated with the reasons."""
    shown = {}
    for (metric, negative), row in found.set_index(["metric", "negative"]).iterrows():
        cells = [f"{row[f'at {share:g}']:.3g}" for share in SHARES]
        if not METRICS[metric].higher_is_better:
            cells = [f"{-row[f'at {share:g}']:.3g}" for share in SHARES]
        shown[metric, negative] = {
            "share 0": cells[0],
            "0.5": cells[2],
            "1": cells[-1],
            "Spearman": f"{row['Spearman of the mean']:.2f} ({row['Spearman of a condition']:.2f})",
            "wrong steps": f"{row['wrong steps']:.0f}",
            "positive better": f"{row['positive better']:.0%}",
            "half-way": f"{row['half-way']:.2f}",
            "dynamic range": f"{row['dynamic range']:.2f}",
            "calibrated": "yes" if row["calibrated"] else "no",
        }
    print("\nBetween a negative control and fresh cells; Spearman of the mean over conditions (mean of each)\n")
    print(markdown(pd.DataFrame.from_dict(shown, orient="index").rename_axis(["metric", "negative control"])))
    monotone = found[(found["wrong steps"] == 0) & (found["Spearman of the mean"] > 0)]
    others = found[~found.index.isin(monotone.index)]
    names = ", ".join(f"{row.metric} ({row.negative}: {row.why})" for row in others.itertuples())
    print(f"\n{len(monotone)} of {len(found)} monotone; not: {names or 'none'}")
    print(f"\n{found['calibrated'].sum()} of {len(found)} calibrated")
    print("Not calibrated:\n")
    for metric, part in found[~found["calibrated"]].groupby("metric", sort=False):
        reasons = [f"{row.negative}: {row.why}" for row in part.itertuples()]
        print(f"- {metric} ({' | '.join(reasons)})")


def print_cheaters(caught: pd.DataFrame) -> None:
    """Print what each cheater loses, and how many metrics of every suite catch it."""
    default = caught[caught["metric"].isin(SUITES["default"])]
    text = caught["loss"].map(lambda loss: f"{loss:.2f}" if np.isfinite(loss) else "?").replace("-0.00", "0.00")
    marks = {CAUGHT: "**", FOOLED: "!", SAME: "", UNDEFINED: ""}
    text = caught["verdict"].map(marks) + text + caught["verdict"].map(marks)
    text = text.where(caught["verdict"] != UNDEFINED, "–")
    wide = caught.assign(text=text).pivot(index="metric", columns="cheater", values="text")
    wide = wide.loc[list(dict.fromkeys(caught["metric"])), list(CHEATERS)]
    print(
        "\nLoss against fresh cells in units of what controls lose (? where that is nothing); **caught**, !preferred!, "
        "– undefined\n"
    )
    print(markdown(wide))
    print("\nMetrics of the default suite that catch each cheater\n")
    for cheater in CHEATERS:
        part = default[default["cheater"] == cheater]
        by = part.loc[part["verdict"] == CAUGHT, "metric"].tolist()
        fooled = part.loc[part["verdict"] == FOOLED, "metric"].tolist()
        print(
            f"- {cheater}: {len(by)} of {len(part)} ({', '.join(by) or 'NONE'}); fooled: {', '.join(fooled) or 'none'}"
        )


def draw_interpolation(scores: list[Scores], path: Path) -> None:
    """Draw every metric against the share of fresh cells, from 0 (negative control) to 1 (a perfect prediction)."""
    n_columns = 6
    n_rows = -(-len(scores) // n_columns)
    figure, axes = plt.subplots(
        n_rows, n_columns, figsize=(2.3 * n_columns, 1.9 * n_rows), sharex=True, layout="constrained", squeeze=False
    )
    for axis, each in zip(axes.flat, scores, strict=False):
        for negative, colour in COLOURS.items():
            values = each.values[[mixed(negative, share) for share in SHARES]].dropna()
            if len(values) < 2:
                continue
            ends = [with_interval(values[name].to_numpy()) for name in values]
            mean, low, high = (np.array(side) for side in zip(*ends, strict=True))
            sign = 1 if METRICS[each.metric].higher_is_better else -1
            axis.fill_between(SHARES, sign * low, sign * high, color=colour, alpha=0.2, linewidth=0)
            axis.plot(SHARES, sign * mean, "o-", color=colour, markersize=3, linewidth=1, label=negative)
        axis.axhline(METRICS[each.metric].best, color="0.6", linewidth=0.8, linestyle=":")
        axis.set_title(each.metric.replace("_of_", "\nof ").replace("_", " "), fontsize=7)
        axis.tick_params(labelsize=6)
    for axis in axes.flat[len(scores) :]:
        axis.set_visible(False)
    figure.supxlabel("share of fresh cells of the truth; the rest is the negative control", fontsize=8)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw_cheaters(caught: pd.DataFrame, path: Path) -> None:
    """Draw the loss of every cheater in every metric; what is not told from honest is pale."""
    metrics, cheaters = list(dict.fromkeys(caught["metric"])), list(CHEATERS)
    loss = caught.pivot(index="metric", columns="cheater", values="loss").loc[metrics, cheaters]
    verdict = caught.pivot(index="metric", columns="cheater", values="verdict").loc[metrics, cheaters]
    figure, axis = plt.subplots(figsize=(1.6 + 0.75 * len(cheaters), 1.4 + 0.24 * len(metrics)), layout="constrained")
    sign = (verdict == CAUGHT).astype(float) - (verdict == FOOLED).astype(float)
    shown = (sign * loss.abs().clip(upper=1.0).fillna(0.5)).to_numpy()
    image = axis.imshow(shown, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    for row, metric in enumerate(metrics):
        for column, cheater in enumerate(cheaters):
            value = loss.loc[metric, cheater]
            colour = "white" if abs(shown[row, column]) > 0.6 else "0.25"
            text = f"{value:.2f}".replace("-0.00", "0.00") if np.isfinite(value) else "?"
            text = "–" if verdict.loc[metric, cheater] == UNDEFINED else text
            axis.text(column, row, text, ha="center", va="center", fontsize=6, color=colour)
    default = set(SUITES["default"])
    axis.set_yticks(range(len(metrics)), [f"{name} *" if name in default else name for name in metrics], fontsize=6)
    axis.set_xticks(range(len(cheaters)), cheaters, rotation=40, ha="left", fontsize=7)
    axis.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    bar = figure.colorbar(image, ax=axis, shrink=0.5)
    bar.set_label("loss in units of what controls lose (* default suite)", fontsize=7)
    bar.ax.tick_params(labelsize=6)
    figure.savefig(path, dpi=150)
    plt.close(figure)

"""Table, comparisons and figures of the ablation, from the files that it saves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from _common import ENERGY, FLOOR, METRICS, markdown, mean_and_spread

from perturbflow.baselines import BASELINES
from perturbflow.metrics import METRICS as KNOWN

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

NOISE_SUFFIX, CONTROL_SUFFIX = ", noise", ", control"
PCA_MODEL = "PCA + MLP, velocity, noise"
# Network and parametrisation of a preset, and the row whose training is its own.
PRESET_OF = {"default": ("MLP", "zero_inflated"), "primeflow": ("U-Net", "velocity")}
CURVE_OF = {"default": "MLP, zero_inflated" + CONTROL_SUFFIX, "primeflow": "U-Net, velocity" + NOISE_SUFFIX}

SPLITS = {"train": "training", "test": "held-out"}
DISTANCES = [name for name in METRICS if KNOWN[name].kind == "distribution"]
JUDGED_ON_HELD_OUT = [name for name in METRICS if name != "mmd"]
SHORT = {ENERGY: "energy", "mmd": "MMD", "cosine_of_log_fold_changes": "cosine of LFC", "normalised_rank": "rank"}
COLUMNS = [("train", name) for name in DISTANCES] + [("test", name) for name in METRICS]

# Okabe and Ito, safe for colour-blind readers.
COLOURS = {"U-Net": "#D55E00", "best U-Net": "#009E73", "MLP": "#0072B2", "PCA + MLP": "#CC79A7"}
DASHES = {"velocity": ":", "gaussian": "--", "zero_inflated": "-"}


def report(folder: Path) -> None:
    """Print the tables and comparisons of a run, and draw its learning curves."""
    scores, curves, costs = (
        pd.read_csv(folder / f"flow_ablation_{name}.csv") for name in ("scores", "curves", "costs")
    )
    by_seed = scores.groupby(["set", "model", "split", "metric", "seed"], sort=False)["value"].mean().reset_index()
    summary = summarised(by_seed)
    summary.to_csv(folder / "flow_ablation_summary.csv", index=False)
    n_seeds = by_seed["seed"].nunique()
    print(f"\n{costs['budget'].iloc[0]:g} s a training; mean ± s.d. over {n_seeds} seeds of the mean over conditions.")
    print("MMD in units of 0.001. s: seconds of the training, for the presets of the whole fit.\n")
    print(markdown(table(summary, costs)))
    means = summary.set_index(["set", "model", "split", "metric"])["mean"]
    for name in summary["set"].unique():
        print(f"\n{name}\n")
        for line in [
            *preset_comparison(means[name]),
            *speed_comparison(curves[curves["set"] == name]),
            *baseline_comparison(means[name]),
        ]:
            print(f"- {line}")
    for split in SPLITS:
        draw_curves(curves, split, folder / f"flow_ablation_{split}.png")


def summarised(by_seed: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds."""
    groups = by_seed.groupby(["set", "model", "split", "metric"], sort=False)["value"]
    return groups.agg(["mean", "std"]).reset_index()


def ordered(models: list[str]) -> list[str]:
    """Bounds and baselines first, then the presets, then the ablations in their order."""
    first = ["ceiling", *BASELINES, *PRESET_OF, PCA_MODEL]
    return [model for model in first if model in models] + [model for model in models if model not in first]


def table(summary: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """One row a set and model."""
    values = {
        key: (row["mean"], row["std"]) for key, row in summary.set_index(["set", "model", "split", "metric"]).iterrows()
    }
    spent = costs.groupby(["set", "model"], sort=False)[["steps", "seconds"]].mean()
    rows = []
    for name, part in summary.groupby("set", sort=False):
        for model in ordered(part["model"].unique().tolist()):
            row = {"set": name, "model": model}
            for split, metric in COLUMNS:
                scale = 1000 if metric == "mmd" else 1
                mean, spread = values.get((name, model, split, metric), (np.nan, np.nan))
                row[f"{SPLITS[split]}: {SHORT[metric]}"] = mean_and_spread(scale * mean, scale * spread)
            is_trained = (name, model) in spent.index
            row["steps"] = f"{spent.loc[(name, model), 'steps']:.0f}" if is_trained else "–"
            row["s"] = f"{spent.loc[(name, model), 'seconds']:.0f}" if is_trained else "–"
            rows.append(row)
    return pd.DataFrame(rows).set_index(["set", "model"])


def preset_comparison(means: pd.Series) -> list[str]:
    """Default against the paper's preset, in every distribution metric."""
    if not set(PRESET_OF) <= set(means.index.get_level_values("model")):
        return ["default against primeflow: not both were run"]
    lines = []
    for split, where in SPLITS.items():
        for metric in DISTANCES:
            own, other = (means[preset, split, metric] for preset in PRESET_OF)
            verdict = "below" if own < other else "NOT BELOW"
            lines.append(f"default {verdict} primeflow in {SHORT[metric]}, {where}: {own:.4g} against {other:.4g}")
    return lines


def speed_comparison(curves: pd.DataFrame) -> list[str]:
    """How much sooner the default reaches the best value of the paper's preset, on the learning curves."""
    lines = []
    for split, where in SPLITS.items():
        at = curves[curves["split"] == split].groupby(["model", "seed", "step"])[["seconds", "value"]].mean()
        if not set(CURVE_OF.values()) <= set(at.index.get_level_values("model")):
            continue
        ratios, said = [], []
        for seed in at.index.get_level_values("seed").unique():
            own, other = (at.xs((model, seed), level=("model", "seed")) for model in CURVE_OF.values())
            best = other.loc[other["value"].idxmin()]
            reached = own.loc[own["value"] <= best["value"], "seconds"]
            ratios.append(best["seconds"] / reached.iloc[0] if len(reached) else 0.0)
            there = f"{reached.iloc[0]:.3g} s" if len(reached) else f"never (lowest {own['value'].min():.4g})"
            said.append(f"{best['value']:.4g} after {best['seconds']:.3g} s, the default {there}")
        verdict = "at least 10 times sooner" if min(ratios) >= 10 else "NOT 10 times sooner in every seed"
        times = ", ".join(f"{ratio:.3g}" for ratio in ratios)
        lines.append(f"best energy of primeflow, {where}: reached {times} times sooner ({verdict}): {'; '.join(said)}")
    return lines


def baseline_comparison(means: pd.Series) -> list[str]:
    """Default against the best baseline of every metric, on held-out conditions."""
    if "default" not in means.index.get_level_values("model"):
        return []
    lines = []
    for metric in JUDGED_ON_HELD_OUT:
        others = means.xs(("test", metric), level=("split", "metric")).reindex(list(BASELINES))
        own = means["default", "test", metric]
        if np.isnan(own) or others.isna().all():
            lines.append(f"held-out {SHORT[metric]}: not defined, one condition per context")
            continue
        sign = 1 if KNOWN[metric].higher_is_better else -1
        best = (sign * others).idxmax()
        verdict = "as good as or better than" if sign * own >= sign * others[best] else "WORSE than"
        lines.append(
            f"held-out {SHORT[metric]}: default {own:.4g}, {verdict} the best baseline, {best} {others[best]:.4g}"
        )
    return lines


def draw_curves(curves: pd.DataFrame, split: str, path: Path) -> None:
    """Energy distance against seconds of training: one column per set, one row a source."""
    sets = curves["set"].unique().tolist()
    sources = {"from noise": NOISE_SUFFIX, "from control cells": CONTROL_SUFFIX}
    figure, axes = plt.subplots(
        2,
        len(sets),
        figsize=(1.5 + 3.6 * len(sets), 6.4),
        sharex="col",
        sharey="col",
        squeeze=False,
        layout="constrained",
    )
    for column, name in enumerate(sets):
        part = curves[(curves["set"] == name) & (curves["split"] == split)]
        for ax, (title, suffix) in zip(axes[:, column], sources.items(), strict=True):
            for model in part["model"].unique():
                if model.endswith(suffix):
                    draw_curve(ax, part[part["model"] == model], model)
            ax.axhline(part.loc[part["model"] == FLOOR, "value"].mean(), color="0.45", lw=1)
            ax.axhline(0, color="0.8", lw=1, zorder=0)
            ax.set(xscale="log", title=f"{name}, {title}")
            ax.set_yscale("symlog", linthresh=0.1)
            ax.spines[["top", "right"]].set_visible(False)
        axes[-1, column].set_xlabel("seconds of training")
    for ax in axes[:, 0]:
        ax.set_ylabel("energy distance")
    entries = {model: line for ax in axes.flat for line, model in zip(*ax.get_legend_handles_labels(), strict=True)}
    handles = [*entries.values(), mpl.lines.Line2D([], [], color="0.45", lw=1)]
    figure.legend(handles, [*entries, FLOOR], loc="outside right center", frameon=False, fontsize="small")
    figure.suptitle(f"{SPLITS[split].capitalize()} conditions, mean over seeds")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw_curve(ax: Axes, part: pd.DataFrame, model: str) -> None:
    """Mean over seeds of the value at every look."""
    place = part.groupby("seed").cumcount()
    mean = part.groupby(place)[["seconds", "value"]].mean()
    network, parametrisation, _ = model.split(", ")
    label = f"{network}, {parametrisation.replace('_', '-')}"
    marker = {"marker": "o", "ms": 3, "lw": 1.5}
    ax.plot(mean["seconds"], mean["value"], color=COLOURS[network], ls=DASHES[parametrisation], label=label, **marker)

"""Tables, figures and verdicts of the comparison on systems with a known graph, from the table that it fills."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from _common import markdown, mean_and_spread
from _dynamics_methods import BOOTSTRAPS, DEFAULT, DENSE, FITS, METHODS, PENALTY_ONLY
from _dynamics_systems import KNOCKOUT, SYSTEMS

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

GRAPH_COLUMNS = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "sign_accuracy": "signs",
    "support_error": "support error",
    "n_edges": "edges",
    "weight_sparsity_of_penalty": "zero weights, penalty",
    "weight_sparsity": "zero weights, final",
    "feature_sparsity": "absent inputs",
    "seconds": "CPU s",
}
ANSWER_COLUMNS = {
    "error_trained_within": "trained, within",
    "error_trained_beyond": "trained, beyond",
    "error_new_start_within": "new start, within",
    "error_new_start_beyond": "new start, beyond",
    "error_intervention_within": "intervention, within",
    "error_intervention_beyond": "intervention, beyond",
    "response_correlation": "response r",
    "response_correlation_near": "response r, two steps",
    "largest_hold": "hold, largest / range",
    "largest_stiffen": "stiffen, largest / range",
}
FORECAST = "forecast_error"  # beyond the time of training, where its end means something
PANELS = {
    "auprc": "AUPRC",
    "support_error": "support error",
    FORECAST: "error from new starts",
    "error_intervention_within": "error under interventions",
}
AS_LARGE_AS_NEEDED = 2.0  # axis limit of errors and support errors
# Okabe and Ito, safe for colour-blind readers.
KINDS = {
    "elimination": ("#0072B2", "o"),
    "penalty only": ("#E69F00", "s"),
    "dense": ("#D55E00", "^"),
    "baseline": ("0.45", "x"),
}


def kind_of(method: str) -> str:
    """What a method is drawn as."""
    if method.endswith(PENALTY_ONLY):
        return "penalty only"
    if method.endswith(DENSE):
        return "dense"
    return "elimination" if method in FITS or method == BOOTSTRAPS else "baseline"


def report(path: Path) -> None:
    """Print tables and verdicts, and draw figures, of the highest effort that each method was run with."""
    if not path.is_file():
        print(f"nothing measured in {path}")
        return
    table = pd.read_csv(path)
    highest = table.groupby(["system", "method"])["effort"].transform("max")
    table = table[table["effort"] == highest]
    table = table.reindex(columns=list(dict.fromkeys([*table.columns, "chance", *GRAPH_COLUMNS, *ANSWER_COLUMNS])))
    table[FORECAST] = table["error_new_start_beyond"].fillna(table["error_new_start_within"])
    order = [name for name in SYSTEMS if name in set(table["system"])]
    for system in order:
        part = table[table["system"] == system]
        print(f"\n{system}, mean ± s.d. over {part['seed'].nunique()} seeds")
        for heading, columns, needed in (
            (f"Graph; chance of AUPRC is {part['chance'].mean():.3f}", GRAPH_COLUMNS, "auprc"),
            ("Errors relative to the spread", ANSWER_COLUMNS, "error_intervention_within"),
        ):
            if part[needed].notna().any():
                print(f"\n{heading}\n\n{markdown(summary(part, columns, needed=needed))}")
    verdicts(table)
    drawn = [name for name in order if not name.startswith(KNOCKOUT)]
    if drawn:
        draw_measures(table, drawn, path.with_name(f"{path.stem}_measures.png"))
        draw_sparsity(table, drawn, path.with_name(f"{path.stem}_sparsity.png"))


def summary(part: pd.DataFrame, columns: dict[str, str], *, needed: str) -> pd.DataFrame:
    """One row a method that has what is needed, with the columns that any of them has."""
    part = part[part[needed].notna()]
    present = {name: title for name, title in columns.items() if part[name].notna().any()}
    rows = {}
    for method in [name for name in METHODS if name in set(part["method"])]:
        values = part.loc[part["method"] == method, list(present)]
        rows[method] = {
            title: mean_and_spread(values[name].mean(), values[name].std(ddof=1)) for name, title in present.items()
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def verdicts(table: pd.DataFrame) -> None:
    """Print what the default is asked to reach, and whether it does."""
    print("\nTargets, of the default\n")
    default = table[table["method"] == DEFAULT].set_index("system")

    def values(system: str, column: str) -> np.ndarray:
        return np.atleast_1d(default.loc[system, column]) if system in default.index else np.array([])

    for system in ("second_order", "second_order_network"):
        error, hold, stiffen = (values(system, c) for c in ("support_error", "largest_hold", "largest_stiffen"))
        if len(error):
            print(f"{system}: support exact in {(error == 0).sum()} of {len(error)} seeds (all)")
            print(
                f"{system}: largest error / range, hold {hold.max():.4f}, stiffen {stiffen.max():.4f}, worst seed (<= 0.01)"
            )
    for system, target in (("hill_20", 0.85), ("lorenz_10", 0.99), ("lorenz_20", 0.99)):
        auprc = values(system, "auprc")
        if len(auprc):
            print(f"{system}: AUPRC {auprc.mean():.3f}, lowest {auprc.min():.3f} (>= {target})")
    found = [values(name, "response_correlation_near") for name in SYSTEMS if name.startswith(KNOCKOUT)]
    near = np.concatenate(found)
    if len(near):
        print(
            f"knock-outs left out: correlation of responses within two steps {near.mean():.3f}, median "
            f"{np.median(near):.3f}, lowest {near.min():.3f}, {(near >= 0.9).sum()} of {len(near)} at least 0.9 (>= 0.9)"
        )


def draw_measures(table: pd.DataFrame, systems: list[str], path: Path) -> None:
    """Draw every seed and the mean of the main measures, one row a system, methods down the side."""
    measures = list(PANELS)
    methods = {
        system: [m for m in METHODS[::-1] if m in set(table.loc[table["system"] == system, "method"])]
        for system in systems
    }
    figure, axes = plt.subplots(
        len(systems),
        len(measures),
        figsize=(2.2 + 3.0 * len(measures), 0.8 + sum(0.17 * len(m) + 0.7 for m in methods.values())),
        squeeze=False,
        sharey="row",
        height_ratios=[len(m) + 4 for m in methods.values()],
        layout="constrained",
    )
    for row, system in zip(axes, systems, strict=True):
        part = table[table["system"] == system]
        for ax, name in zip(row, measures, strict=True):
            draw_dots(ax, part, methods[system], name)
            if name == "auprc":
                ax.axvline(part["chance"].mean(), color="0.7", lw=1, zorder=0)
        row[0].set_ylabel(system)
    for ax, name in zip(axes[0], measures, strict=True):
        ax.set_title(PANELS[name], fontsize="medium")
    handles = [
        mpl.lines.Line2D([], [], color=colour, marker=marker, ls="", label=kind)
        for kind, (colour, marker) in KINDS.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw_dots(ax: Axes, part: pd.DataFrame, methods: list[str], name: str) -> None:
    """Draw one measure of all methods."""
    limit = 1.0 if name == "auprc" else AS_LARGE_AS_NEEDED
    for place, method in enumerate(methods):
        values = part.loc[part["method"] == method, name].dropna()
        if values.empty:
            continue
        colour, marker = KINDS[kind_of(method)]
        at = values.clip(upper=limit)  # what lies beyond stays visible at the edge
        ax.plot(at, np.full(len(at), place), ls="", marker=marker, ms=3, color=colour, alpha=0.4, mew=0.8)
        ax.plot([min(values.mean(), limit)], [place], ls="", marker=marker, ms=6, color=colour, mew=1.2)
    ax.set(yticks=range(len(methods)), yticklabels=methods, xlim=(-0.03 * limit, 1.05 * limit))
    ax.tick_params(axis="y", labelsize="x-small")
    ax.grid(axis="y", color="0.93", lw=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def draw_sparsity(table: pd.DataFrame, systems: list[str], path: Path) -> None:
    """Draw what went with few weights and what with few inputs: graph and forecast against either sparsity."""
    fitted = table[table["method"].isin(FITS)]
    if fitted.empty:
        return
    axes_of = {"weight_sparsity_of_penalty": "zero weights after the penalty", "feature_sparsity": "absent inputs"}
    measures = {name: PANELS[name] for name in ("auprc", FORECAST)}
    systems = [name for name in systems if name in set(fitted["system"])]
    pairs = [(x, y) for y in measures for x in axes_of]
    figure, axes = plt.subplots(
        len(systems), 4, figsize=(13, 0.6 + 2.5 * len(systems)), squeeze=False, layout="constrained"
    )
    for row, system in zip(axes, systems, strict=True):
        means = fitted[fitted["system"] == system].groupby("method")[[*axes_of, *measures]].mean()
        for ax, (x, y) in zip(row, pairs, strict=True):
            for method, values in means.iterrows():
                colour, marker = KINDS[kind_of(method)]
                ax.plot(values[x], min(values[y], AS_LARGE_AS_NEEDED), marker=marker, color=colour, ls="")
                if np.isfinite(values[[x, y]].astype(float)).all():
                    ax.annotate(
                        method.split(",")[0],
                        (values[x], min(values[y], AS_LARGE_AS_NEEDED)),
                        xytext=(3, 2),
                        textcoords="offset points",
                        fontsize=5,
                    )
            ax.set(xlim=(-0.03, 1.03), xlabel=axes_of[x], ylabel=measures[y])
            ax.spines[["top", "right"]].set_visible(False)
        row[0].set_title(system, loc="left", fontsize="medium")
    handles = [
        mpl.lines.Line2D([], [], color=colour, marker=marker, ls="", label=kind)
        for kind, (colour, marker) in KINDS.items()
        if kind != "baseline"
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)

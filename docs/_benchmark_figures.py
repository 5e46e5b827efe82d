"""Figures of the benchmark pages, one function each, drawn from the tables of the same page."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from _tables import numbers, table
from matplotlib.axes import Axes

BLUE, ORANGE, GREEN, GREY, LIGHT = "#0072B2", "#D55E00", "#009E73", "#555555", "#BBBBBB"

plt.rcParams |= {"figure.dpi": 150, "axes.spines.top": False, "axes.spines.right": False, "font.size": 9}


def new(width: float, height: float, n_columns: int = 1, **options: object) -> Sequence[Axes]:
    """Axes of a new figure."""
    _, axes = plt.subplots(1, n_columns, figsize=(width, height), layout="constrained", squeeze=False, **options)
    return axes[0]


def dots(
    ax: Axes, values: pd.DataFrame, names: Sequence[str], *, colour: str, shift: float = 0.0, label: str | None = None
) -> None:
    """Draw means with their s.d., the first name on top."""
    height = np.arange(len(names))[::-1] + shift
    sd = values["sd"].fillna(0)
    ax.errorbar(values["mean"], height, xerr=sd, fmt="o", ms=4, lw=1, color=colour, label=label)
    ax.set_yticks(np.arange(len(names))[::-1], names)


def held_out_energy() -> None:
    """Energy distance of held-out conditions as a share of that of control cells."""
    data = table("benchmarks/real_cells.md", "run", "flow").set_index("run")
    data = data.drop(index="mcfaline")
    models = ["flow", "shifted controls", "additive hurdle", "additive effect", "mean effect"]
    floor = numbers(data["control cells"])["mean"]
    (ax,) = new(6.5, 3.4)
    for model, colour, shift in zip(
        models, (ORANGE, BLUE, GREEN, GREY, LIGHT), (0.3, 0.15, 0, -0.15, -0.3), strict=True
    ):
        dots(ax, numbers(data[model]).div(floor, axis=0), data.index, colour=colour, shift=shift, label=model)
    ax.axvline(1, color=GREY, lw=0.8, ls=":")
    ax.set(xlabel="energy distance / that of control cells (0: as real cells)", xlim=(0, None))
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


def share_predicted(model: str) -> float:
    """Share of the response of cell types left out of Kang 2018 that a model predicts, averaged over types and seeds."""
    data = table("benchmarks/real_cells.md", "set", "model", "energy distance").set_index(["set", "model"])
    return float(numbers(data["dynamic-range fraction"])["mean"][("kang", model)])


def cell_types_left_out() -> None:
    """Share of the response to interferon that is predicted in cell types left out of Kang 2018."""
    data = table("benchmarks/real_cells.md", "run", "flow", "control cells").set_index("run")
    data = data[data.index.str.startswith("kang, ")]
    energy = data.apply(lambda column: numbers(column)["mean"])
    names = [name.removeprefix("kang, ") for name in data.index]
    (ax,) = new(5.0, 3.0)
    height = np.arange(len(names))[::-1]
    floor, ceiling = energy["control cells"], energy["ceiling"]
    for model, label, colour, shift in (
        ("flow", "perturbflow", ORANGE, 0.19),
        ("mean effect", "mean shift of the other types", LIGHT, -0.19),
    ):
        share = 100 * (floor - energy[model]) / (floor - ceiling)
        ax.barh(height + shift, share, height=0.36, color=colour, label=label)
    ax.set_yticks(height, names)
    ax.tick_params(axis="y", length=0)
    ax.set(xlim=(0, 100), xlabel="response predicted, % (100: a second sample of the real cells)")
    ax.figure.legend(frameon=False, loc="outside upper left", ncols=2)


STANDING = {
    "flow": ORANGE,
    "shifted controls": ORANGE,
    "cellflow": BLUE,
    "scgen": BLUE,
    "additive effect": GREY,
    "mean effect": GREY,
    "control cells": LIGHT,
}


def standing() -> None:
    """Energy distance of flow, its prior, other packages and simple models on tasks where they can be told apart."""
    data = table("benchmarks/leaderboard.md", "model", "norman").set_index("model")
    names = [model for model in STANDING if model in data.index]
    titles = {"norman": "pairs of genes, Norman 2019", "kang": "a cell type left out, Kang 2018"}
    axes = new(8.0, 2.4, len(titles), sharey=True)
    for ax, (name, title) in zip(axes, titles.items(), strict=True):
        values = numbers(data.loc[names, name])
        for model in names:
            dots(ax, values.where(values.index.to_series() == model), names, colour=STANDING[model])
        ax.axvline(numbers(data[name])["mean"]["ceiling"], color=GREEN, lw=1.2)
        ax.set_title(title, loc="left")
        ax.set_xlim(min(0, ax.get_xlim()[0]), None)
    axes[0].set_xlabel("energy distance to the real cells; green: two halves of these", loc="left")


def ablation() -> None:
    """Energy distance of every network and parametrisation on held-out conditions."""
    data = table("benchmarks/networks.md", "model")
    data = data[data["model"].str.contains("noise|control$|default|shifted controls|additive effect")].set_index(
        "model"
    )
    sets = ["norman", "mcfaline", "kang"]
    axes = new(7.5, 4.2, 3, sharey=True)
    for ax, name in zip(axes, sets, strict=True):
        dots(ax, numbers(data[f"{name}, held out"]), data.index, colour=BLUE)
        ax.axvline(0, color=GREY, lw=0.8, ls=":")
        ax.set_xscale("symlog", linthresh=0.3)
        ax.set_xticks([0, 0.3, 1, 10], ["0", "0.3", "1", "10"])
        ax.set_title(name, loc="left")
    axes[1].set_xlabel("energy distance to real cells")


def flow_speed() -> None:
    """Cells a second against the number of genes."""
    data = table("benchmarks/flow_speed.md", "network", "genes")
    axes = new(6.5, 2.8, 2, sharey=True)
    for ax, what in zip(axes, ("training", "sampled"), strict=True):
        for (network, part), colour in zip(data.groupby("network", sort=False), (ORANGE, GREEN, BLUE), strict=True):
            speed = numbers(part[f"{what} cells/s"])["mean"]
            ax.loglog(part["genes"].astype(float), speed, "o-", ms=4, color=colour, label=network)
        ax.set_title("training" if what == "training" else "sampling", loc="left")
        ax.set_xlabel("genes")
    axes[0].set_ylabel("cells a second, one thread")
    axes[0].legend(frameon=False)


def evaluations() -> None:
    """Energy distance against the number of evaluations of the network."""
    data = table("benchmarks/flow_speed.md", "evaluations a cell")
    (ax,) = new(4.5, 2.8)
    count = data["evaluations a cell"].astype(float)
    for column, colour in (("control cells, start 0.7", BLUE), ("noise", ORANGE)):
        ax.loglog(count, numbers(data[column])["mean"], "o-", ms=4, color=colour, label=f"from {column}")
    ax.set_xticks(count, [f"{n:.0f}" for n in count], fontsize=7)
    ax.set_yticks([0.3, 0.5, 1, 2], ["0.3", "0.5", "1", "2"])
    ax.minorticks_off()
    ax.set(xlabel="evaluations a cell", ylabel="energy distance")
    ax.legend(frameon=False)


def coverage() -> None:
    """Share of true means within the stated interval against what is stated."""
    data = table("benchmarks/uncertainty.md", "features", "kind")
    stated = np.array([50, 80, 90, 95])
    (ax,) = new(4.5, 3.2)
    ax.plot([50, 95], [0.5, 0.95], ":", color=GREY, lw=0.8)
    colours = {"seen": GREY, "unseen": ORANGE, "combination": BLUE}
    styles = {"informative": "-", "shuffled": "--", "none": ":"}
    for _, row in data.iterrows():
        held = row[[f"{level} %" for level in stated]].astype(float)
        style = {"color": colours[row["kind"]], "ls": styles[row["features"]], "ms": 3, "marker": "o"}
        ax.plot(stated, held, label=f"{row['kind']}, features {row['features']}", **style)
    ax.set(xlabel="stated, %", ylabel="share of true means within")
    ax.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))


def fine_tuning() -> None:
    """Energy distance of fine-tuned flows beside those from scratch."""
    data = table("benchmarks/finetuning.md", "set", "parametrisation")
    groups = data.groupby(["set", "parametrisation"], sort=False)
    axes = new(7.5, 2.2, len(groups))
    flows = ["scratch, all, N", "scratch, half, N", "scratch, half, N/3", "fine-tuned, half, N/3"]
    for ax, (name, part) in zip(axes, groups, strict=True):
        values = numbers(part.set_index("flow")["energy, fresh cells"]).reindex(flows)
        dots(ax, values, flows, colour=BLUE)
        ax.set_title(",\n".join(name), loc="left", fontsize=8)
        ax.margins(x=0.2)
        if ax is not axes[0]:
            ax.set_yticks([])
    axes[0].set_xlabel("energy distance", loc="left")


def graphs() -> None:
    """Precision of graphs beside that of simple ones."""
    data = table("benchmarks/synthetic_dynamics.md", "system", "method", "seeds", "AUPRC")
    systems = [system for system in dict.fromkeys(data["system"]) if "knock-outs" not in system]
    (ax,) = new(6.5, 4.0)
    methods = {
        "default": ORANGE,
        "derivative ridge": BLUE,
        "partial correlation": GREEN,
        "correlation": GREY,
        "random": LIGHT,
    }
    for (method, colour), shift in zip(methods.items(), (0.3, 0.15, 0, -0.15, -0.3), strict=True):
        values = numbers(data[data["method"] == method].set_index("system")["AUPRC"]).reindex(systems)
        dots(ax, values, systems, colour=colour, shift=shift, label=method)
    ax.set(xlabel="area under the precision–recall curve", xlim=(0, 1.03))
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


def sparsities() -> None:
    """What every penalty recovers with elimination and by itself."""
    data = table("benchmarks/synthetic_dynamics.md", "system", "method", "seeds", "AUPRC", "support error")
    data = data[data["system"] == "Hill, 20 genes, 5 %"].set_index("method")
    names = ["none", "l1", "cnode", "l0", "group_lasso", "lassonet", "pathreg", "pathreg_edge"]
    axes = new(7.0, 2.8, 2, sharey=True)
    with_elimination = data.rename(index={"default at 0.4": "group_lasso"})
    for ax, column in zip(axes, ("AUPRC", "support error"), strict=True):
        dots(
            ax, numbers(with_elimination[column]).loc[names], names, colour=ORANGE, shift=0.12, label="with elimination"
        )
        alone = numbers(data[column]).loc[[f"{name}, penalty only" for name in names]]
        dots(ax, alone, names, colour=BLUE, shift=-0.12, label="penalty only")
        ax.set_xlabel(column)
    axes[0].set_xlim(0, 1)
    axes[1].legend(frameon=False)


def hematopoiesis() -> None:
    """Error on the two donors with three lineages, fits beside null baselines."""
    data = table("benchmarks/hematopoiesis.md", "model", "kind").set_index("model")
    axes = new(8.0, 4.0, 2, sharey=True)
    for ax, donor in zip(axes, ("s2d1", "s1d1"), strict=True):
        values = numbers(data[donor])
        for kind, colour in (("baseline", GREY), ("floor", GREEN), ("released", BLUE), ("fit", ORANGE)):
            part = values.where(data["kind"] == kind)
            dots(ax, part, data.index, colour=colour, label=kind)
        ax.axvline(values.loc["training mean", "mean"], color=GREY, lw=0.8, ls=":")
        ax.set(title=f"donor {donor}", xlabel="mean squared error")
    axes[1].legend(frameon=False, fontsize=7)


MOTION = {
    "fit, cnode": ORANGE,
    "fit, none": GREEN,
    "linear, 2nd order": BLUE,
    "mean gait cycle, aligned": GREY,
    "own cycle repeated": LIGHT,
}


def motion_horizon() -> None:
    """Error of new trials against the horizon of the forecast."""
    data = table("benchmarks/motion_capture.md", "kind", "model", "0.2 s").set_index(["kind", "model"])
    times = [float(column.removesuffix(" s")) for column in data.columns]
    axes = new(8.0, 2.8, 2)
    for ax, kind in zip(axes, ("angles", "positions"), strict=True):
        for model, colour in MOTION.items():
            if (kind, model) in data.index:
                ax.plot(times, data.loc[(kind, model)].astype(float), "o-", ms=4, color=colour, label=model)
        ax.set(title=kind, xlabel="up to, s", yscale="log")
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("")
    axes[0].set_yticks([0.1, 0.2, 0.4])
    axes[1].set_yticks([0.01, 0.02, 0.04])
    axes[0].set_ylabel("score, new trials")
    axes[1].legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))


def motion_sparsity() -> None:
    """Error of new trials and new subjects against the share of absent inputs."""
    data = table("benchmarks/motion_capture.md", "kind", "order", "sparsity", "effort")
    data = data[(data["kind"] == "angles") & (data["effort"] == data["effort"].min())]
    axes = new(7.5, 3.2, 2)
    colours = dict(zip(data["sparsity"].unique(), plt.get_cmap("tab10").colors, strict=False))
    for ax, level in zip(axes, ("trial", "subject"), strict=True):
        for row, score in zip(data.to_dict("records"), numbers(data[level])["mean"], strict=True):
            name, second = row["sparsity"], str(row["order"]).strip() == "2"
            face, label = (colours[name], name) if second else ("none", None)
            ax.plot(float(row["absent inputs"]), score, "o", ms=5, color=colours[name], mfc=face, label=label)
        ax.set(title=f"new {level}, angles", xlabel="absent inputs", xlim=(-0.05, 1.0), yscale="log")
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("")
    axes[0].set_yticks([0.2, 0.5, 1.0])
    axes[1].set_yticks([0.5, 1.0, 2.0])
    axes[0].set_ylabel("score, second half")
    axes[1].legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))


def dynamics_cost() -> None:
    """Seconds of a fit against the number of genes."""
    data = table("benchmarks/dynamics_speed.md", "genes (6 trajectories of 40 times)")
    data = data.set_index(data.columns[0])
    genes = [float(name.replace(",", "")) for name in data.columns]
    (ax,) = new(4.5, 2.8)
    for row, colour in (("seconds", ORANGE), ("of which elimination", BLUE)):
        ax.loglog(genes, numbers(data.loc[row])["mean"], "o-", ms=4, color=colour, label=row)
    ax.set(xlabel="genes", ylabel="CPU seconds, one thread")
    ax.legend(frameon=False)


def cheaters() -> None:
    """What every cheater loses under every metric."""
    data = table("benchmarks/metric_calibration.md", "cheater").set_index("cheater")
    data = data.drop(columns=[name for name in data if name.startswith("caught")])
    values = data.apply(lambda column: pd.to_numeric(column.str.strip("*")))
    (ax,) = new(7.0, 3.6)
    image = ax.imshow(values.clip(0, 2), cmap="Blues", vmin=0, vmax=2, aspect="auto")
    for (row, column), value in np.ndenumerate(values.to_numpy()):
        ax.text(column, row, f"{value:g}", ha="center", va="center", fontsize=7, color="w" if value > 1.2 else "k")
    ax.set_xticks(range(values.shape[1]), values.columns, rotation=30, ha="right")
    ax.set_yticks(range(len(values)), values.index)
    ax.figure.colorbar(image, ax=ax, label="loss / that of control cells", extend="max")


def evaluation_cost() -> None:
    """CPU seconds of an evaluation against cells, genes and perturbations."""
    data = table("benchmarks/evaluation_speed.md", "cells", "genes", "perturbations")
    data = data.apply(lambda column: numbers(column)["mean"])
    sizes = ["cells", "genes", "perturbations"]
    axes = new(7.5, 2.8, 3, sharey=True)
    for ax, size in zip(axes, sizes, strict=True):
        others = [name for name in sizes if name != size]
        part = data[(data[others] == data[others].mode().iloc[0]).all(axis=1)].sort_values(size)
        for run, colour in zip(data.columns[3:], (BLUE, GREEN, ORANGE), strict=True):
            ax.loglog(part[size], part[run], "o-", ms=4, color=colour, label=run)
        ax.set_xticks(part[size], [f"{value:,.0f}" for value in part[size]])
        ax.set_xlabel(size)
        ax.minorticks_off()
    axes[0].set_yticks([5, 10, 20, 50], ["5", "10", "20", "50"])
    axes[0].set_ylabel("CPU seconds")
    axes[0].legend(frameon=False)


def reproduction() -> None:
    """Energy distance of plain velocities from noise against cells seen, beside what real cells have."""
    page = "benchmarks/primeflow_reproduction.md"
    curves = table(page, "panel", "space", "network", "cells seen")
    nearness = table(page, "panel", "space", "network", "seeds")
    panels = list(dict.fromkeys(curves["panel"]))
    axes = new(3.2 * len(panels) + 1.2, 3.0, len(panels), sharey=True)
    styles = {
        ("genes", "U-Net"): (ORANGE, "-"),
        ("genes", "MLP"): (BLUE, "-"),
        ("genes", "narrow MLP"): (LIGHT, "-"),
        ("components", "U-Net"): (ORANGE, "--"),
        ("components", "MLP"): (BLUE, "--"),
    }
    for ax, panel in zip(axes, panels, strict=True):
        floor = numbers(nearness.loc[nearness["panel"] == panel, "two halves"]).iloc[0]
        ax.axhspan(0, max(floor["mean"] + 2 * floor["sd"], 0), color=GREY, alpha=0.2, lw=0)
        for (space, network), (colour, line) in styles.items():
            part = curves[(curves["panel"] == panel) & (curves["space"] == space) & (curves["network"] == network)]
            if len(part):
                seen = numbers(part["cells seen"])["mean"]
                energy = numbers(part["energy distance"])["mean"]
                ax.plot(seen, energy, line, marker="o", ms=3, color=colour, label=f"{network}, {space}")
        ax.set_xscale("log")
        ax.set_yscale("symlog", linthresh=0.1)
        ax.set_yticks([0, 0.1, 1, 10], ["0", "0.1", "1", "10"])
        ax.minorticks_off()
        ax.set_title(panel, loc="left")
        ax.set_xlabel("cells seen")
    axes[0].set_ylim(-0.05, None)
    axes[0].set_ylabel("energy distance, fresh cells")
    axes[-1].legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))

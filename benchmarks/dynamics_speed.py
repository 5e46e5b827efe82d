"""Seconds, memory and scaling of a fit of sparse dynamics.

Beside adaptive solves of whole trajectories, as PathReg was released (own implementation of its protocol): on the
paper's training cells, seconds that each spends to reach a loss, in one process on one thread. A solve with all times
of a step interpolated at once takes the same steps and gives the same levels, so it shows what the protocol costs at
its cheapest; a few iterations as released say what they cost. Then the cost of every stage of a fit against the number
of genes, of trajectories and of times, each size in a process of its own; memory is the highest resident set beyond
what the process had after its imports.

    python benchmarks/dynamics_speed.py [--parts loss genes trajectories times] [--quick] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from _common import markdown, one_thread
from _course_fits import interpolated, level, shrunk_course, trajectory
from _hematopoiesis import TRAINING_DONOR, missing_data, paper_views, regulators
from _memory import resident
from _released_pathreg import fit_released
from flow_speed import apart, exponent

import perturbflow as pf
from perturbflow.dynamics import DynamicsSettings, DynamicsTrainer, FieldConfig
from perturbflow.trajectories import DynamicsFields, trajectories_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from _hematopoiesis import View

    from perturbflow.dynamics import Trajectory

STAGES = ("fit_support", "shoot", "solve")
RELEASED_STEPS = 5000
N_BINS = 20
GRID_POINTS = 201
ELIMINATION_STEPS = (2, 6)  # their costs give that of a step
CANDIDATES = 100  # regulators of large systems: what a list of transcription factors leaves


# Seconds to a loss


def loss_of(trainer: DynamicsTrainer, views: Mapping[str, View]) -> float:
    """Sum of the lineages' mean squared errors at all cells."""
    fitted = trainer.result()
    solved = fitted.solve(fitted.start, np.linspace(0.0, 1.0, GRID_POINTS))
    trainer.field.float()  # a solution is computed in double precision
    courses = dict(zip(fitted.names, solved, strict=True))
    return sum(float(((interpolated(courses[n], v.time) - v.values) ** 2).mean()) for n, v in views.items())


def our_fit(views: Mapping[str, View], structure: str, effort: float, *, n_genes: int | None) -> list[dict[str, Any]]:
    """Seconds and loss after every stage, smoothing included; what the loss costs is not counted."""
    began = time.process_time()
    courses = [shrunk_course(trajectory(n, v), f"spline, {N_BINS} bins", 1.0, n_bins=N_BINS) for n, v in views.items()]
    chosen = tuple(np.flatnonzero(regulators(n_genes=n_genes)).tolist())
    hidden = (100, 100) if structure == "dense" else (10,)
    config = FieldConfig(courses[0].n_genes, chosen, structure=structure, hidden=hidden)
    settings = DynamicsSettings(
        sparsity="cnode" if structure == "dense" else "group_lasso",
        strength=0.02,
        matching_steps=max(10, round(600 * effort)),
        elimination_steps=max(5, round(100 * effort)),
        shooting_steps=max(2, round(60 * effort)),
        solving_steps=max(1, round(100 * effort)),
    )
    trainer = DynamicsTrainer(courses, config, settings)
    rows, spent = [], time.process_time() - began
    for stage in STAGES:
        began = time.process_time()
        if stage == "fit_support":
            trainer.fit_support(0.1)
        else:
            getattr(trainer, stage)()
        spent += time.process_time() - began
        n_edges = int(trainer.result().support().sum())
        row = {"structure": structure, "effort": effort, "stage": stage, "seconds": spent, "edges": n_edges}
        rows.append(row | {"loss": loss_of(trainer, views)})
        print(rows[-1], flush=True)
    return rows


def measure_loss(options: argparse.Namespace) -> None:
    """Print seconds to equal loss and draw loss against seconds."""
    reason = missing_data()
    if reason is not None:
        print(f"Skipped seconds to a loss: {reason}")
        return
    views = paper_views(TRAINING_DONOR, n_genes=options.n_genes, max_cells=options.max_cells)
    hidden = 8 if options.quick else 100
    together = fit_released(views, max_iterations=options.iterations, together=True, hidden=hidden).history
    plain = fit_released(views, max_iterations=options.plain_iterations, hidden=hidden).history
    cost = {
        "as released": float(plain["seconds"].iloc[-1]) / len(plain),
        "interpolated together": float(together["seconds"].iloc[-1]) / len(together),
    }
    ours = pd.DataFrame(
        [
            row
            for structure in ("per_target", "dense")
            for effort in options.efforts
            for row in our_fit(views, structure, effort, n_genes=options.n_genes)
        ]
    )
    save(together, "released", options)
    save(ours, "fits", options)
    losses = together["data_loss"].rolling(5, min_periods=1, center=True).median()
    print("\nSeconds of computation to reach a loss (sum of the lineages' mean squared errors), one thread\n")
    print(markdown(equal_loss(losses, cost, ours, plain, views).set_index("loss")))
    draw_loss(together.assign(loss=losses), cost, ours, options)


def equal_loss(
    losses: pd.Series, cost: Mapping[str, float], ours: pd.DataFrame, plain: pd.DataFrame, views: Mapping[str, View]
) -> pd.DataFrame:
    """Seconds of the released protocol and of fits at several losses."""
    constant = sum(float(((v.values - level(trajectory(n, v))) ** 2).mean()) for n, v in views.items())
    final = float(losses.iloc[-20:].median())
    levels = {
        "the mean of every gene": constant,
        "the lowest that the released settings reach, within 0.5 %": 1.005 * float(losses.min()),
        "where the released settings end": max(final, float(losses.min())),
    }
    rows = []
    for name, wanted in levels.items():
        below = np.flatnonzero(losses.to_numpy() <= wanted)
        n_steps = int(below[0]) + 1 if len(below) else None
        row: dict[str, Any] = {"loss": f"{wanted:.4f}: {name}", "iterations": n_steps or "–"}
        for how, seconds in cost.items():
            row[f"{how}, s"] = "–" if n_steps is None else f"{seconds * n_steps:,.1f}"
        row[f"as released, {RELEASED_STEPS:,} iterations, s"] = f"{cost['as released'] * RELEASED_STEPS:,.0f}"
        for structure, part in ours.groupby("structure", sort=False):
            good = part[part["loss"] <= wanted]
            best = float(good["seconds"].min()) if len(good) else np.nan
            row[f"fit, {structure}, s"] = "–" if np.isnan(best) else f"{best:,.1f}"
            if n_steps is not None and not np.isnan(best):
                ratios = [cost[how] * n_steps / best for how in cost]
                row[f"{structure}: times faster (as released; together)"] = " ; ".join(f"{r:.1f}" for r in ratios)
        rows.append(row)
    calls = float(plain["n_calls"].mean())
    print(
        f"\nAn iteration as released: {cost['as released']:.2f} s, {calls:.0f} calls of the right-hand side; ", end=""
    )
    print(f"interpolated together: {cost['interpolated together']:.3f} s")
    return pd.DataFrame(rows).fillna("–")


def draw_loss(
    history: pd.DataFrame, cost: Mapping[str, float], ours: pd.DataFrame, options: argparse.Namespace
) -> None:
    """Loss against seconds."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.4), layout="constrained")
    for how, style in (("as released", "-"), ("interpolated together", "--")):
        seconds = cost[how] * history["iteration"]
        axis.plot(seconds, history["loss"], style, color="0.4", label=f"adaptive solves, {how}")
    for structure, part in ours.groupby("structure", sort=False):
        ends = part[part["stage"] == STAGES[-1]].sort_values("seconds")
        axis.plot(ends["seconds"], ends["loss"], "o-", label=f"matching and shooting, {structure}")
    axis.set(
        xscale="log", xlabel="seconds of computation, one thread", ylabel="sum of the lineages' mean squared errors"
    )
    axis.set_ylim(0.95 * ours["loss"].min(), 1.4 * history["loss"].min())
    axis.legend(fontsize=8)
    figure.savefig(options.output / "dynamics_speed_loss.png", dpi=150)
    plt.close(figure)


# Scaling


def simulated(n_genes: int, n_trajectories: int, n_times: int) -> list[Trajectory]:
    """Time courses of a random network, all as long as six mean lifetimes."""
    cells = pf.datasets.hill_network(
        n_genes=n_genes, n_trajectories=n_trajectories, n_times=n_times, step=6.0 / n_times
    )
    return trajectories_of(cells, DynamicsFields(time_key="time", trajectory_key="trajectory"))


def stages_of_fit(n_genes: int, n_trajectories: int, n_times: int, n_bins: int | None, share: float) -> dict[str, Any]:
    """Seconds of the stages of a fit with few steps, scaled to the numbers of steps of the default, and its memory."""
    one_thread()
    small = simulated(5, 4, 20)
    DynamicsTrainer(small, FieldConfig(5, (0, 1)), few_steps(0.01)).fit_support(0.1)  # loads what is loaded late
    trajectories = simulated(n_genes, n_trajectories, n_times)
    before = resident()
    if n_bins is not None:
        trajectories = [one.binned(n_bins) for one in trajectories]
    settings, usual = few_steps(share), DynamicsSettings()
    seconds = {}

    def timed(name: str, function: Callable[[], Any], scale: float) -> Any:
        began = time.process_time()
        result = function()
        seconds[name] = scale * (time.process_time() - began)
        return result

    chosen = tuple(range(min(n_genes, CANDIDATES)))
    trainer = timed(
        "smoothing", lambda: DynamicsTrainer(trajectories, FieldConfig(n_genes, chosen), settings), scale=1.0
    )
    matched, spent = [], []
    for n_steps in ELIMINATION_STEPS:
        trainer = DynamicsTrainer(trajectories, trainer.config, replace(settings, elimination_steps=n_steps))
        stamps: dict[str, float] = {}
        trainer.on_step = lambda stage, *_, stamps=stamps: stamps.update({stage: time.process_time()})
        began = time.process_time()
        trainer.fit_support(0.1)
        matched.append((stamps["matching"] - began) / settings.matching_steps)
        spent.append(time.process_time() - stamps["matching"])
    path = usual.matching_steps + (len(usual.strengths) - 1) * usual.path_steps + usual.matching_steps // 2
    seconds["matching"] = min(matched) * path
    # A step costs the slope between the two; one elimination chooses the evidence that is asked for, another one uses it.
    slope, rest = np.polyfit(ELIMINATION_STEPS, spent, 1)
    seconds["elimination"] = 2 * float(max(slope, 0.0) * usual.elimination_steps + max(rest, 0.0))
    timed("short solutions", trainer.shoot, usual.shooting_steps / settings.shooting_steps)
    timed("whole solutions", trainer.solve, usual.solving_steps / settings.solving_steps)
    total = sum(seconds.values())
    shape = {"genes": n_genes, "trajectories": n_trajectories, "times": n_times, "bins": n_bins or 0}
    return shape | seconds | {"total": total, "memory MB": (resident() - before) / 1e6}


def few_steps(share: float) -> DynamicsSettings:
    """Settings with a share of the usual numbers of steps."""
    usual = DynamicsSettings()
    names = ("matching_steps", "shooting_steps", "solving_steps")
    counts = {name: max(2, round(share * getattr(usual, name))) for name in names}
    return DynamicsSettings(strength=0.02, **counts)


def full_solve(n_genes: int, n_times: int) -> dict[str, Any]:
    """Memory and seconds of one iteration that differentiates an adaptive solve, of one trajectory, by its steps."""
    one_thread()
    data = simulated(n_genes, 2, n_times)[0]
    from _hematopoiesis import View

    view = {"one": View(data.time / data.time[-1], data.values, data.values[0])}
    fit_released({"one": View(view["one"].time[:3], data.values[:3], data.values[0])}, max_iterations=1)
    before = resident()
    began = time.process_time()
    fit_released(view, max_iterations=2)
    return {
        "genes": n_genes,
        "times": n_times,
        "an iteration, s": (time.process_time() - began) / 2,
        "memory MB": (resident() - before) / 1e6,
    }


def measure_scaling(options: argparse.Namespace, of: str) -> None:
    """Print, save and draw the cost against one size."""
    sizes = getattr(options, of)
    rows = []
    for size in sizes:
        if of == "genes":
            runs: Sequence[tuple[Any, ...]] = [(size, 6, 40, None)]
        elif of == "trajectories":
            runs = [(min(100, options.largest), size, 40, None)]
        else:
            runs = [(min(50, options.largest), 6, size, n_bins) for n_bins in (50, None)]
        for run in runs:
            rows.append(apart(stages_of_fit, *run, options.share))
            print({name: round(value, 2) for name, value in rows[-1].items()}, flush=True)
    table = pd.DataFrame(rows)
    save(table, of, options)
    print(f"\nSeconds of the stages of a default fit and memory, against the number of {of}\n")
    print(markdown(table.round(1).set_index(of)))
    for n_bins, part in table.groupby("bins"):
        if part[of].nunique() > 1:
            label = "all times" if n_bins == 0 else f"{n_bins} bins"
            print(
                f"- {label}: seconds grow with exponent {exponent(part[of], part['total']):.2f}, memory with "
                f"{exponent(part[of], part['memory MB'].clip(lower=1)):.2f} of the number of {of}"
            )
    solves = pd.DataFrame()
    if of == "times":
        solves = pd.DataFrame([apart(full_solve, min(50, options.largest), size) for size in sizes])
        save(solves, "adaptive_times", options)
        print("\nDifferentiated adaptive solves of one trajectory, as PathReg was released\n")
        print(markdown(solves.round(2).set_index("times")))
    draw_scaling(table, solves, of, options)


def draw_scaling(table: pd.DataFrame, solves: pd.DataFrame, of: str, options: argparse.Namespace) -> None:
    """Seconds of the stages and memory against a size."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    first = table[table["bins"] == table["bins"].iloc[0]]
    for stage in ("smoothing", "matching", "elimination", "short solutions", "whole solutions", "total"):
        left.plot(first[of], first[stage].clip(lower=1e-3), "o-", ms=3, lw=2 if stage == "total" else 1, label=stage)
    for n_bins, part in table.groupby("bins", sort=False):
        right.plot(part[of], part["memory MB"], "o-", label="all times" if n_bins == 0 else f"{n_bins} bins")
    if len(solves):
        right.plot(solves[of], solves["memory MB"], "o--", color="0.4", label="adaptive solve of one trajectory")
    left.set(xscale="log", yscale="log", xlabel=f"number of {of}", ylabel="seconds of a default fit, one thread")
    right.set(xscale="log", xlabel=f"number of {of}", ylabel="memory, MB", ylim=(0, None))
    left.legend(fontsize=8)
    right.legend(fontsize=8)
    figure.savefig(options.output / f"dynamics_speed_{of}.png", dpi=150)
    plt.close(figure)


def save(table: pd.DataFrame, name: str, options: argparse.Namespace) -> None:
    """Write a table."""
    table.to_csv(options.output / f"dynamics_speed_{name}.csv", index=False)


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parts = ("loss", "genes", "trajectories", "times")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=list(parts), choices=parts)
    parser.add_argument("--genes", type=int, nargs="+", default=[50, 100, 200, 500, 1000, 2000])
    parser.add_argument("--trajectories", type=int, nargs="+", default=[4, 8, 16, 32, 64])
    parser.add_argument("--times", type=int, nargs="+", default=[50, 100, 200, 400, 800])
    parser.add_argument("--iterations", type=int, default=400, help="of the released protocol, interpolated together")
    parser.add_argument("--plain-iterations", type=int, default=5, help="of it as released")
    parser.add_argument("--efforts", type=float, nargs="+", default=[0.05, 0.2, 1.0])
    parser.add_argument("--share", type=float, default=0.02, help="of the usual steps, for scaling")
    parser.add_argument("--quick", action="store_true", help="small sizes: a smoke test of some seconds")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    options.n_genes = options.max_cells = None
    options.largest = max(options.genes)
    if options.quick:
        options.n_genes, options.max_cells, options.iterations, options.plain_iterations = 90, 40, 6, 2
        options.genes, options.trajectories, options.times = [5, 10], [2, 4], [20, 60]
        options.largest, options.efforts = 10, [0.02]
    return options


def main() -> None:
    """Measure, save and print."""
    options = parsed()
    one_thread()
    options.output.mkdir(parents=True, exist_ok=True)
    for part in options.parts:
        if part == "loss":
            measure_loss(options)
        else:
            measure_scaling(options, part)


if __name__ == "__main__":
    main()

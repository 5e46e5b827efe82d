"""The leaderboard: the default flow, the paper's preset, other packages and every baseline on three held-out tasks of real cells.

Norman 2019 (combinations), McFaline-Figueroa 2024 (perturbations in another cell line) and Kang 2018 (one stimulated cell
type left out), split by `pf.pp.split_scenario`, judged by `pf.tl.evaluate` with its default suite on the held-out test
conditions. Training and validation cells are all that a model or a baseline knows.

    python benchmarks/leaderboard.py [--seeds 3] [--sets norman mcfaline kang] [--models flow primeflow] [--output FOLDER]
    make peers PYTHON=python3.12 && python benchmarks/leaderboard.py --peers cellflow scgen

What is in the table already is not made again, so that a run which was cut short goes on, and models can be added to it.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _common import KANG_TYPES, SETS, markdown, registered
from _peers import PEERS, predicted_by
from anndata import AnnData

import perturbflow as pf
from perturbflow.evaluation import summary_table

SCENARIOS = {
    "norman": "perturbench_norman19",
    "mcfaline": "perturbench_srivatsan20",
    "kang": "leave_one_out",
    "simulated": "perturbench_norman19",
}
PRESETS = {"flow": "default", "primeflow": "primeflow"}
STEPS_OF_PRESET = 2000  # more than a laptop has patience for; far fewer than in the paper
BY = ["set", "model", "metric"]
RESAMPLES = 1000  # of conditions, for the intervals of the figure


def runs(name: str, seeds: int, *, n_genes: int) -> Iterator[tuple[str, AnnData, dict[str, Any]]]:
    """Yield the label of a run, its cells, and how they are split."""
    for seed in range(seeds):
        cells = registered(name, kang_genes=n_genes)
        if name == "kang":
            held_out = KANG_TYPES[seed % len(KANG_TYPES)]
            yield f"{held_out} left out", cells, {"held_out": {"cell_type": held_out}, "seed": seed}
        else:
            yield f"seed {seed}", cells, {"seed": seed}


def one_model(
    cells: AnnData, model: str, seed: int, arguments: argparse.Namespace, *, baselines: list[str] | None
) -> tuple[pd.DataFrame, float]:
    """Fit and judge once: scores of the test conditions, and CPU seconds."""
    began = time.process_time()
    settings: dict[str, Any] = {"seed": seed, "progress_bar": False}
    if model in PEERS:
        predicted, seconds = predicted_by(model, cells, seed=seed, n_iterations=arguments.peer_iterations)
        judged: dict[str, Any] = {"predicted": {model: predicted}, "key": None}
    else:
        steps = {"flow": arguments.max_steps, "primeflow": arguments.preset_steps}[model]
        options = {} if steps is None else {"max_steps": steps}
        pf.tl.fit_flow(
            cells, preset=PRESETS[model], key_added=model, plan_kwargs={"calibrate": False}, **settings, **options
        )
        seconds, judged = time.process_time() - began, {"key": model}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # small conditions are left out, and listed
        options = {"baselines": baselines, "n_permutations": arguments.permutations}
        pf.tl.evaluate(cells, **judged, splits=["test"], **settings, **options)
    verdicts = dict(cells.uns["evaluation_verdicts"]["verdict"].value_counts())
    against = "all baselines" if baselines is None else "control cells"
    print(f"  fitted in {seconds:.0f} CPU seconds; against {against}: {verdicts}", flush=True)
    table = cells.uns["evaluation"].assign(hash=cells.uns["split"]["hash"])
    return (table if baselines is None else table[table["model"] == model]), seconds


def summarise(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean over the conditions of a run, then mean and s.d. over runs; and the dynamic-range fraction."""
    means = scores.groupby([*BY, "run"], sort=False)["value"].mean().reset_index()
    energy = means[means["metric"] == "energy_distance"].pivot(index=["set", "run"], columns="model", values="value")
    floor, ceiling = energy["control cells"], energy["ceiling"]
    fraction = energy.rsub(floor, axis=0).div(floor - ceiling, axis=0).stack().rename("value").reset_index()
    means = pd.concat([means, fraction.assign(metric="dynamic_range_fraction")], ignore_index=True)
    return means.groupby(BY, sort=False)["value"].agg(["mean", "std", "count"]).reset_index()


def report(scores: pd.DataFrame, seconds: pd.DataFrame, output: Path) -> None:
    """Print a table a set, save all of them and the figure."""
    summary = summarise(scores)
    costs = seconds.groupby(["set", "model"])["seconds"].mean()
    summary.to_csv(output / "leaderboard.csv", index=False)
    print(f"\nEnergy distance\n\n{markdown(energies(summary))}")
    for name, part in summary.groupby("set", sort=False):
        part = part.assign(text=[shown(*row) for row in part[["mean", "std"]].to_numpy()])
        wide = part.pivot(index="model", columns="metric", values="text")
        order = part[part["metric"] == "energy_distance"].sort_values("mean")["model"]
        columns = [
            "dynamic_range_fraction",
            *(one for one in part["metric"].unique() if one != "dynamic_range_fraction"),
        ]
        print(f"\n{name}, {scores.loc[scores['set'] == name, 'run'].nunique()} runs, held-out conditions\n")
        wide = wide.loc[order, [one for one in columns if one in wide]]
        spent = [costs.get((name, model)) for model in wide.index]
        wide["CPU seconds"] = ["–" if value is None else f"{value:.0f}" for value in spent]
        print(markdown(wide))
    draw(scores, output)


def energies(summary: pd.DataFrame) -> pd.DataFrame:
    """Energy distance of every model on every set."""
    part = summary[summary["metric"] == "energy_distance"]
    part = part.assign(text=[shown(*row) for row in part[["mean", "std"]].to_numpy()])
    wide = part.pivot(index="model", columns="set", values="text").fillna("–")
    # Sets have different units: the mean of ranks orders models, those that cannot do a task last.
    order = part.assign(rank=part.groupby("set")["mean"].rank()).groupby("model")["rank"].mean()
    return wide.loc[order.sort_values(kind="stable").index, [name for name in SCENARIOS if name in wide]]


def shown(mean: float, spread: float) -> str:
    """Mean ± spread as far as they are defined."""
    if np.isnan(mean):
        return "–"
    return f"{mean:.3f}" if np.isnan(spread) else f"{mean:.3f} ± {spread:.3f}"


def draw(scores: pd.DataFrame, output: Path) -> None:
    """Draw models by metrics, a panel per set, over the conditions of all its runs."""
    import matplotlib.pyplot as plt

    cells = {}
    for name, part in scores.groupby("set", sort=False):
        # A condition of another run is another one: its models were fitted on other cells.
        part = part.drop(columns=["set", "hash"])
        baselines = [model for model in part["model"].unique() if model in pf.baselines.BASELINES]
        rng = np.random.default_rng(0)
        summary = summary_table(part, baselines=baselines, n_resamples=RESAMPLES, rng=rng)
        cells[str(name)] = AnnData(uns={"evaluation": part, "evaluation_summary": summary})
    figure = pf.pl.leaderboard(cells, split="test")[0].figure
    figure.savefig(output / "leaderboard.png", dpi=150)
    plt.close(figure)


def main() -> None:
    """Make what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=[*SETS, "simulated"])
    parser.add_argument("--models", nargs="+", default=list(PRESETS), choices=list(PRESETS))
    parser.add_argument("--peers", nargs="*", default=[], choices=list(PEERS), help="made by `make peers`")
    parser.add_argument("--peer-iterations", type=int, help="cap on their training; a few minutes without")
    parser.add_argument("--max-steps", type=int, help="of the default flow")
    parser.add_argument("--preset-steps", type=int, default=STEPS_OF_PRESET, help="of the paper's preset")
    parser.add_argument("--permutations", type=int, default=200)
    parser.add_argument("--kang-genes", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    path, path_of_seconds = (arguments.output / f"leaderboard_{what}.csv" for what in ("scores", "seconds"))
    scores = pd.read_csv(path) if path.is_file() else pd.DataFrame({"set": [], "run": [], "model": []})
    seconds = pd.read_csv(path_of_seconds) if path_of_seconds.is_file() else pd.DataFrame({"set": [], "model": []})
    for name in arguments.sets:
        for run, cells, split in runs(name, arguments.seeds, n_genes=arguments.kang_genes):
            pf.pp.split_scenario(cells, SCENARIOS[name], **split)
            pf.pp.check_split(cells)
            for model in [*arguments.models, *arguments.peers]:
                done = scores.loc[(scores["set"] == name) & (scores["run"] == run), "model"]
                if (done == model).any() or (model in PEERS and not PEERS[model].can_predict(cells)):
                    continue
                print(f"{name}, {run}, {model}", flush=True)
                # Baselines are the same for all flows of a run: every random number depends on the condition alone.
                baselines = None if done.empty else ["control cells"]
                found, spent = one_model(cells, model, split["seed"], arguments, baselines=baselines)
                found = found.assign(set=name, run=run)
                scores = pd.concat([scores, found], ignore_index=True) if len(scores) else found
                row = pd.DataFrame([{"set": name, "run": run, "model": model, "seconds": spent}])
                seconds = pd.concat([seconds, row], ignore_index=True) if len(seconds) else row
                seconds.to_csv(path_of_seconds, index=False)
                scores.to_csv(path, index=False)
    report(scores, seconds, arguments.output)


if __name__ == "__main__":
    main()

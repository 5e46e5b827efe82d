"""The default flow beside baselines and bounds on three sets of real cells.

Norman 2019 (combinations held out), McFaline-Figueroa 2024 (perturbation-line pairs held out) and Kang 2018 (one
stimulated cell type left out, six runs), every run with the same default settings and three seeds of split and fit.
A fifth of the perturbed cells of every training condition is kept from the fit: "fresh cells" judges training
conditions on cells that were never seen.

    python benchmarks/real_cells.py [--seeds 3] [--sets norman mcfaline kang] [--preset prior] [--max-steps N]
        [--output FOLDER]
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _common import ENERGY, SETS, markdown, registered, split_options

import perturbflow as pf

SEEN, FRESH, HELD_OUT = "training conditions, seen cells", "training conditions, fresh cells", "held-out conditions"
FRESH_FRACTION = 0.2
JUDGED = (
    *(
        "energy_distance",
        "mmd",
        "normalised_rank",
        "recall_of_top_genes",
        "rmse_of_mean_effects",
        "cosine_of_mean_effects",
    ),
    "cosine_of_log_fold_changes",
)


def runs(sets: list[str]):
    """Yield name of the set, name of the run, cells with registered fields, and how to split them."""
    for name in SETS:
        if name not in sets:
            continue
        cells = registered(name)
        if name != "kang":
            yield name, name, cells, split_options(name)
            continue
        for cell_type in cells.obs["cell_type"].cat.categories:
            yield name, f"kang, {cell_type}", cells.copy(), split_options(name, cell_type=cell_type)


def keep_fresh_cells(cells, *, seed: int) -> None:
    """Write ``obs["fit_split"]``: as the split, but a fifth of the perturbed training cells is for testing."""
    rng = np.random.default_rng(seed)
    split = cells.obs["split"].astype(str).to_numpy()
    perturbed = (cells.obs["perturbation"] != "control").to_numpy()
    keys = cells.obs["perturbation"].astype(str) + "|" + cells.obs["cell_type"].astype(str)
    for _, rows in pd.Series(np.arange(cells.n_obs)).groupby(keys.to_numpy()):
        rows = rows.to_numpy()[(split[rows] == "train") & perturbed[rows]]
        split[rng.permutation(rows)[: int(FRESH_FRACTION * len(rows))]] = "test"
    cells.obs["fit_split"] = split


def one_run(cells, split: dict, *, seed: int, preset: str | None, max_steps: int | None) -> tuple[pd.DataFrame, dict]:
    """Fit and judge once; scores of every condition, model and metric."""
    pf.pp.split_perturbations(cells, seed=seed, **split)
    keep_fresh_cells(cells, seed=seed)
    started = time.monotonic()
    options: dict[str, Any] = {"preset": preset, "max_steps": max_steps}
    options = {name: value for name, value in options.items() if value is not None}
    pf.tl.fit_flow(
        cells, split_key="fit_split", seed=seed, plan_kwargs={"calibrate": False}, progress_bar=False, **options
    )
    fitted = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # fresh cells of small conditions are too few to judge
        pf.tl.evaluate(
            cells,
            metrics=JUDGED,
            split_key="fit_split",
            min_cells=8,
            n_permutations=0,
            seed=seed,
            progress_bar=False,
        )
    judged = time.monotonic()
    scores = cells.uns["evaluation"].copy()
    held_out = cells.uns["split"]["held_out"]
    names = ["perturbation", "cell_type"]
    keys = pd.MultiIndex.from_frame(held_out.loc[held_out["split"] == "test", names].astype(str))
    is_held_out = pd.MultiIndex.from_frame(scores[names].astype(str)).isin(keys)
    scores["conditions"] = np.select(
        [scores["split"] == "train", (scores["split"] == "test") & is_held_out, scores["split"] == "test"],
        [SEEN, HELD_OUT, FRESH],
        default="validation",
    )
    config = cells.uns["flow"]["config"]
    info = {
        "fit seconds": fitted - started,
        "judge seconds": judged - fitted,
        "steps": int(cells.uns["flow"]["history"].get("step", [0])[-1]),
        "entry_time": config["entry_time"],
        "correction_scale": config["correction_scale"],
    }
    return scores[scores["conditions"] != "validation"], info


def summarise(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean over conditions in every run and seed, then mean and s.d. over seeds; with the dynamic-range fraction."""
    by = ["set", "run", "conditions", "seed", "model", "metric"]
    means = scores.groupby(by, sort=False)["value"].mean().reset_index()
    # Kang's six runs are one set: averaged before the spread over seeds is taken.
    means = means.groupby(["set", "conditions", "seed", "model", "metric"], sort=False)["value"].mean().reset_index()
    energy = means[means["metric"] == ENERGY].pivot(
        index=["set", "conditions", "seed"], columns="model", values="value"
    )
    floor, ceiling = energy["control cells"], energy["ceiling"]
    fraction = energy.rsub(floor, axis=0).div(floor - ceiling, axis=0).stack().rename("value").reset_index()
    means = pd.concat([means, fraction.assign(metric="dynamic_range_fraction")], ignore_index=True)
    return (
        means.groupby(["set", "conditions", "model", "metric"], sort=False)["value"].agg(["mean", "std"]).reset_index()
    )


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--preset", help="of the fit; its default if not given")
    parser.add_argument("--max-steps", type=int)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()

    scores, infos = [], []
    for name, run, cells, split in runs(arguments.sets):
        for seed in range(arguments.seeds):
            table, info = one_run(cells, split, seed=seed, preset=arguments.preset, max_steps=arguments.max_steps)
            scores.append(table.assign(set=name, run=run, seed=seed))
            infos.append({"set": name, "run": run, "seed": seed, **info})
            print(infos[-1], flush=True)
    scores, infos = pd.concat(scores, ignore_index=True), pd.DataFrame(infos)
    summary = summarise(scores)
    arguments.output.mkdir(parents=True, exist_ok=True)
    scores.to_csv(arguments.output / "real_cells_scores.csv", index=False)
    summary.to_csv(arguments.output / "real_cells_summary.csv", index=False)
    infos.to_csv(arguments.output / "real_cells_runs.csv", index=False)

    text = summary.assign(text=[f"{m:.3f} ± {s:.3f}" for m, s in zip(summary["mean"], summary["std"], strict=True)])
    table = text.pivot_table(
        index=["set", "conditions", "model"], columns="metric", values="text", aggfunc="first", sort=False
    )
    print(f"\nMean ± s.d. over {arguments.seeds} seeds\n")
    print(markdown(table))
    print("\nWall-clock and choices, mean ± s.d. over runs\n")
    choices = (
        infos.groupby("set", sort=False)[["fit seconds", "judge seconds", "steps", "entry_time", "correction_scale"]]
        .agg(["mean", "std"])
        .round(2)
    )
    choices.columns = [" ".join(column) for column in choices.columns]
    print(markdown(choices))

    energy = scores[scores["metric"] == ENERGY]
    print(
        "\nHeld-out energy distance of every run, mean over conditions and seeds; * marks the lowest but the ceiling\n"
    )
    held_out = energy[energy["conditions"] == HELD_OUT].pivot_table(
        index="run", columns="model", values="value", sort=False
    )
    best = held_out.drop(columns="ceiling").idxmin(axis=1)
    shown = held_out.map("{:.4f}".format)
    for run, model in best.items():
        shown.loc[run, model] += " *"
    print(markdown(shown))
    verdicts(summary, held_out)


def verdicts(summary: pd.DataFrame, held_out: pd.DataFrame) -> None:
    """Print what the default flow is asked to reach, and whether it does."""
    print("\nTargets\n")
    fraction = summary[(summary["metric"] == "dynamic_range_fraction") & (summary["model"] == "flow")]
    for _, row in fraction[fraction["conditions"] == SEEN].iterrows():
        print(
            f"{row['set']}: dynamic-range fraction on training conditions {row['mean']:.3f} ± {row['std']:.3f} (>= 0.9)"
        )
    prior = {"additive hurdle", "shifted controls"}
    models = [model for model in held_out.columns if model not in {"flow", "ceiling"}]
    for label, names in (
        ("simple baselines", [m for m in models if m not in prior]),
        ("all, with the flow's own prior", models),
    ):
        lowest = held_out[names].min(axis=1)
        below = held_out["flow"] < lowest
        kang = below[below.index.str.startswith("kang")]
        if len(kang):
            print(f"kang, against {label}: below every baseline in {kang.sum()} of {len(kang)} runs (>= 5)")
        for run in held_out.index[~held_out.index.str.startswith("kang")]:
            difference = held_out.loc[run, "flow"] - lowest[run]
            print(f"{run}, against {label}: flow minus the best baseline {difference:+.4f} (<= 0)")


if __name__ == "__main__":
    main()

"""Tables, verdicts and the drawing of the benchmark on human motion, from the files of its fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pandas as pd
from _common import markdown, mean_and_spread
from _motion_fits import (
    CONDITIONS,
    DEFAULT,
    DEFAULT_EFFORT,
    JUDGED,
    KINDS,
    Kind,
    frames,
    mean_of_seeds,
    read_results,
    training_frames,
)
from _motion_nulls import PENALTIES, LinearRecursion, cheating, nulls
from _motion_protocol import (
    TASKS,
    TEST_SPLITS,
    Motion,
    by_split,
    errors_of,
    frame_errors,
    parts,
    scores,
)

import perturbflow as pf

if TYPE_CHECKING:
    from pathlib import Path

    from _motion_protocol import FloatArray
    from anndata import AnnData

HORIZONS = (0.2, 0.4, 1.0, 2.0)
LARGEST_RANGE = 1.5
TARGETS = {  # kind, task, split: what a default of second order should not exceed
    ("angles", "second half", "test_trial"): 0.138,
    ("positions", "second half", "test_trial"): 0.034,
    ("angles", "first frame", "test_trial"): 0.261,
    ("positions", "first frame", "test_trial"): 0.098,
    ("angles", "second half", "test_subject"): 0.597,
    ("positions", "second half", "test_subject"): 0.248,
    ("angles", "second half", "test_activity"): 2.105,
    ("positions", "second half", "test_activity"): 1.743,
    ("angles", "second half", "test_both"): 2.860,
    ("positions", "second half", "test_both"): 1.266,
}
DRAWN = "07_01"
SHORT = {"valid": "validation"} | {split: split.removeprefix("test_") for split in TEST_SPLITS}
FIT_KEYS = ["kind", "order", "sparsity", "effort"]


def null_errors(kind: Kind) -> pd.DataFrame:
    """Errors of all frames of all null models of one kind."""
    motion = Motion.of(frames(kind))
    tables = [
        errors_of(forecast, motion, task, splits=JUDGED).assign(model=name)
        for task in TASKS
        for name, forecast in nulls(motion, task).items()
    ]
    fitted_to, rows = cheating(motion), []
    for name, x in motion.part(*JUDGED).items():
        target = parts(x, "second half")[1]
        error = frame_errors(fitted_to(target), target, scale=motion.scale)
        rows.append(
            pd.DataFrame(
                {
                    "sequence": name,
                    "split": motion.splits[name],
                    "task": "second half",
                    "frame": np.arange(1, len(error) + 1),
                    "error": error,
                    "model": "cheating: mean gait cycle fitted to the answer",
                }
            )
        )
    return pd.concat([*tables, *rows], ignore_index=True).assign(kind=kind)


def wide(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Mean and s.d. of scores over what is no key, such as seeds, with a column for every task and level."""
    first = np.where(table["task"] == TASKS[1], f"{TASKS[1]}: ", "")
    named = table.assign(column=first + table["split"].map(SHORT).to_numpy(dtype=object))
    cells = named.groupby([*keys, "column"], sort=False)["score"].agg(with_spread).unstack("column")
    columns = [f"{title}{short}" for title in ("", f"{TASKS[1]}: ") for short in SHORT.values()]
    return cells.reindex(index=named[keys].drop_duplicates().apply(tuple, axis=1), columns=columns).fillna("–")


def with_spread(values: pd.Series) -> str:
    """Mean and s.d. as text, a dash for nothing."""
    return mean_and_spread(float(values.mean()), float(values.std()))


def report(folder: Path, *, kinds: tuple[Kind, ...] = KINDS) -> None:
    """Print all tables, and draw a sequence."""
    null = pd.concat([null_errors(kind) for kind in kinds], ignore_index=True)
    null.to_csv(folder / "nulls.csv", index=False)
    by_null = by_split(scores(null))
    print("\nNull models: mean score by level\n")
    print(markdown(wide(by_null, ["kind", "model"])))
    fits, errors = read_results(folder)
    if fits.empty:
        return
    errors = pd.concat([errors, *(mean_of_seeds(folder, kind) for kind in kinds)], ignore_index=True)
    usual = errors[errors["condition"] == CONDITIONS[0]]
    print("\nFits: mean score by level, mean and s.d. over seeds\n")
    print(markdown(fit_table(fits, usual)))
    print("\nStress tests: score of new trials and new subjects, second half\n")
    print(markdown(stress_table(errors, kinds)))
    print("\nScore of the second half of new trials up to a horizon, in seconds\n")
    print(markdown(horizon_table(null, usual)))
    print("\nEvery test sequence, second half\n")
    print(markdown(sequence_table(null, usual)))
    verdicts(fits, usual)
    draw(folder)


def fit_table(fits: pd.DataFrame, usual: pd.DataFrame) -> pd.DataFrame:
    """Scores of the fits to all frames, beside what is left of their networks."""
    found = wide(by_split(scores(usual)).drop(columns="condition"), FIT_KEYS)
    shown = fits[fits["condition"] == CONDITIONS[0]].groupby(FIT_KEYS, sort=False)
    found.insert(0, "seeds", shown["seed"].nunique())
    found.insert(1, "solved", shown["whole_solutions_fitted"].sum())
    for name, title in (
        ("zero_weights", "zero weights"),
        ("absent_inputs", "absent inputs"),
        ("unused_channels", "unused inputs"),
        ("plausible_edges", "neighbours"),
        ("range", "largest range"),
        ("seconds", "CPU s"),
    ):
        digits = "{:.0f}" if name == "seconds" else "{:.2f}"
        found[title] = (shown[name].max() if name == "range" else shown[name].mean()).map(digits.format)
    return found.astype(object).where(found.notna(), "–")


def stress_table(errors: pd.DataFrame, kinds: tuple[Kind, ...]) -> pd.DataFrame:
    """Scores under every condition of the training frames."""
    chosen = errors[(errors["task"] == TASKS[0]) & errors["split"].isin(TEST_SPLITS[:2]) & (errors["order"] == 2)]
    chosen = chosen[chosen["effort"] == errors["effort"].min()]
    scored = by_split(scores(chosen))[["kind", "sparsity", "condition", "split", "seed", "score"]]
    tables = [scored.rename(columns={"sparsity": "model"})]
    tables += [stressed_recursion(kind, condition) for kind in kinds for condition in CONDITIONS]
    table = pd.concat(tables, ignore_index=True)
    groups = table.groupby(["kind", "model", "condition", "split"], sort=False)["score"]
    cells = groups.agg(with_spread).unstack(["split", "condition"])
    columns = [(split, condition) for split in TEST_SPLITS[:2] for condition in CONDITIONS]
    cells = cells.reindex(columns=pd.MultiIndex.from_tuples(columns)).fillna("–")
    cells.columns = [f"{SHORT[split]}, {condition}" for split, condition in columns]
    return cells


def stressed_recursion(kind: Kind, condition: str) -> pd.DataFrame:
    """Scores of the linear recursion of second order under a condition, from unbroken runs of frames alone."""
    cells = frames(kind)
    motion = Motion.of(cells)
    runs = unbroken(training_frames(cells, condition))  # type: ignore[arg-type]
    fits = [LinearRecursion.fit(runs, order=2, penalty=penalty, scale=motion.scale) for penalty in PENALTIES]

    def valid(recursion: LinearRecursion) -> float:
        return float(scores(errors_of(recursion.forecast, motion, TASKS[0], splits=("valid",)))["score"].mean())

    found = errors_of(min(fits, key=valid).forecast, motion, TASKS[0], splits=TEST_SPLITS[:2])
    about = {"kind": kind, "model": "null: linear, 2nd order", "condition": condition, "seed": 0}
    return by_split(scores(found))[["split", "score"]].assign(**about)


def unbroken(train: AnnData) -> list[FloatArray]:
    """Runs of at least three neighbouring frames of every sequence."""
    runs = []
    for _, rows in train.obs.groupby("sequence", observed=True):
        values = np.asarray(train[rows.index].X, dtype=np.float64)
        frame = np.round(rows["time"].to_numpy() * 30).astype(int)
        runs += [run for run in np.split(values, np.flatnonzero(np.diff(frame) > 1) + 1) if len(run) > 2]
    return runs


def shown_fits(usual: pd.DataFrame) -> pd.DataFrame:
    """Errors of the default, of the mean of its seeds' forecasts, and of networks without penalty, named as models."""
    fitted = usual[(usual["order"] == 2) & (usual["sparsity"].str.startswith(DEFAULT) | (usual["sparsity"] == "none"))]
    fitted = fitted[fitted["sparsity"].ne(DEFAULT) | (fitted["effort"] == DEFAULT_EFFORT)]
    fitted = fitted[fitted["sparsity"].ne("none") | (fitted["effort"] == fitted["effort"].max())]
    return fitted.assign(model="fit, " + fitted["sparsity"])


def horizon_table(null: pd.DataFrame, usual: pd.DataFrame) -> pd.DataFrame:
    """Scores of the second half of new trials up to several horizons."""
    models = pd.concat([null, shown_fits(usual)], ignore_index=True)
    models = models[(models["task"] == TASKS[0]) & (models["split"] == TEST_SPLITS[0])]
    found = {
        f"{until:g} s": scores(models[["kind", "model", "sequence", "frame", "error"]], until=until)
        .groupby(["kind", "model"], sort=False)["score"]
        .mean()
        for until in HORIZONS
    }
    table = pd.DataFrame(found).round(3)
    return table[table.index.get_level_values("model") != "constant velocity"]


def sequence_table(null: pd.DataFrame, usual: pd.DataFrame) -> pd.DataFrame:
    """Scores of every sequence by the default fit, the network without penalty and some null models."""
    shown = ["hold last frame", "own mean", "own cycle repeated", "mean gait cycle + own offset", "analogue, shifted"]
    models = pd.concat([shown_fits(usual), null[null["model"].isin(shown)]], ignore_index=True)
    models = models[(models["task"] == TASKS[0]) & models["split"].isin(TEST_SPLITS)]
    scored = scores(models[["kind", "model", "split", "sequence", "frame", "error"]])
    scored["level"] = scored["split"].map(SHORT)
    obs = frames("angles").obs.drop_duplicates("sequence").set_index("sequence")
    activity = obs["activity"].astype(str)
    scored["activity"] = scored["sequence"].map(activity)
    table = scored.pivot_table(
        index=["kind", "level", "sequence", "activity"], columns="model", values="score", sort=False
    )
    return table.round(3).astype(object).where(table.notna(), "–")


def verdicts(fits: pd.DataFrame, usual: pd.DataFrame) -> None:
    """Print what was asked for."""
    print("\nTargets for the default of second order, mean over seeds, and for the mean of its seeds' forecasts\n")
    every = shown_fits(usual)
    part = by_split(scores(every[every["sparsity"].str.startswith(DEFAULT)]))
    for (kind, task, split), target in TARGETS.items():
        chosen = part[(part["kind"] == kind) & (part["task"] == task) & (part["split"] == split)]
        for model, values in chosen.groupby("model", sort=False)["score"]:
            verdict = "reached" if values.mean() <= target else "NOT reached"
            score = f"{with_spread(values)} (at most {target:.3f})"
            print(f"- {kind}, {task}, {SHORT[split]}, {model}: {score}: {verdict}")
    for (kind, order), group in fits.groupby(["kind", "order"]):
        inside = int((group["range"] <= LARGEST_RANGE).sum())
        print(
            f"- {kind}, order {order}: forecasts of two seconds of every sequence within {LARGEST_RANGE} times the known "
            f"range in {inside} of {len(group)} fits; largest {group['range'].max():.2f}"
        )


def draw(folder: Path) -> None:
    """Draw one sequence of positions: truth, forecast, and the null model of smallest error for it."""
    found = sorted(folder.glob(f"positions_order2_{DEFAULT}_all-frames_seed0_*.npz"))
    if not found:
        return
    cells = frames("positions")
    motion = Motion.of(cells)
    observed, target = parts(motion.frames[DRAWN], "second half")
    with np.load(found[-1]) as poses:
        predicted = {"forecast": poses[f"second half|{DRAWN}"][: len(target)]}
    candidates = {name: forecast(observed, len(target)) for name, forecast in nulls(motion, "second half").items()}
    best = min(candidates, key=lambda name: ((candidates[name] - target) ** 2).mean())
    predicted[f"null: {best}"] = candidates[best]
    sequence = cells[(cells.obs["sequence"] == DRAWN).to_numpy()].copy()
    for name, values in predicted.items():
        layer = np.full(sequence.shape, np.nan, dtype=np.float32)
        layer[len(observed) : len(observed) + len(target)] = values
        sequence.layers[name] = layer
    figure = pf.pl.skeleton(sequence, DRAWN, layers=list(predicted), n_poses=10)
    figure.savefig(folder / "skeleton.png", dpi=150)

"""Fits of the benchmark on human motion: what is fitted, to which frames, and what is kept of it."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
from _dynamics_methods import zero_share
from _motion_protocol import (
    FRAMES_PER_SECOND,
    N_SCORED,
    TASKS,
    TEST_SPLITS,
    Motion,
    Task,
    frame_errors,
    parts,
    range_excess,
)
from anndata import read_h5ad

import perturbflow as pf
from perturbflow.dynamics import SPARSITIES
from perturbflow.predict import read_dynamics

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from _motion_protocol import FloatArray
    from anndata import AnnData

Kind = Literal["angles", "positions"]
Condition = Literal["all frames", "noise", "half of the frames", "one trial"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CONDITIONS: tuple[Condition, ...] = get_args(Condition)
DEFAULT = "cnode"  # smallest error on training sequences that are held out among those whose solutions never failed
DEFAULT_EFFORT = 0.3
NOISE = 0.1  # of the s.d. of each channel
ONE_TRIAL = "35_02"
DISPLACEMENT = 0.4
STRENGTHS = (0.01, 0.05)
JUDGED = ("valid", *TEST_SPLITS)


@dataclass(frozen=True)
class Setting:
    """One fit."""

    kind: Kind
    order: Literal[1, 2]
    sparsity: str
    condition: Condition = "all frames"
    seed: int = 0
    effort: float = 1.0

    def path(self, folder: Path, suffix: str) -> Path:
        """File with the fit (.h5ad), its results (.json) or its forecasts (.npz)."""
        words = (self.kind, f"order{self.order}", self.sparsity, self.condition, f"seed{self.seed}", f"{self.effort:g}")
        return folder / ("_".join(words).replace(" ", "-").replace(".", "p") + suffix)


@cache
def frames(kind: Kind) -> AnnData:
    """Frames of all sequences."""
    return pf.datasets.motion_capture(kind)


def training_frames(cells: AnnData, condition: Condition, *, seed: int = 0) -> AnnData:
    """Training frames as they are, with noise, without half of them, or of one trial only."""
    train = cells[(cells.obs["split"] == "train").to_numpy()].copy()
    rng = np.random.default_rng(seed)
    if condition == "noise":
        spread = NOISE * np.asarray(train.X, dtype=np.float64).std(axis=0)
        train.X = (train.X + spread * rng.standard_normal(train.shape)).astype(np.float32)
    elif condition == "half of the frames":
        kept = np.zeros(train.n_obs, dtype=bool)
        for rows in train.obs.groupby("sequence", observed=True).indices.values():
            kept[rng.choice(rows, (len(rows) + 1) // 2, replace=False)] = True
        train = train[kept].copy()
    elif condition == "one trial":
        train = train[(train.obs["sequence"] == ONE_TRIAL).to_numpy()].copy()
    train.obs["sequence"] = train.obs["sequence"].cat.remove_unused_categories()
    return train


def fitted(setting: Setting) -> AnnData:
    """Training frames with fitted dynamics.

    Networks of every channel; the penalty alone decides which inputs are left, at the strength of smallest error on
    training sequences that are held out.
    """
    train = training_frames(frames(setting.kind), setting.condition, seed=setting.seed)
    pf.pp.setup_dynamics(train, time_key="time", trajectory_key="sequence")
    strengths = (0.0,) if setting.sparsity == "none" else STRENGTHS
    pf.tl.fit_dynamics(
        train,
        order=setting.order,
        sparsity=setting.sparsity,  # type: ignore[arg-type]
        eliminate=False,
        effort=setting.effort,
        plan_kwargs={"displacement": DISPLACEMENT, "strengths": strengths},
        seed=setting.seed,
        progress_bar=False,
    )
    return train


def forecasts(train: AnnData, cells: AnnData, motion: Motion) -> dict[Task, dict[str, FloatArray]]:
    """Sixty frames after the observed ones of every sequence that is judged, by task and its name, with one set of solutions."""
    sequence = cells.obs["sequence"].astype(str).to_numpy()
    n_observed = {(task, name): len(parts(x, task)[0]) for task in TASKS for name, x in motion.part(*JUDGED).items()}
    seen = [np.flatnonzero(sequence == name)[:n] for (_, name), n in n_observed.items()]
    observed = cells[np.concatenate(seen)].copy()
    names = {key: f"{key[0]}, {key[1]}" for key in n_observed}
    observed.obs["sequence"] = np.repeat(list(names.values()), list(map(len, seen)))
    observed.obs_names_make_unique()
    n_times = max(n_observed.values()) + N_SCORED
    pf.tl.forecast(
        train, observed=observed, until=(n_times - 1) / FRAMES_PER_SECOND, n_times=n_times, key_added="asked"
    )
    asked = train.uns["asked"]
    values = dict(zip(map(str, asked["trajectories"]), np.asarray(asked["values"], dtype=np.float64), strict=True))
    found: dict[Task, dict[str, FloatArray]] = {task: {} for task in TASKS}
    for (task, name), n in n_observed.items():
        found[task][name] = values[names[task, name]][n : n + N_SCORED]
    return found


def judged(predicted: dict[str, FloatArray], motion: Motion, task: Task) -> list[dict[str, Any]]:
    """Errors of all frames, and how far predictions leave the range of what is known, of every sequence."""
    known = np.concatenate(motion.train)
    rows = []
    for name, values in predicted.items():
        observed, target = parts(motion.frames[name], task)
        error = frame_errors(values[: len(target)], target, scale=motion.scale)
        rows.append(
            {
                "sequence": name,
                "split": motion.splits[name],
                "task": task,
                "error": error.round(6).tolist(),
                "range": range_excess(values, np.concatenate([known, observed])),
            }
        )
    return rows


def fit(setting: Setting, folder: Path) -> None:
    """Fit, and keep the training frames with their dynamics."""
    began = time.process_time()
    train = fitted(setting)
    if train.uns["dynamics"]["settings"]["interrupted"]:  # half a fit is none of the benchmark
        raise KeyboardInterrupt
    train.uns["seconds"] = time.process_time() - began
    path = setting.path(folder, ".h5ad")
    train.write_h5ad(path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def judge(setting: Setting, folder: Path, *, n_sequences: int | None = None) -> dict[str, Any]:
    """Forecast with a fit that was kept, and write the results and the forecast poses.

    Of each test split all sequences are forecast, or so many.
    """
    motion, train = Motion.of(frames(setting.kind)), read_h5ad(setting.path(folder, ".h5ad"))
    motion = motion if n_sequences is None else motion.at_most(n_sequences)
    began = time.process_time()
    model = read_dynamics(train).model
    support = model.support()
    rows, poses = [], {}
    for task, predicted in forecasts(train, frames(setting.kind), motion).items():
        rows += judged(predicted, motion, task)
        poses |= {f"{task}|{name}": values.astype(np.float32) for name, values in predicted.items()}
    result = asdict(setting) | {
        "zero_weights": zero_share(model.field.weights(), model.field.allowed.numpy() > 0),
        "absent_inputs": float(1 - support.mean()),
        "unused_channels": float((~support.any(axis=0)).mean()),
        "plausible_edges": plausible_share(support, train),
        "strength": model.strength,
        "whole_solutions_fitted": "solving" in set(train.uns["dynamics"]["history"]["stage"]),
        "seconds": float(train.uns["seconds"]),
        "seconds_of_forecasts": time.process_time() - began,
        "rows": rows,
    }
    np.savez_compressed(setting.path(folder, ".npz"), **poses)
    path = setting.path(folder, ".json")
    path.with_suffix(".tmp").write_text(json.dumps(result), encoding="utf-8")
    path.with_suffix(".tmp").replace(path)
    return result


def plausible_share(support: np.ndarray, train: AnnData) -> float:
    """Share of neighbouring joints among inputs that are left, over that among all pairs; self edges do not count."""
    d = train.n_vars
    edges = support.reshape(d, -1, d).any(axis=1) if support.shape[1] % d == 0 else support[:, :d]
    other = ~np.eye(d, dtype=bool)
    neighbours = train.varp["skeleton"].toarray() > 0
    found = neighbours[edges & other]
    return float(found.mean() / neighbours[other].mean()) if found.size else float("nan")


def defaults(kinds: tuple[Kind, ...] = KINDS, *, n_seeds: int = 3) -> list[Setting]:
    """Fits of second order with the sparsity that validation prefers, longer than those that compare sparsities."""
    return [Setting(kind, 2, DEFAULT, seed=seed, effort=DEFAULT_EFFORT) for seed in range(n_seeds) for kind in kinds]


def settings(
    *,
    kinds: tuple[Kind, ...] = KINDS,
    orders: tuple[Literal[1, 2], ...] = (2, 1),
    sparsities: tuple[str, ...] = tuple(SPARSITIES),
    n_seeds: int = 3,
    n_stress_seeds: int = 1,
    effort: float = 1.0,
) -> list[Setting]:
    """All fits, those that the page needs most first: all methods once, then stress tests, then other seeds."""
    names = sorted(sparsities, key=lambda name: (name != DEFAULT, name != "none"))
    first = [Setting(kind, order, name, effort=effort) for order in orders for name in names for kind in kinds]
    stress = [
        Setting(kind, 2, name, condition, seed, effort)
        for seed in range(n_stress_seeds)
        for kind in kinds
        for condition in CONDITIONS[1:]
        for name in names
    ]
    others = [
        Setting(kind, order, name, seed=seed, effort=effort)
        for seed in range(1, n_seeds)
        for order in orders
        for name in names
        for kind in kinds
    ]
    return first + stress + others


def read_results(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Table of the fits, and table of the errors of all frames with their settings."""
    fits, errors = [], []
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        rows = result.pop("rows")
        fits.append(result | {"range": max(row["range"] for row in rows)})
        errors += [*by_frame(rows, result)]
    return pd.DataFrame(fits), pd.DataFrame(errors)


def by_frame(rows: list[dict[str, Any]], about: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows of errors of single frames, with what is fitted."""
    keys = ("kind", "order", "sparsity", "effort", "condition", "seed")
    for row in rows:
        same = {key: about[key] for key in keys} | {key: row[key] for key in ("sequence", "split", "task")}
        yield from (same | {"frame": frame, "error": error} for frame, error in enumerate(row["error"], 1))


def mean_of_seeds(folder: Path, kind: Kind) -> pd.DataFrame:
    """Errors of all frames of the mean of the forecasts by all seeds of the default; empty where there is one seed only."""
    found = [one.path(folder, ".npz") for one in defaults((kind,), n_seeds=99)]
    found = [path for path in found if path.is_file()]
    if len(found) < 2:
        return pd.DataFrame()
    poses = [dict(np.load(path)) for path in found]
    motion, rows = Motion.of(frames(kind)), []
    for task in TASKS:
        names = [key.split("|")[1] for key in poses[0] if key.startswith(f"{task}|")]
        mean = {name: np.mean([each[f"{task}|{name}"] for each in poses], axis=0, dtype=float) for name in names}
        rows += judged(mean, motion, task)
    about = asdict(defaults((kind,), n_seeds=1)[0]) | {"sparsity": f"{DEFAULT}, mean of {len(found)} forecasts"}
    return pd.DataFrame(by_frame(rows, about))

"""The protocol of the benchmark on human motion: what is observed, what is predicted, and how errors are counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

if TYPE_CHECKING:
    from anndata import AnnData

FloatArray: TypeAlias = NDArray[np.float64]
Task = Literal["second half", "first frame"]
TASKS: tuple[Task, ...] = get_args(Task)
TEST_SPLITS = ("test_trial", "test_subject", "test_activity", "test_both")
N_SCORED = 60  # frames, two seconds
FRAMES_PER_SECOND = 30

Forecast: TypeAlias = "Callable[[FloatArray, int], FloatArray]"
"""Takes the observed frames (m, d) and a number of frames, predicts these (n, d)."""


@dataclass(frozen=True)
class Motion:
    """Sequences of one kind, with the split of each."""

    frames: Mapping[str, FloatArray]  # (n, d) of each sequence, evenly spaced
    splits: Mapping[str, str]

    @classmethod
    def of(cls, adata: AnnData) -> Motion:
        """Collect the sequences of frames as the reader returns them."""
        names = adata.obs["sequence"].astype(str).to_numpy()
        values = np.asarray(adata.X, dtype=np.float64)
        split = dict(zip(names, adata.obs["split"].astype(str), strict=True))
        return cls({name: values[names == name] for name in dict.fromkeys(names)}, split)

    def part(self, *splits: str) -> dict[str, FloatArray]:
        """Sequences of some splits."""
        return {name: x for name, x in self.frames.items() if self.splits[name] in splits}

    def at_most(self, n: int) -> Motion:
        """Motion with no more than the first n sequences of each test split."""
        left = [name for split in TEST_SPLITS for name in list(self.part(split))[n:]]
        return Motion({name: x for name, x in self.frames.items() if name not in left}, self.splits)

    @property
    def train(self) -> list[FloatArray]:
        """Training sequences."""
        return list(self.part("train").values())

    @property
    def scale(self) -> float:
        """Root of the mean variance of the channels over all training frames."""
        return float(np.sqrt(np.concatenate(self.train).var(axis=0).mean()))


def parts(x: FloatArray, task: Task) -> tuple[FloatArray, FloatArray]:
    """Observed frames of a sequence and those to predict: at most 60 after the first half, rounded up, or the first frame."""
    n_observed = 1 if task == "first frame" else (len(x) + 1) // 2
    return x[:n_observed], x[n_observed : n_observed + N_SCORED]


def frame_errors(predicted: FloatArray, target: FloatArray, *, scale: float) -> FloatArray:
    """Squared error of every predicted frame, mean over channels, over the squared scale (n,)."""
    if predicted.shape != target.shape:
        msg = (
            f"Expected predictions of shape {target.shape}, found {predicted.shape}. Predict every frame of the target."
        )
        raise ValueError(msg)
    return ((predicted - target) ** 2).mean(axis=1) / scale**2


def errors_of(forecast: Forecast, motion: Motion, task: Task, *, splits: tuple[str, ...] = TEST_SPLITS) -> pd.DataFrame:
    """Errors of all frames: a table of sequence, split, task, frame (from 1) and error."""
    tables = []
    for name, x in motion.part(*splits).items():
        observed, target = parts(x, task)
        error = frame_errors(forecast(observed, len(target)), target, scale=motion.scale)
        frame = np.arange(1, len(error) + 1)
        tables.append(
            pd.DataFrame({"sequence": name, "split": motion.splits[name], "task": task, "frame": frame, "error": error})
        )
    return pd.concat(tables, ignore_index=True)


def scores(errors: pd.DataFrame, *, until: float = N_SCORED / FRAMES_PER_SECOND) -> pd.DataFrame:
    """Score of every sequence: its mean error over frames up to a horizon in seconds.

    Other columns that name a model or a seed are kept.
    """
    keys = [column for column in errors if column not in {"frame", "error"}]
    within = errors[errors["frame"] <= round(until * FRAMES_PER_SECOND)]
    return within.groupby(keys, sort=False)["error"].mean().rename("score").reset_index()


def by_split(table: pd.DataFrame) -> pd.DataFrame:
    """Mean score over the sequences of a split; other columns are kept."""
    keys = [column for column in table if column not in {"sequence", "score"}]
    return table.groupby(keys, sort=False)["score"].mean().reset_index()


def range_excess(predicted: FloatArray, known: FloatArray) -> float:
    """Largest distance of a prediction from the middle of what is known, over half the range of the known values.

    The largest over frames and channels: 1 is at the edge of what was seen, 1.5 half a half-range beyond. Channels that
    never change have the range of the others' median.
    """
    low, high = known.min(axis=0), known.max(axis=0)
    half = (high - low) / 2
    half = np.where(half > 0, half, np.median(half))
    return float((np.abs(predicted - (high + low) / 2) / half).max())

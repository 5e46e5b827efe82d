"""What the leaderboard and the packages that it is compared with hand to each other: files, since each runs in its own environment.

Imported by both sides, so it needs nothing but AnnData and pandas.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anndata import AnnData

CONTROL = "control"
SEPARATOR = "+"
TRAINING, HELD_OUT, SETTINGS, PREDICTED, SECONDS = (
    "training.h5ad",
    "held_out.csv",
    "settings.json",
    "predicted.h5ad",
    "seconds.json",
)


@dataclass(frozen=True)
class Task:
    """Cells to learn from and conditions to predict.

    Parameters
    ----------
    cells
        Log1p-normalised cells that may be known, with the columns ``perturbation`` (components are joined by "+") and
        ``cell_type``.
    held_out
        Conditions to predict, with the same columns; control cells of every type are among the cells.
    settings
        Seed and number of iterations.
    """

    cells: AnnData
    held_out: pd.DataFrame
    settings: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Task:
        """Read what :meth:`write` has written."""
        settings = json.loads((folder / SETTINGS).read_text())
        return cls(ad.read_h5ad(folder / TRAINING), pd.read_csv(folder / HELD_OUT, dtype=str), settings)

    def write(self, folder: Path) -> None:
        """Write what another process reads."""
        folder.mkdir(parents=True, exist_ok=True)
        self.cells.write_h5ad(folder / TRAINING)
        self.held_out.to_csv(folder / HELD_OUT, index=False)
        (folder / SETTINGS).write_text(json.dumps(self.settings))

    def controls(self, cell_type: str) -> AnnData:
        """Control cells of a type."""
        obs = self.cells.obs
        return self.cells[((obs["perturbation"] == CONTROL) & (obs["cell_type"] == cell_type)).to_numpy()].copy()


def answer(folder: Path, predict: Callable[[Task], Sequence[np.ndarray]]) -> None:
    """Do a task: write the cells that ``predict`` gives for every held-out condition, and CPU seconds without imports."""
    task = Task.read(folder)
    began = time.process_time()
    predicted = predict(task)
    seconds = time.process_time() - began
    obs = task.held_out.loc[np.repeat(np.arange(len(predicted)), [len(cells) for cells in predicted])]
    obs = obs.reset_index(drop=True)
    obs.index = obs.index.astype(str)
    x = np.maximum(np.vstack(predicted), 0).astype(np.float32)
    ad.AnnData(x, obs=obs, var=pd.DataFrame(index=task.cells.var_names)).write_h5ad(folder / PREDICTED)
    (folder / SECONDS).write_text(json.dumps(seconds))

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
    "predicted.npz",
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


def read_answer(folder: Path, task: Task) -> tuple[AnnData, float]:
    """Predicted cells, and CPU seconds."""
    with np.load(folder / PREDICTED) as found:
        obs = task.held_out.iloc[found["condition"]].set_axis([f"cell_{i}" for i in range(len(found["x"]))])
        cells = ad.AnnData(found["x"], obs=obs, var=pd.DataFrame(index=task.cells.var_names))
    return cells, json.loads((folder / SECONDS).read_text())


def answer(folder: Path, predict: Callable[[Task], Sequence[np.ndarray]]) -> None:
    """Do a task: write the cells that ``predict`` gives for every held-out condition, and CPU seconds without imports."""
    task = Task.read(folder)
    began = time.process_time()
    predicted = predict(task)
    seconds = time.process_time() - began
    # Plain arrays: how an AnnData is written depends on its version and on that of pandas, which are others there.
    condition = np.repeat(np.arange(len(predicted)), [len(cells) for cells in predicted])
    np.savez(folder / PREDICTED, x=np.maximum(np.vstack(predicted), 0).astype(np.float32), condition=condition)
    (folder / SECONDS).write_text(json.dumps(seconds))

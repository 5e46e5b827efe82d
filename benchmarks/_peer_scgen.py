"""scGen, as pertpy carries it, on one task of the leaderboard, run by its own interpreter: ``python _peer_scgen.py FOLDER``.

One autoencoder of all cells; a perturbation is the difference of latent means, taken over the cell types that have it. All
settings are pertpy's but the number of epochs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pertpy as pt
from _peer_files import CONTROL, Task, answer


def predict(task: Task) -> list[np.ndarray]:
    """Train, and move the control cells of a type along the difference of every held-out perturbation."""
    cells = task.cells
    cells.X = cells.X.toarray()
    pt.tl.Scgen.setup_anndata(cells, batch_key="perturbation", labels_key="cell_type")
    model = pt.tl.Scgen(cells)
    model.train(max_epochs=task.settings["n_iterations"])
    found = []
    for perturbation, cell_type in task.held_out[["perturbation", "cell_type"]].itertuples(index=False):
        predicted, _ = model.predict(ctrl_key=CONTROL, stim_key=perturbation, celltype_to_predict=cell_type)
        found.append(np.asarray(predicted.X))
    return found


if __name__ == "__main__":
    answer(Path(sys.argv[1]), predict)

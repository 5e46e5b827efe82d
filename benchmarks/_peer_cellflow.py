"""CellFlow on one task of the leaderboard, run by its own interpreter: ``python _peer_cellflow.py FOLDER``.

Fifty principal components, one-hot perturbations, and the mean of its control cells for a cell type, so that a type or a
combination without cells has a representation. Its layers are narrower and its batches smaller than its defaults, which
take hours on a CPU.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from _peer_files import CONTROL, SEPARATOR, Task, answer
from cellflow.model import CellFlow
from cellflow.preprocessing import centered_pca, project_pca, reconstruct_pca

if TYPE_CHECKING:
    import pandas as pd

N_COMPONENTS = 50
NONE = "none"
WIDTH = {"time_encoder_dims": (256, 256), "hidden_dims": (256, 256), "decoder_dims": (512, 512)}
BATCH_SIZE = 256


def predict(task: Task) -> list[np.ndarray]:
    """Train, and predict every held-out condition from the control cells of its type."""
    cells, held_out = task.cells, task.held_out.copy()
    centered_pca(cells, n_comps=N_COMPONENTS)
    cells.obs["is_control"] = cells.obs["perturbation"] == CONTROL
    labels = [*cells.obs["perturbation"].astype(str), *held_out["perturbation"]]
    n_parts = max(label.count(SEPARATOR) + 1 for label in labels)
    columns = [f"part_{number}" for number in range(n_parts)]
    for table in (cells.obs, held_out):
        for number, column in enumerate(columns):
            table[column] = [part_of(label, number) for label in table["perturbation"].astype(str)]
    names = sorted({part for label in labels for part in label.split(SEPARATOR)} - {CONTROL})
    # Zeros are what stands for no perturbation.
    cells.uns["perturbations"] = dict(zip(names, np.eye(len(names), dtype=np.float32), strict=True))
    cells.uns["perturbations"][NONE] = np.zeros(len(names), dtype=np.float32)
    types = sorted(set(cells.obs["cell_type"].astype(str)))
    cells.uns["types"] = {name: task.controls(name).obsm["X_pca"].mean(axis=0) for name in types}
    of_types = {"sample_covariates": ["cell_type"], "sample_covariate_reps": {"cell_type": "types"}}

    # Control cells whose type was never perturbed have nothing to be trained towards.
    perturbed = set(cells.obs["cell_type"][~cells.obs["is_control"]])
    model = CellFlow(cells[cells.obs["cell_type"].isin(perturbed).to_numpy()].copy(), solver="otfm")
    model.prepare_data(
        sample_rep="X_pca",
        control_key="is_control",
        perturbation_covariates={"perturbation": columns},
        perturbation_covariate_reps={"perturbation": "perturbations"},
        split_covariates=["cell_type"],
        **(of_types if len(types) > 1 else {}),
    )
    model.prepare_model(condition_embedding_dim=64, seed=task.settings["seed"], **WIDTH)
    model.train(num_iterations=task.settings["n_iterations"], batch_size=BATCH_SIZE)
    return [predicted(model, task, held_out.iloc[[number]]) for number in range(len(held_out))]


def part_of(label: str, number: int) -> str:
    """A component of a perturbation, or that there is none."""
    parts = [] if label == CONTROL else label.split(SEPARATOR)
    return parts[number] if number < len(parts) else NONE


def predicted(model: CellFlow, task: Task, condition: pd.DataFrame) -> np.ndarray:
    """Cells of one condition, in gene space."""
    cells = task.controls(condition["cell_type"].iloc[0])
    project_pca(cells, ref_adata=task.cells)
    (found,) = model.predict(cells, condition.assign(is_control=True), sample_rep="X_pca").values()
    cells.obsm["X_pca"] = np.asarray(found)
    reconstruct_pca(cells, ref_adata=task.cells)
    return np.asarray(cells.layers["X_recon"])


if __name__ == "__main__":
    answer(Path(sys.argv[1]), predict)

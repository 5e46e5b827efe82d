"""Other packages on the tasks of the leaderboard, each by the interpreter of its own environment (``make peers``)."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
from _peer_files import PREDICTED, SECONDS, SEPARATOR, Task

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

HERE = Path(__file__).parent
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Peer:
    """A package that predicts cells.

    Parameters
    ----------
    script
        What its interpreter runs, beside this file.
    n_iterations
        Cap of its training.
    combines
        Whether it predicts combinations.
    """

    script: str
    n_iterations: int
    combines: bool

    def can_predict(self, cells: AnnData) -> bool:
        """Whether the held-out conditions are of a kind that it knows."""
        has_combinations = held_out(cells)["perturbation"].str.contains(SEPARATOR, regex=False).any()
        return self.combines or not has_combinations


PEERS: Mapping[str, Peer] = {
    "cellflow": Peer("_peer_cellflow.py", n_iterations=2000, combines=True),
    "scgen": Peer("_peer_scgen.py", n_iterations=100, combines=False),
}


def held_out(cells: AnnData) -> pd.DataFrame:
    """Test conditions of the split."""
    table = cells.uns["split"]["held_out"]
    return table.loc[table["split"] == "test", ["perturbation", "cell_type"]].reset_index(drop=True)


def interpreter(name: str) -> Path:
    """The Python that has a package; an error says how to make it."""
    path = HERE.parent / f".venv-peers-{name}/bin/python"
    if not path.is_file():
        msg = f"Expected {name} in an environment of its own, found no {path}. Make it: make peers PYTHON=python3.12."
        raise FileNotFoundError(msg)
    return path


def predicted_by(
    name: str, cells: AnnData, *, seed: int, n_iterations: int | None = None, python: Path | None = None
) -> tuple[AnnData, float]:
    """Cells that a package predicts for the test conditions from all others, and CPU seconds of training and predicting."""
    peer = PEERS[name]
    known = cells[(cells.obs["split"] != "test").to_numpy()]
    obs = known.obs[["perturbation", "cell_type"]].astype(str)
    settings = {"seed": seed, "n_iterations": peer.n_iterations if n_iterations is None else n_iterations}
    task = Task(ad.AnnData(known.X.copy(), obs=obs, var=known.var[[]].copy()), held_out(cells), settings)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with tempfile.TemporaryDirectory() as folder:
        task.write(Path(folder))
        done = subprocess.run(
            [python or interpreter(name), HERE / peer.script, folder],
            env=environment | dict.fromkeys(THREADS, "1"),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            msg = f"Expected cells from {name}, found an error. Look at what it says:\n{done.stderr[-2000:]}"
            raise RuntimeError(msg)
        seconds = json.loads((Path(folder) / SECONDS).read_text())
        return ad.read_h5ad(Path(folder) / PREDICTED), seconds

"""Checkpoints of an unfinished fit: a directory that nothing is unpickled from."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from perturbflow.flow import CellData, FlowTrainer

_ARRAYS_FILE, _VALUES_FILE = "training.safetensors", "training.json"


class Checkpoint:
    """Saves a trainer, and continues one that was saved by the same fit.

    Parameters
    ----------
    folder
        Where to save. If it holds a checkpoint, the trainer continues from it.
    trainer
        The trainer.
    cells
        Its training cells.

    Raises
    ------
    ValueError
        If the checkpoint belongs to a fit of other cells or with other settings.
    """

    def __init__(self, folder: str | Path, trainer: FlowTrainer, cells: CellData) -> None:
        self.folder = Path(folder)
        self.trainer = trainer
        self.fit = {
            "config": trainer.flow.config.to_dict(),
            "settings": asdict(trainer.settings),
            "n_cells": len(cells),
            "sum": float(cells.x.sum(dtype="float64")),
        }
        if (self.folder / _VALUES_FILE).is_file():
            values = json.loads((self.folder / _VALUES_FILE).read_text())
            if values["fit"] != self.fit:
                different = sorted(name for name in self.fit if values["fit"].get(name) != self.fit[name])
                msg = (
                    f"Expected the checkpoint in {str(self.folder)!r} to be of this fit, found another: different "
                    f"{different}. Use the same cells and settings, or another `checkpoint`."
                )
                raise ValueError(msg)
            trainer.load_state(load_file(self.folder / _ARRAYS_FILE), values["state"])

    def save(self) -> None:
        """Write the state; an interruption leaves either the old checkpoint or the new one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors, values = self.trainer.state()
        arrays, text = self.folder / _ARRAYS_FILE, self.folder / _VALUES_FILE
        fresh_arrays, fresh_text = arrays.with_suffix(".new"), text.with_suffix(".new")
        save_file(tensors, fresh_arrays)
        fresh_text.write_text(json.dumps({"fit": self.fit, "state": values}))
        fresh_arrays.replace(arrays)
        fresh_text.replace(text)

    def remove(self) -> None:
        """Remove the checkpoint, and its directory if nothing else is in it."""
        for name in (_ARRAYS_FILE, _VALUES_FILE):
            (self.folder / name).unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

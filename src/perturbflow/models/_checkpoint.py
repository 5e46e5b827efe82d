"""Checkpoints of an unfinished fit: a directory that nothing is unpickled from."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from perturbflow.flow import CellData, FlowTrainer

_FILE = "training.safetensors"


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
    init
        What it took over from an earlier flow, plain values.

    Raises
    ------
    ValueError
        If the checkpoint belongs to a fit of other cells or with other settings, or is none.
    NotADirectoryError
        If the folder is a file.
    """

    def __init__(self, folder: str | Path, trainer: FlowTrainer, cells: CellData, *, init: dict[str, Any]) -> None:
        self.folder = Path(folder)
        self.trainer = trainer
        self.fit = {
            "config": trainer.flow.config.to_dict(),
            "settings": asdict(trainer.settings),
            "n_cells": len(cells),
            "sum": float(cells.x.sum(dtype="float64")),
            "init": init,
            "conditions": zlib.crc32(cells.perturbations.toarray().tobytes() + cells.covariates.tobytes()),
        }
        if self.folder.exists() and not self.folder.is_dir():
            msg = f"Expected `checkpoint` to be a directory or free, found the file {str(folder)!r}. Choose another."
            raise NotADirectoryError(msg)
        if self.path.is_file():
            try:
                with safe_open(self.path, framework="pt") as file:
                    metadata = file.metadata()
            except SafetensorError as error:
                msg = f"Expected a checkpoint in {str(self.path)!r}, found another file ({error}). Delete it."
                raise ValueError(msg) from error
            saved = json.loads(metadata["fit"])
            if saved != self.fit:
                different = sorted(name for name in self.fit if saved.get(name) != self.fit[name])
                msg = (
                    f"Expected the checkpoint in {str(self.folder)!r} to be of this fit, found another: different "
                    f"{different}. Use the same cells and settings, or another `checkpoint`."
                )
                raise ValueError(msg)
            trainer.load_state(load_file(self.path), json.loads(metadata["state"]))

    @property
    def path(self) -> Path:
        """The one file: tensors, and the values as JSON in its header."""
        return self.folder / _FILE

    def save(self) -> None:
        """Write the state; an interruption leaves either the old checkpoint or the new one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors, values = self.trainer.state()
        fresh = self.path.with_suffix(".new")
        save_file(tensors, fresh, metadata={"fit": json.dumps(self.fit), "state": json.dumps(values)})
        fresh.replace(self.path)

    def remove(self) -> None:
        """Remove the checkpoint, and its directory if nothing else is in it."""
        for path in (self.path, self.path.with_suffix(".new")):
            path.unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

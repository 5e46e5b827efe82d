"""Checkpoints of an unfinished fit: a directory that nothing is unpickled from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from perturbflow._warnings import warn
from perturbflow.store._file import read_file, remove_leftovers, write_file
from perturbflow.store._stored_checks import reading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor

_FILE, _KIND = "training.safetensors", "a checkpoint"
_ADVICE = "Delete it to start anew."


class Trainer(Protocol):
    """State that can be saved and continued: tensors and plain values."""

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return everything that the next steps depend on."""

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""


class Checkpoint:
    """Saves a trainer, and continues one that was saved by the same fit, if the folder holds it.

    ``fit`` is what tells this fit from others, values that JSON can hold: settings, and hashes of the data. Raises
    ValueError if the checkpoint belongs to another fit, or is none, or a damaged one.
    """

    def __init__(self, folder: str | Path, trainer: Trainer, *, fit: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.trainer = trainer
        self.fit = json.loads(json.dumps(fit))
        if self.path.is_file():
            arrays, values = read_file(self.path, kind=_KIND, advice=_ADVICE)
            with reading(_KIND, where=repr(str(self.path)), advice=_ADVICE):
                saved, state = dict(values["fit"]), values["state"]
            if saved != self.fit:
                different = sorted(name for name in self.fit if saved.get(name) != self.fit[name])
                msg = (
                    f"Expected the checkpoint in {str(self.folder)!r} to be of this fit, found another: different "
                    f"{different}. Use the same cells and settings, or another `checkpoint`."
                )
                raise ValueError(msg)
            with reading(_KIND, where=repr(str(self.path)), advice=_ADVICE):
                trainer.load_state({name: torch.from_numpy(array) for name, array in arrays.items()}, state)

    @property
    def path(self) -> Path:
        """The one file: tensors, and the values as JSON in its header."""
        return self.folder / _FILE

    def save(self) -> None:
        """Write the state; an interruption leaves either the old checkpoint or the new one.

        Where it cannot be written, for want of space for example, there is a warning and the fit goes on.
        """
        tensors, values = self.trainer.state()
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
        with self._warning("written, so that the fit could continue only from the one before"):
            write_file(self.path, arrays, {"fit": self.fit, "state": values}, kind=_KIND)

    def remove(self) -> None:
        """Remove the checkpoint, and its directory if nothing else is in it."""
        with self._warning("removed after the fit, which is complete"):
            self.path.unlink(missing_ok=True)
            remove_leftovers(self.path)
            if self.folder.is_dir() and not any(self.folder.iterdir()):
                self.folder.rmdir()

    @contextmanager
    def _warning(self, what: str) -> Iterator[None]:
        """Warn where files cannot be changed: the fit is worth more than its checkpoint."""
        try:
            yield
        except OSError as error:
            warn(f"The checkpoint in {str(self.folder)!r} could not be {what} ({error}).")


def hash_of(*arrays: NDArray) -> str:
    """Return what tells arrays from others of the same shapes and sums."""
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()

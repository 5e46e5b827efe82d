"""Checkpoints of an unfinished fit: a directory that nothing is unpickled from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from lightning.pytorch import Callback
from lightning.pytorch.plugins.io import TorchCheckpointIO
from numpy.typing import NDArray

from perturbflow._warnings import warn
from perturbflow.store._file import read_file, remove_leftovers, write_file
from perturbflow.store._stored_checks import reading

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from torch import Tensor

_FILE, _KIND = "training.safetensors", "a checkpoint"
_ADVICE = "Delete it to start anew."


_TENSOR, _PAIRS = "tensor", "pairs"


class Resumable(Protocol):
    """State that can be saved and continued: tensors and plain values."""

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return everything that the next steps depend on."""

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""


class Checkpoint:
    """Saves a trainer, and continues one that was saved by the same ``fit`` (plain values), if the folder holds it."""

    def __init__(self, folder: str | Path, trainer: Resumable, *, fit: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.trainer: Any = trainer
        self.fit = json.loads(json.dumps(fit))
        if self.path.is_file():
            arrays, values = read_file(self.path, kind=_KIND, advice=_ADVICE)
            with reading(_KIND, where=repr(str(self.path)), advice=_ADVICE):
                saved, state = dict(values["fit"]), values["state"]
            if saved != self.fit:
                different = sorted(name for name in self.fit if saved.get(name) != self.fit[name])
                msg = (
                    f"Expected the checkpoint in {str(self.folder)!r} to belong to this fit, found another one: different "
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
        """Write the state as a whole; where it cannot be written there is a warning and the fit goes on."""
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


class LightningState:
    """The last checkpoint of a trainer, in the form that :class:`Checkpoint` keeps."""

    def __init__(self) -> None:
        self.checkpoint: dict[str, Any] | None = None

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors by name, and the rest with their names in their places."""
        tensors: dict[str, Tensor] = {}
        return tensors, {"checkpoint": _flatten(self.checkpoint, "", tensors)}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Put a checkpoint together again."""
        self.checkpoint = _assemble(values["checkpoint"], tensors)


class SafeCheckpoints(TorchCheckpointIO):
    """Writes and reads the one checkpoint of a fit; other files are those of users' callbacks, and Lightning's."""

    def __init__(self, saved: Checkpoint) -> None:
        super().__init__()
        self.saved, self.kept = saved, saved.trainer

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint."""
        if Path(path) != self.saved.path:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        self.kept.checkpoint = checkpoint
        self.saved.save()

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint."""
        if Path(path) != self.saved.path:
            return super().load_checkpoint(path, map_location, weights_only)
        assert self.kept.checkpoint is not None
        return self.kept.checkpoint


class SaveAfterValidation(Callback):
    """Saves the fit after every validation."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Save, unless an interruption may have left a step half done."""
        del pl_module
        if not trainer.interrupted:
            trainer.save_checkpoint(self.path)


def _flatten(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    """Plain values with the names of tensors in place of them."""
    if isinstance(value, torch.Tensor):
        tensors[place] = value.detach().cpu().clone()
        return {_TENSOR: place}
    if isinstance(value, dict):
        return {_PAIRS: [[key, _flatten(item, f"{place}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_flatten(item, f"{place}/{i}", tensors) for i, item in enumerate(value)]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    msg = f"Expected plain values and tensors in a checkpoint, found {type(value).__name__} at {place!r}."
    raise TypeError(msg)


def _assemble(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_assemble(item, tensors) for item in value]
    if isinstance(value, dict) and _PAIRS in value:
        return {key: _assemble(item, tensors) for key, item in value[_PAIRS]}
    return tensors[value[_TENSOR]] if isinstance(value, dict) else value

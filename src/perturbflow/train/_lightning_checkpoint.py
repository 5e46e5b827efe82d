"""Checkpoints of Lightning as tensors and JSON: nothing is unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.plugins.io import TorchCheckpointIO

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lightning.pytorch import Trainer
    from torch import Tensor

    from perturbflow.train._checkpoint import Checkpoint

_TENSOR, _PAIRS = "tensor", "pairs"


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

    def __init__(self, saved: Checkpoint, state: LightningState) -> None:
        super().__init__()
        self.saved, self.kept = saved, state

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

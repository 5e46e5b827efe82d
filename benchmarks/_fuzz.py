"""Loaders of stored fits, given damaged files and entries: each refuses clearly, or reads what was written."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from _mutations import damaged_bytes, damaged_entry
from anndata.io import read_elem

import perturbflow as pf
from perturbflow.dynamics import DynamicsSettings, DynamicsTrainer, FieldConfig, Trajectory
from perturbflow.flow import PREDICTION_SETTINGS
from perturbflow.models import FittedFlow
from perturbflow.predict import read_dynamics, read_flow, write_flow
from perturbflow.store import checksum
from perturbflow.train import Checkpoint, identity

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

CLEAR = (ValueError, OSError, KeyError)
OF_ANNDATA = "refused by anndata"
MAY_CHANGE = ("history", *(f"config/{name}" for name in PREDICTION_SETTINGS))
SECONDS_OF_A_PROCESS = 10.0
MOST_MEMORY = 64 << 30  # of addresses, so that what a file claims is not allocated


class Unclear(Exception):
    """What should not have happened."""


def cells_with_a_flow() -> AnnData:
    """A few cells with a small flow."""
    adata = pf.datasets.simulated_perturb_seq(n_cells=300, n_genes=20, n_perturbations=3, n_combinations=2)
    pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    pf.pp.split_perturbations(adata, task="combination", test_fraction=0.5, valid_fraction=0)
    pf.tl.fit_flow(
        adata,
        model_kwargs={"width": 8, "n_blocks": 1},
        max_steps=2,
        plan_kwargs={"calibrate": False},
        progress_bar=False,
    )
    return adata


def cells_with_dynamics() -> AnnData:
    """A few cells with small dynamics."""
    adata = pf.datasets.hill_network(n_genes=5, n_trajectories=4, n_times=10)
    pf.pp.setup_dynamics(adata, time_key="time", trajectory_key="trajectory")
    pf.tl.fit_dynamics(adata, effort=0.01, progress_bar=False)
    return adata


def asked(load: Callable[[], Any], expected: str, digest: Callable[[Any], str]) -> str:
    """Return how a loader took damage."""
    try:
        found = load()
    except CLEAR as error:
        if "Expected" not in str(error):
            msg = f"a message without what was expected: {error!r}"
            raise Unclear(msg) from error
        return "refused"
    except Exception as error:
        msg = f"{error!r}"
        raise Unclear(msg) from error
    if digest(found) != expected:
        msg = "other content was read without a word"
        raise Unclear(msg)
    return "read as it was written"


def _whole(fit: Any) -> str:
    return checksum(fit.to_dict())


def _but_settings(fit: Any) -> str:
    return checksum(fit.to_dict(), without=MAY_CHANGE)


class StoreOfFlow:
    """The file of a flow in a directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        adata = cells_with_a_flow()
        write_flow(adata, read_flow(adata), store=folder)
        (self.path,) = folder.iterdir()
        self.whole, self.expected = self.path.read_bytes(), _whole(read_flow(adata))

    def __call__(self, rng: np.random.Generator) -> tuple[str, str]:
        done, changed = damaged_bytes(self.whole, rng)
        self.path.write_bytes(changed)
        return done, asked(lambda: FittedFlow.load(self.folder), self.expected, _whole)


def _places(path: Path, group: str) -> list[tuple[int, int]]:
    """Return where the numbers of a group are in a file: offsets and lengths.

    With its structure or its texts damaged, HDF5 itself may never come back.
    """
    places = []

    def look(name: str, item: Any) -> None:
        del name
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "biuf" and item.id.get_offset() is not None:
            places.append((item.id.get_offset(), item.id.get_storage_size()))

    with h5py.File(path) as file:
        file[group].visititems(look)
    return places


class Entry:
    """An entry of ``uns``: its parts, or the bytes of its numbers in an h5ad file."""

    def __init__(self, folder: Path, kind: str, *, of_file: bool) -> None:
        self.path, self.kind, self.of_file = folder / "cells.h5ad", kind, of_file
        folder.mkdir(parents=True, exist_ok=True)
        self.adata = cells_with_a_flow() if kind == "flow" else cells_with_dynamics()
        self.read = read_flow if kind == "flow" else read_dynamics
        self.expected = _but_settings(self.read(self.adata))
        self.entry = self.adata.uns[kind]
        self.adata.write_h5ad(self.path)
        self.whole, self.places = self.path.read_bytes(), _places(self.path, f"uns/{kind}")

    def __call__(self, rng: np.random.Generator) -> tuple[str, str]:
        if not self.of_file:
            done, self.adata.uns[self.kind] = damaged_entry(self.entry, rng)
            return done, asked(lambda: self.read(self.adata), self.expected, _but_settings)
        start, length = self.places[rng.integers(len(self.places))]
        part = slice(start, start + length)
        done, changed = damaged_bytes(self.whole[part], rng)
        changed = changed[:length].ljust(length, b"\0")  # lengths are kept in the structure of the file
        self.path.write_bytes(self.whole[:start] + changed + self.whole[part.stop :])
        try:
            with h5py.File(self.path) as file:
                self.adata.uns[self.kind] = read_elem(file[f"uns/{self.kind}"])
        except Exception:  # noqa: BLE001, what other packages say of a damaged file is theirs
            return done, OF_ANNDATA
        return done, asked(lambda: self.read(self.adata), self.expected, _but_settings)


class CheckpointOfDynamics:
    """The checkpoint of an unfinished fit of dynamics, of its first stage or a later one."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.states = folder, []
        one = self._trainer()
        checkpoint = Checkpoint(folder, one, fit=identity(one))

        def keep() -> None:
            checkpoint.save()
            self.states.append((checkpoint.path.read_bytes(), self._digest(one)))

        one.fit(after_part=keep)
        self.path = checkpoint.path

    @staticmethod
    def _trainer() -> DynamicsTrainer:
        time = np.linspace(0, 2, 10)
        values = [np.column_stack([k * np.exp(-time), 1 - np.exp(-k * time)]) for k in (1, 2, 3, 4)]
        free = np.zeros(2, dtype=bool)
        runs = [Trajectory(f"run {k}", time, each, np.ones(10), free) for k, each in enumerate(values)]
        steps = dict.fromkeys(
            ("matching_steps", "path_steps", "elimination_steps", "shooting_steps", "solving_steps"), 2
        )
        settings = DynamicsSettings(strengths=(0.01, 0.1), n_candidates=1, **steps)
        return DynamicsTrainer(runs, FieldConfig(2, (0, 1), hidden=(3,)), settings)

    @staticmethod
    def _digest(trainer: DynamicsTrainer) -> str:
        tensors, values = trainer.state()
        return checksum({"tensors": {name: value.numpy() for name, value in tensors.items()}, "values": values})

    def __call__(self, rng: np.random.Generator) -> tuple[str, str]:
        whole, expected = self.states[rng.integers(len(self.states))]
        done, changed = damaged_bytes(whole, rng)
        self.path.write_bytes(changed)
        one = self._trainer()
        return done, asked(
            lambda: Checkpoint(self.folder, one, fit=identity(one)), expected, lambda _: self._digest(one)
        )


LOADERS: dict[str, Callable[[Path], Callable[[np.random.Generator], tuple[str, str]]]] = {
    "flow in a store": StoreOfFlow,
    "flow in uns": lambda folder: Entry(folder, "flow", of_file=False),
    "flow in an h5ad file": lambda folder: Entry(folder, "flow", of_file=True),
    "dynamics in uns": lambda folder: Entry(folder, "dynamics", of_file=False),
    "dynamics in an h5ad file": lambda folder: Entry(folder, "dynamics", of_file=True),
    "checkpoint of dynamics": CheckpointOfDynamics,
}


def fuzz(name: str, folder: Path, *, seconds: float, seed: int) -> Counter[str]:
    """Damage what a loader reads for some time; in processes, so that a crash of one is seen and not suffered.

    Parameters
    ----------
    name
        Name of the loader.
    folder
        Where files go.
    seconds
        How long.
    seed
        Seed of the damage.

    Returns
    -------
    How often what happened; what should not have happened begins with "unclear".
    """
    total: Counter[str] = Counter()
    context, end = multiprocessing.get_context("fork"), time.monotonic() + seconds
    make = LOADERS[name](folder)
    while (left := end - time.monotonic()) > 0:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_some, args=(make, min(left, SECONDS_OF_A_PROCESS), seed, sender))
        process.start()
        sender.close()
        if receiver.poll(6 * SECONDS_OF_A_PROCESS):
            try:
                total.update(receiver.recv())
            except EOFError:
                process.join()
                total[f"unclear: a process ended with {process.exitcode} at seed {seed}"] += 1
        else:
            process.kill()
            total[f"unclear: nothing came of it at seed {seed}"] += 1
        process.join()
        seed += 1
    return total


def _some(load: Callable[[np.random.Generator], tuple[str, str]], seconds: float, seed: int, sender: Any) -> None:
    import resource
    import warnings

    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    rng, found, end = np.random.default_rng(seed), Counter(), time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            _, outcome = load(rng)
        except Unclear as error:
            outcome = f"unclear: {error}"
        found[outcome] += 1
    sender.send(found)

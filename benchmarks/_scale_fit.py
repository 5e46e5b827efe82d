"""What whole fits from files take, when the first step is reached, and what choices cost beside training."""

from __future__ import annotations

import sys
import time
import warnings
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
from _memory import resident
from lightning.pytorch.callbacks import Callback

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Laps:
    """CPU seconds of one thing after another, from now on."""

    def __init__(self) -> None:
        warnings.simplefilter("ignore", UserWarning)
        self.row: dict[str, Any] = {}
        self.since = time.process_time()

    def end(self, name: str) -> None:
        """Note the seconds since the last lap."""
        self.row[f"{name}, s"] = round(time.process_time() - self.since, 1)
        self.since = time.process_time()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Add the seconds of every call of a function to those of a name."""

        def call(*arguments: Any, **options: Any) -> Any:
            start = time.process_time()
            found = function(*arguments, **options)
            self.row[f"{name}, s"] = round(self.row.get(f"{name}, s", 0) + time.process_time() - start, 1)
            return found

        return call


class Enough(Exception):
    """The first step is done."""


class _FirstStep(Callback):
    def __init__(self) -> None:
        self.seconds = self.prior_mb = float("nan")

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *others: Any) -> None:
        self.seconds = time.process_time()
        self.prior_mb = sum(array.nbytes for array in pl_module.flow.prior.to_arrays().values()) / 1e6
        raise Enough


def register(path: Path, laps: Laps) -> Any:
    """Open a screen of :mod:`_scale_files`, register and split it."""
    import anndata

    import perturbflow as pf

    _ = pf.models.fit  # whose import is not to be measured
    laps.since = time.process_time()
    adata = anndata.read_h5ad(path, backed="r")
    pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    laps.end("register")
    pf.pp.split_perturbations(adata, task="unseen_perturbation")
    laps.end("split")
    return adata


def whole_fit(path: Path, max_steps: int) -> dict[str, Any]:
    """Register, split and fit a screen in a file."""
    import perturbflow as pf
    from perturbflow.flow import AdditiveHurdlePrior, Calibration

    laps, _fit = Laps(), sys.modules[pf.models.fit.__module__]
    adata = register(path, laps)
    parts = [
        (AdditiveHurdlePrior, "fit", "priors"),
        (Calibration, "fit", "calibration"),
        (_fit, "sums_of_parts", "sums"),
        (_fit, "train_flow", "training"),
        (_fit, "_choose", "choices"),
    ]
    patches = [patch.object(where, name, laps.timed(title, getattr(where, name))) for where, name, title in parts]
    for each in patches:
        each.start()
    pf.tl.fit_flow(adata, max_steps=max_steps, progress_bar=False)
    for each in patches:
        each.stop()
    laps.end("whole fit")
    prior = adata.uns["flow"]["prior"]
    sizes = {"peak, GB": resident() / 1e9, "prior, MB": sum(np.asarray(array).nbytes for array in prior.values()) / 1e6}
    return _shape(adata) | laps.row | {name: round(size, 2) for name, size in sizes.items()}


def first_step(path: Path) -> dict[str, Any]:
    """Register, split and fit a screen in a file until its first step is done."""
    import perturbflow as pf

    laps, step = Laps(), _FirstStep()
    start = time.process_time()
    adata = register(path, laps)
    try:
        pf.tl.fit_flow(adata, trainer_kwargs={"callbacks": [step]}, progress_bar=False)
    except Enough:
        pass
    row = {"first step, s": step.seconds - start, "peak, GB": resident() / 1e9, "prior, MB": step.prior_mb}
    return _shape(adata) | laps.row | {name: round(value, 2) for name, value in row.items()}


def choices(n_cells: int, n_genes: int, max_steps: int | None) -> dict[str, Any]:
    """Fit cells in memory with the default settings."""
    import perturbflow as pf
    from perturbflow.train import HeldOutConditions

    laps, _fit = Laps(), sys.modules[pf.models.fit.__module__]
    adata = pf.datasets.simulated_perturb_seq(
        n_cells=n_cells, n_genes=n_genes, n_perturbations=30, n_combinations=30, control_fraction=0.1
    )
    pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    pf.pp.split_perturbations(adata, task="combination", valid_fraction=0.4)
    with (
        patch.object(_fit, "train_flow", laps.timed("training", _fit.train_flow)),
        patch.object(_fit, "_choose", laps.timed("choices", _fit._choose)),
        patch.object(HeldOutConditions, "energies", laps.timed("validations", HeldOutConditions.energies)),
    ):
        asked: dict[str, Any] = {} if max_steps is None else {"max_steps": max_steps}
        pf.tl.fit_flow(adata, **asked, plan_kwargs={"calibrate": False}, progress_bar=False)
    share = laps.row["choices, s"] / max(laps.row["training, s"], 1e-9)
    config = adata.uns["flow"]["config"]
    steps = {"steps": int(np.max(adata.uns["flow"]["history"]["step"])), "choices / training": round(share, 2)}
    return (
        _shape(adata)
        | laps.row
        | steps
        | {"entry_time": config["entry_time"], "correction_scale": config["correction_scale"]}
    )


def _shape(adata: Any) -> dict[str, Any]:
    n_perturbations = adata.obs["perturbation"].nunique() - 1
    return {"cells": adata.n_obs, "genes": adata.n_vars, "perturbations": n_perturbations}

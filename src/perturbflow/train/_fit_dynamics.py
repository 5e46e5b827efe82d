"""Fitting sparse dynamics to registered cells."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse

from perturbflow._checks import check_whole_number, listing
from perturbflow._progress import count, note, shows_progress, stage
from perturbflow._warnings import warn
from perturbflow.dynamics import DynamicsTrainer, Snapshot, fit_standing, snapshot_evidence
from perturbflow.predict._dynamics_store import INTERRUPTED, StoredDynamics, StoredStanding
from perturbflow.predict._torch_state import usual_torch
from perturbflow.store._file import check_folder
from perturbflow.train._callbacks import termination_interrupts
from perturbflow.train._checkpoint import Checkpoint, hash_of
from perturbflow.trajectories._fields import DYNAMICS_PRIOR_KEY, read_dynamics_fields, trajectories_of
from perturbflow.trajectories._snapshot_fields import read_snapshot_fields, snapshot_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from anndata import AnnData

    from perturbflow.dynamics import FieldConfig, FittedDynamics, Trajectory
    from perturbflow.train._dynamics_options import DynamicsOptions

logger = logging.getLogger(__name__)

_STEPS_BETWEEN_LOOKS = 50


@shows_progress("fit dynamics")
@usual_torch()
def fit_dynamics(
    adata: AnnData,
    options: DynamicsOptions,
    *,
    checkpoint: str | Path | None = None,
    progress_bar: bool = True,
) -> StoredDynamics:
    """Fit sparse dynamics to registered cells; see :func:`perturbflow.tl.fit_dynamics`.

    Parameters
    ----------
    adata
        Cells registered with :func:`perturbflow.pp.setup_dynamics`.
    options
        What was chosen.
    checkpoint
        Directory to continue from, and to save to after every strength of sparsity, removal of inputs and stage.
    progress_bar
        Whether to show the progress.

    Returns
    -------
    The fitted dynamics.

    Raises
    ------
    KeyError
        If the fields are not registered.
    TypeError, ValueError
        If no gene changes along time, or the checkpoint belongs to another fit.
    OSError
        If nothing can be written to ``checkpoint``.
    KeyboardInterrupt
        If the fit is interrupted before anything was learned.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.hill_network(n_genes=5, n_trajectories=6, n_times=20)
    >>> pf.pp.setup_dynamics(adata, time_key="time", trajectory_key="trajectory")
    >>> fitted = pf.models.fit_dynamics(adata, pf.models.DynamicsOptions(effort=0.02), progress_bar=False)
    >>> fitted.model.support().shape, fitted.regulators  # which targets depend on which regulators
    ((5, 5), ['gene0', 'gene1', 'gene2', 'gene3', 'gene4'])
    """
    stage("trajectories")
    if checkpoint is not None:
        check_folder(checkpoint, name="checkpoint")
    fields = read_dynamics_fields(adata)
    genes = list(map(str, adata.var_names))
    trajectories = [t.binned(options.n_bins) for t in trajectories_of(adata, fields)]
    config = options.config(trajectories, [genes.index(name) for name in fields.regulators])
    _warn_at_rest(config, genes)
    _warn_same(trajectories, config, genes)
    _warn_apart(trajectories)
    factors = None
    if fields.has_prior:
        factors = prior_factors(adata.varp[DYNAMICS_PRIOR_KEY], config, weight=options.prior_weight)
    settings = options.settings()
    trainer = DynamicsTrainer(trajectories, config, settings, factors=factors)
    saved = None if checkpoint is None else Checkpoint(checkpoint, trainer, fit=identity(trainer))
    after_part = _follow(trainer, None if saved is None else saved.save)
    with termination_interrupts():
        model = trainer.fit(after_part=after_part)
    _warn_diverged(trainer, genes)
    _warn_unpredictive(model)
    if trainer.interrupted:
        logger.warning("Interrupted: the dynamics are those of the last completed step.")
    elif saved is not None:
        saved.remove()
    if not model.support().any():
        warn(
            "No gene depends on any regulator in the fitted dynamics: no input was worth its penalty. "
            "`pf.pl.sparsity_path` shows how held-out errors change with the number of edges. Fit longer (`effort`), set "
            "a lower `strength`, or observe more times, trajectories or perturbations."
        )
    logger.info(
        "Fitted dynamics: %d inputs of genes are kept, at strength %.3g of sparsity and threshold %.3g of evidence.",
        int(model.support().sum()),
        model.strength,
        model.threshold or 0.0,
    )
    of_fit = ("sparsity", "eliminate", "n_candidates", "displacement", "window")
    made = {name: getattr(settings, name) for name in of_fit} | {INTERRUPTED: trainer.interrupted}
    made |= {"n_bins": options.n_bins, "seed": options.seed, "strengths": np.asarray(settings.strengths, dtype=float)}
    made |= {"prior_weight": float(options.prior_weight), "effort": float(options.effort)}
    return StoredDynamics(model=model, genes=genes, fields=fields, settings=made)


@shows_progress("fit dynamics")
def fit_snapshot(adata: AnnData, *, seed: int = 0, progress_bar: bool = True) -> StoredStanding:
    """Fit dynamics to registered cells without a time."""
    check_whole_number(seed, name="seed")
    stage("moments of the cells")
    fields = read_snapshot_fields(adata)
    cells = snapshot_of(adata, fields)
    genes = list(map(str, adata.var_names))
    _check_varies(cells, genes)
    stage("evidence for edges")
    found, few = snapshot_evidence(cells), list(cells.regulators)
    stage("dynamics")
    return StoredStanding(
        model=fit_standing(cells, seed=seed),
        evidence=found.evidence[few].astype(np.float32),
        sign=found.sign[few].astype(np.float32),
        genes=genes,
        perturbations=list(cells.names[1:]),
        fields=fields,
        seed=seed,
    )


def _check_varies(cells: Snapshot, genes: list[str]) -> None:
    """Raise unless a regulator and another gene vary; warn of genes that do not."""
    varies = np.diag(cells.within) > 0
    few = [k for k in cells.regulators if varies[k]]
    if not few or varies.sum() < 2:
        msg = (
            f"Expected at least one regulator and another gene whose levels differ between cells, found "
            f"{len(few)} such regulators and {int(varies.sum())} such genes. Check the layer and the regulators."
        )
        raise ValueError(msg)
    if not varies.all():
        names = [genes[k] for k in np.flatnonzero(~varies)]
        warn(f"{len(names)} genes have the same level in all cells and cannot be part of any edge: {listing(names)}.")


def identity(trainer: DynamicsTrainer) -> dict[str, Any]:
    """Return what tells a fit from others, for its checkpoints."""
    return {
        "config": trainer.config.to_dict(),
        "settings": asdict(trainer.settings),
        "trajectories": [[t.name, hash_of(t.time, t.values, t.weight, t.clamped)] for t in trainer.trajectories],
        "factors": None if trainer.factors is None else hash_of(trainer.factors.numpy()),
    }


def prior_factors(prior: sparse.spmatrix, config: FieldConfig, *, weight: float) -> torch.Tensor:
    """Return penalty factors (d, n_inputs) from a prior network: 1 / (1 + weight * |entry| / mean |entry|)."""
    known = np.abs(prior.toarray())
    if not config.self_regulation:  # edges that no field can have make no others weaker
        np.fill_diagonal(known, 0.0)
    known[:, list(config.at_rest)] = 0.0
    dense = known[list(config.regulators)].T
    if dense.any():
        dense = dense / dense[dense > 0].mean()
    factors = 1 / (1 + weight * dense)
    return torch.tensor(np.tile(factors, (1, config.order)), dtype=torch.float32)


def _warn_at_rest(config: FieldConfig, genes: Sequence[str]) -> None:
    """Say which genes are left out because they do not move."""
    if not config.at_rest:
        return
    names = [genes[k] for k in config.at_rest]
    msg = (
        f"{len(names)} of {len(genes)} genes do not change in any trajectory in which they are not perturbed, or not more than "
        f"noise does: {listing(names)}. They do not influence the fit, have no regulators, and stay at their level."
    )
    if acting := [genes[k] for k in config.at_rest if k in config.regulators]:
        msg += f" As their levels differ between trajectories, {listing(acting)} may still regulate others."
    warn(f"{msg} Remove these genes from `adata` to avoid this warning.")


def _warn_same(trajectories: Sequence[Trajectory], config: FieldConfig, genes: Sequence[str]) -> None:
    """Say which genes cannot be told from each other."""
    levels = np.concatenate([t.values for t in trajectories]).T
    same: dict[bytes, list[str]] = {}
    for gene in config.targets:
        same.setdefault(levels[gene].tobytes(), []).append(genes[gene])
    if groups := [names for names in same.values() if len(names) > 1]:
        warn(
            f"Some genes have the same levels everywhere: {listing(groups)}. Which of them regulates another gene cannot be "
            "determined, and each may seem to regulate the others. Keep one of them in `adata`."
        )


def _warn_apart(trajectories: Sequence[Trajectory]) -> None:
    """Warn of trajectories of which one ends before another begins."""
    first, last = min(trajectories, key=lambda one: one.time[-1]), max(trajectories, key=lambda one: one.time[0])
    if first.time[-1] >= last.time[0]:
        return
    warn(
        f"Trajectory {first.name!r} ends at {first.time[-1]:g}, before {last.name!r} begins at {last.time[0]:g}. "
        "No time is common to all trajectories. If their times are on different scales, use "
        "`pf.pp.bin_pseudotime`; if they are parts of the same time course, give them the same trajectory in `trajectory_key`."
    )


def _warn_unpredictive(model: FittedDynamics) -> None:
    """Warn of dynamics that do not predict what was held out."""
    path = zip(model.path.get("valid_error", []), model.path.get("chosen", []), strict=True)
    errors = [error for error, used in path if used]
    if errors and errors[0] >= 1:
        warn(
            f"Held-out data are predicted no better than by assuming no change: relative error {errors[0]:.2f}. "
            "Rely on neither the graph nor forecasts of these dynamics. Fit longer (`effort`), keep fewer genes that vary "
            "more, or observe more times or trajectories; `pf.pl.sparsity_path` shows the errors."
        )


def _warn_diverged(trainer: DynamicsTrainer, genes: Sequence[str]) -> None:
    """Say which genes ended a stage."""
    if not trainer.diverged:
        return
    stages = {stage: listing(genes[k] for k in places) for stage, places in trainer.diverged.items()}
    warn(
        f"The error became infinite or NaN in {' and '.join(f'{stage} by {names}' for stage, names in stages.items())}. "
        "Training ended there, and the best earlier weights are kept. Check the levels and times of these genes for "
        "unusually large values, or remove the genes from `adata`."
    )


def _follow(trainer: DynamicsTrainer, also: Callable[[], None] | None) -> Callable[[], None]:
    """Show every step of a fit; return what to call after a part of it, which begins the next stage."""
    settings = trainer.settings
    totals = {
        "sparsity path": trainer.n_steps() - settings.matching_steps // 2 - settings.shooting_steps,
        "matching": settings.matching_steps // 2,
        "elimination": settings.n_candidates + 1,
        "shooting": settings.shooting_steps,
        "whole trajectories": None,  # until it is no longer worthwhile
    }
    n_strengths = len(settings.strengths) if settings.strength is None else 1

    def begin() -> None:
        if trainer.n_done == len(totals):
            return
        name = list(totals)[trainer.n_done]
        unit, total = "round" if name == "elimination" else "step", totals[name]
        if trainer.n_done == 0 and len(trainer.path.strengths) == n_strengths:
            # With the path complete, the threshold of elimination is chosen on the same part of the data.
            name, unit, total = "choice of a threshold", "round", totals["elimination"]
        stage(name, unit=unit, total=total)

    def after_part() -> None:
        if trainer.unfinished.removals is not None:
            count()
        begin()
        if also is not None:
            also()

    def on_step(name: str, step: int, loss: float) -> None:
        count()
        if step % _STEPS_BETWEEN_LOOKS == 0:
            note(loss=f"{loss:.4f}")

    trainer.on_step = on_step
    begin()
    return after_part

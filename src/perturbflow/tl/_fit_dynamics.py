"""Fit sparse neural ordinary differential equations to the registered cells."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Literal

from perturbflow._checks import check_none
from perturbflow._progress import shows_progress, stage
from perturbflow.screen._modality import takes_modality
from perturbflow.store._keys import check_key_added
from perturbflow.tl._common import of_cells, written
from perturbflow.trajectories._snapshot_fields import is_snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from mudata import MuData

    from perturbflow.predict._dynamics_store import StoredDynamics, StoredStanding
    from perturbflow.train._dynamics_options import DynamicsModelKwargs, DynamicsOptions, DynamicsPlanKwargs


@takes_modality
@of_cells
@shows_progress("fit dynamics")
def fit_dynamics(
    adata: AnnData | MuData,
    *,
    field: Literal["per_target", "linear", "dense"] = "per_target",
    sparsity: Literal[
        "none", "l1", "cnode", "l0", "group_lasso", "lassonet", "pathreg", "pathreg_edge"
    ] = "group_lasso",
    strength: float | Literal["auto"] = "auto",
    order: Literal[1, 2] = 1,
    eliminate: bool = True,
    effort: float = 1.0,
    model_kwargs: DynamicsModelKwargs | None = None,
    plan_kwargs: DynamicsPlanKwargs | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress_bar: bool = True,
    key_added: str = "dynamics",
    modality: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    r"""Fit sparse dynamics: the rate of change of every gene as a function of the levels of its regulators.

    The model is :math:`\dot x_i = p_i(x) - \gamma_i x_i`, with a small network p for every gene, between 0 and a learned
    maximum, and a positive decay rate. It is fitted in stages. First, networks are fitted to smoothed curves by integral
    matching, without solving an equation, for increasing strengths of the penalty; held-out trajectories (or late times)
    determine the strength. Then inputs are removed one by one as long as the held-out error allows. Finally, with the
    support fixed, solutions of the equation are fitted to the observations, first short ones from many starting points,
    then whole trajectories. Interrupting the fit (Ctrl-C or SIGTERM) keeps what was learned so far; functions that use it
    warn that the fit was interrupted.

    Genes that do not change along any trajectory in which they are not perturbed, or not more than noise does, are excluded
    with a warning. They do not influence units, errors and choices, have no regulators, and stay at their level. If
    their levels differ between trajectories, they can still regulate other genes.

    Cells that were registered without a time are assumed to be at steady state in every condition. The dynamics are then
    linear, :math:`\dot x = W x - x + \delta`. Evidence for edges comes from the covariance of such dynamics (sparse
    Lyapunov equation) and from interventions, under which the mean rate of every gene that is not perturbed is zero; see
    :func:`perturbflow.dynamics.snapshot_evidence`. W and the shift :math:`\delta` shared by perturbed conditions are chosen
    to predict perturbations that are left out; see :func:`perturbflow.dynamics.fit_standing`. In this case ``seed`` is the
    only option below that may be set.

    Parameters
    ----------
    adata
        Cells registered with :func:`perturbflow.pp.setup_dynamics`.
    field
        "per_target": a network for every gene; "linear": a linear function for every gene; "dense": one network for all
        genes, as in the papers.
    sparsity
        The sparsity penalty: "none"; "l1" on weights; "cnode" on paths of weights; "l0" with hard-concrete gates;
        "group_lasso" on inputs; "lassonet" on inputs bounded by a linear skip connection; "pathreg" as released, with a
        gate per input unit; "pathreg_edge" with a gate per weight and expected paths. Formulas and sources are in the
        classes of ``perturbflow.dynamics.SPARSITIES``.
    strength
        Strength of the penalty, relative to a relative error; "auto" chooses among seven values from 0.002 to 0.2.
    order
        1: rates depend on levels. 2: accelerations depend on levels and rates.
    eliminate
        Whether inputs are removed one by one after the penalty has ranked them. Not used with a dense field, whose
        support is determined by the penalty alone.
    effort
        Factor for the numbers of steps of all stages.
    model_kwargs
        Options of the field, such as ``{"hidden": (20,), "decay": False}``; see
        :class:`perturbflow.models.DynamicsModelKwargs` for all keys.
    plan_kwargs
        Options of the fit, such as ``{"n_candidates": 12, "prior_weight": 0}``; see
        :class:`perturbflow.models.DynamicsPlanKwargs` for all keys.
    checkpoint
        Directory for checkpoints, written after every strength of the penalty, removal of inputs and stage. An
        interrupted fit continues from there, with the same result as an uninterrupted one. Checkpoints are removed when
        the fit is complete.

    Returns
    -------
    None, or the copy with the entry

    `adata.uns["dynamics" | key_added]` : dict
        Configuration, weights, units, genes, ``sparsity_path`` (strength, errors, edges), the final ``n_edges`` and
        ``history``, as plain arrays, values and tables. ``settings["interrupted"]`` is true for an interrupted fit.

    Raises
    ------
    KeyError
        If the fields are not registered.
    TypeError
        If a key of a dictionary of options is unknown, or a value has the wrong type.
    ValueError
        If an option is invalid, no gene changes over time, no regulator varies, a checkpoint belongs to another fit, or
        ``key_added`` exists and is not earlier dynamics.
    OSError
        If ``checkpoint`` is not writable, which is tested before the fit.

    Notes
    -----
    Sparse neural ODEs after C-NODE (arXiv:2106.12430) and PathReg (arXiv:2210.14672). Integral matching after Dattner
    and Klaassen (2015), *Electron. J. Stat.* 9, 1939. Run time is linear in the numbers of targets, regulators and
    bins, and does not grow with the number of cells.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.hill_network(n_genes=5, n_trajectories=6, n_times=20)
    >>> pf.pp.setup_dynamics(adata, time_key="time", trajectory_key="trajectory")
    >>> pf.tl.fit_dynamics(adata, effort=0.02, progress_bar=False)
    >>> sorted(adata.uns["dynamics"]["sparsity_path"])[:2]
    ['chosen', 'n_edges']
    """
    stage("loading torch")
    from perturbflow.train._dynamics_options import DynamicsOptions, check_dynamics_model, check_dynamics_plan
    from perturbflow.train._fit_dynamics import fit_dynamics as fit  # here, because it loads torch
    from perturbflow.train._fit_dynamics import fit_snapshot

    check_key_added(adata, key_added, "dynamics")
    options = DynamicsOptions(
        field=field,
        sparsity=sparsity,
        strength=strength,
        order=order,
        eliminate=eliminate,
        effort=effort,
        seed=seed,
        **check_dynamics_model(model_kwargs),
        **check_dynamics_plan(plan_kwargs),
    )
    if is_snapshot(adata):
        _check_usual(options, checkpoint=checkpoint)
        stored: StoredDynamics | StoredStanding = fit_snapshot(adata, seed=seed, progress_bar=progress_bar)
    else:
        stored = fit(adata, options, checkpoint=checkpoint, progress_bar=progress_bar)
    return written(adata, copy=copy, uns={key_added: stored.to_dict()})


def _check_usual(options: DynamicsOptions, *, checkpoint: object) -> None:
    """Raise if an option is set that counts for cells along time only."""
    changed = [
        part.name for part in fields(options) if part.name != "seed" and getattr(options, part.name) != part.default
    ]
    changed += [] if checkpoint is None else ["checkpoint"]
    hint = "Leave them out, or register a time with `pf.pp.setup_dynamics(adata, time_key=...)`."
    check_none(changed, "no option but `seed` for cells registered without a time", hint=hint)

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
    r"""Learn how fast every gene changes as a sparse function of the levels of its regulators.

    The model is :math:`\dot x_i = p_i(x) - \gamma_i x_i` with a small network p for every gene, between 0 and a learned
    maximum, and a positive rate of decay. It is fitted in stages: first to smoothed curves by integral matching, without
    solving an equation, along ascending strengths of sparsity of which held-out trajectories (or late times) choose one;
    then inputs are removed one by one as long as held-out error allows; then, with the support fixed, solutions of the
    equation are fitted to the observations, short ones from many starts first and whole trajectories last. Interrupting
    (Ctrl-C or SIGTERM) keeps what was learned, if anything was: whatever uses it then warns that the fit was interrupted.

    Genes that do not change along any trajectory that leaves them free, or little and no more than noise does, are left out
    with a warning: they have no say in units, errors and choices, nothing regulates them, and they stay at their level. If
    their levels differ between trajectories they may still regulate others.

    Cells that were registered without a time are taken to be at rest in every condition, and get linear dynamics
    :math:`\dot x = W x - x + \delta`. Evidence for edges comes from the covariance that such dynamics have, by the sparse
    Lyapunov equation, and from interventions, under which the mean rate of every gene that is not held is zero: see
    :func:`perturbflow.dynamics.snapshot_evidence`. W and the shift :math:`\delta` that perturbed conditions share are chosen
    to predict perturbations that are left out: see :func:`perturbflow.dynamics.fit_standing`. Of the options below only
    ``seed`` counts then; others are refused.

    Parameters
    ----------
    adata
        Cells registered with :func:`perturbflow.pp.setup_dynamics`.
    field
        "per_target": a network for every gene; "linear": a linear function for every gene; "dense": one network for all
        genes, as in the papers.
    sparsity
        What makes it sparse, a class in ``perturbflow.dynamics.SPARSITIES`` where formulas and sources are: "none";
        "l1", weights; "cnode", paths of weights; "l0", hard-concrete gates; "group_lasso", inputs; "lassonet", inputs
        bounded by a linear skip; "pathreg", as released, a gate an input unit; "pathreg_edge", a gate a weight and
        expected paths.
    strength
        Strength of sparsity, relative to a relative error; "auto" chooses among seven from 0.002 to 0.2.
    order
        1: rates depend on levels. 2: accelerations depend on levels and rates.
    eliminate
        Whether inputs are removed one by one after the penalty has ranked them. Not with a dense field, whose support
        is what the penalty leaves.
    effort
        Multiplies all numbers of steps.
    model_kwargs
        What the field is made of, such as ``{"hidden": (20,), "decay": False}``: the keys of
        :class:`perturbflow.models.DynamicsModelKwargs`.
    plan_kwargs
        How it is fitted, such as ``{"n_candidates": 12, "prior_weight": 0}``: the keys of
        :class:`perturbflow.models.DynamicsPlanKwargs`.
    checkpoint
        Directory to continue from, with the same result as without a break; written after every strength of sparsity,
        removal of inputs and stage, and removed when the fit is complete.

    Returns
    -------
    None, or the copy with the entry

    `adata.uns["dynamics" | key_added]` : dict
        Configuration, weights, units, genes, ``sparsity_path`` (strength, errors, edges), ``n_edges`` that are left in
        the end, ``history``: plain arrays, values and tables. ``settings["interrupted"]`` is whether the fit was cut short.

    Raises
    ------
    KeyError
        If the fields are not registered.
    TypeError
        If a key of a dictionary of options is unknown, or a value of the wrong type.
    ValueError
        If a setting is wrong, no gene changes along time, no regulator varies, a checkpoint belongs to another fit, or
        ``key_added`` names something else than earlier dynamics.
    OSError
        If nothing can be written to ``checkpoint``, which is tried before the fit.

    Notes
    -----
    Sparse neural ODEs after C-NODE (arXiv:2106.12430) and PathReg (arXiv:2210.14672). Integral matching after Dattner
    and Klaassen (2015), *Electron. J. Stat.* 9, 1939. Time is linear in the numbers of targets, regulators and bins; it
    does not grow with the number of cells.

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

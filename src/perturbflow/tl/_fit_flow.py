"""Fit a flow to the registered cells."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from anndata import AnnData

from perturbflow._progress import shows_progress, stage
from perturbflow.predict._fitted_flow import FittedFlow, write_flow
from perturbflow.predict._torch_state import is_first_process
from perturbflow.screen._fields import writable
from perturbflow.screen._modality import takes_modality
from perturbflow.store._file import check_folder
from perturbflow.store._keys import check_key_added
from perturbflow.tl._common import of_cells
from perturbflow.train._flow_options import FlowModelKwargs, FlowPlanKwargs

if TYPE_CHECKING:
    from mudata import MuData


@takes_modality
@of_cells
@shows_progress("fit flow")
def fit_flow(
    adata: AnnData | MuData,
    *,
    preset: Literal["default", "prior", "primeflow"] = "default",
    max_steps: int = 1500,
    model_kwargs: FlowModelKwargs | None = None,
    plan_kwargs: FlowPlanKwargs | None = None,
    trainer_kwargs: Mapping[str, Any] | None = None,
    init_from: str | Path | AnnData | MuData | FittedFlow | None = None,
    split_key: str = "split",
    seed: int = 0,
    store: str | Path | None = None,
    checkpoint: str | Path | None = None,
    progress_bar: bool = True,
    key_added: str = "flow",
    modality: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Fit PRiMeFlow: learn to generate the cells of every condition, including conditions that were not measured.

    An additive hurdle prior over perturbations and covariates is estimated in closed form. A velocity network, trained
    by Lightning with conditional flow matching, then learns what the prior does not explain. Training stops early on
    the validation conditions. These also determine how much of a control cell a prediction keeps and how strongly the
    network is applied (not at all, unless it improves these conditions). Finally the prior is estimated again from
    training and validation cells. Test cells are never used. Interrupting the fit (Ctrl-C, or the signal that ends a
    job) keeps the best weights so far. Cells may be in memory or in a file.

    Parameters
    ----------
    adata
        Cells with registered fields (:func:`perturbflow.pp.setup_perturbation`) and, for early stopping, a split
        (:func:`perturbflow.pp.split_perturbations`).
    preset
        Values of all options that are not set. "default": the prior with a network correction, starting from control
        cells. "prior": the prior alone, in seconds; the predictions are the same if the network does not help.
        "primeflow": the recipe of the paper, with a U-Net over the gene axis, noise as source, condition dropout 0.2,
        averaged weights and Dopri5.
    max_steps
        Number of optimiser steps.
    model_kwargs
        Options of the model, such as ``{"source": "noise", "guidance": 2.0}`` or ``{"network": "unet", "width": 8}``;
        see :class:`perturbflow.models.FlowModelKwargs` for all keys.
    plan_kwargs
        Options of the training, such as ``{"batch_size": 128, "learning_rate": 1e-4, "calibrate": False}``; see
        :class:`perturbflow.models.FlowPlanKwargs` for all keys.
    trainer_kwargs
        Options of Lightning's trainer, such as ``{"accelerator": "cpu"}``, ``{"devices": 2, "strategy": "ddp"}`` (with
        the same result as on one device), ``logger`` or ``callbacks``. A GPU is used if available. The logged metrics
        are ``train_loss`` and ``valid_energy``.
    init_from
        Earlier flow from which to initialise the network: a key of ``adata.uns``, another AnnData with ``uns["flow"]``
        (or a MuData with this ``modality``), the directory of a ``store``, or a
        :class:`perturbflow.models.FittedFlow`. Genes and conditions may differ and are matched by name; new genes start
        from known genes with similar statistics. The architecture and parametrisation are those of the earlier flow,
        the prior is estimated from the new cells.
    split_key
        Column of ``adata.obs`` with the split. Without this column all cells are training cells.
    seed
        Random seed. Two runs on the same machine give the same weights.
    store
        Directory for the fitted flow (safetensors and JSON), for large models; ``adata.uns`` then only contains its path.
    checkpoint
        Directory for checkpoints, written at every validation (or equally often without validation). An interrupted
        fit continues from the last checkpoint, with the same result as an uninterrupted one. Checkpoints are removed
        when the fit is complete.

    Returns
    -------
    None, or the copy with the entry

    `adata.uns["flow" | key_added]` : dict
        Configuration, weights, prior, genes, fields, history and ``guidance_curve`` (:func:`perturbflow.pl.guidance`)
        as plain arrays and values, with ``init`` for what was copied from an earlier flow; or the path of ``store``. If
        ``store`` can no longer be written after the fit, the flow is kept here, with a warning. If several processes
        share a fit, only the first writes files.

    Raises
    ------
    KeyError
        If the fields are not registered.
    TypeError
        If a key of a dictionary of options is unknown, or a value has the wrong type.
    ValueError
        If an option is invalid, cells of held-out conditions are among the training cells, a context has no training
        controls, the expression is not log1p-normalised, a checkpoint belongs to another fit, or ``key_added`` exists
        and is not an earlier flow.
    FloatingPointError
        If the loss is not finite before the first validation; later, the best weights are kept, with a warning.
    OSError
        If ``store`` or ``checkpoint`` is not writable, which is tested before the fit.

    Notes
    -----
    PRiMeFlow (arXiv 2604.13986) with the parametrisation and the prior of :class:`perturbflow.flow.ZeroInflated` and
    :class:`perturbflow.flow.AdditiveHurdlePrior`. Run time is linear in the number of steps, genes and width, and does
    not grow with the number of cells. Memory holds the cells and two distributions per training condition.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> pf.pp.split_perturbations(adata, task="combination", valid_fraction=0)
    >>> pf.tl.fit_flow(adata, max_steps=20, progress_bar=False)
    >>> adata.uns["flow"]["config"]["parametrisation"]
    'zero_inflated'
    """
    stage("loading torch")
    from perturbflow.train._fit import fit  # here, because it loads torch
    from perturbflow.train._flow_options import FlowOptions
    from perturbflow.train._transfer import inherited_options, resolve_init

    check_key_added(adata, key_added, "flow")
    if store is not None:
        check_folder(store, name="store")
    earlier = None if init_from is None else resolve_init(init_from, adata)
    options = FlowOptions.of(
        preset,
        model_kwargs=model_kwargs,
        plan_kwargs=plan_kwargs,
        max_steps=max_steps,
        seed=seed,
        inherited=None if earlier is None else inherited_options(earlier, adata.var_names),
    )
    fitted = fit(
        adata,
        options,
        init_from=earlier,
        split_key=split_key,
        checkpoint=checkpoint,
        trainer_kwargs=trainer_kwargs,
        progress_bar=progress_bar,
    )
    adata = writable(adata, copy=copy)
    write_flow(adata, fitted, key=key_added, store=store if is_first_process() else None)
    return adata if copy else None

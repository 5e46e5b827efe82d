"""Fitting a flow: prior, network, and the choices made on held-out conditions."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from anndata import AnnData
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray

from perturbflow._checks import check_whole_number
from perturbflow._progress import shows_progress, stage
from perturbflow.flow import (
    AdditiveHurdlePrior,
    Calibration,
    CellData,
    ConditionalFlow,
    FlowConfig,
    GroupSums,
    Responses,
    TrainingSettings,
)
from perturbflow.flow._cross_validation import parts_that_tell
from perturbflow.flow._data import Expression
from perturbflow.predict._fitted_flow import CONTROL_TOTALS, FittedFlow
from perturbflow.predict._torch_state import is_first_process, usual_torch
from perturbflow.screen._fields import check_expression, read_feature_table, read_fields, read_screen
from perturbflow.screen._scale import summary_of_totals
from perturbflow.screen._screen import Screen, sums_of_parts
from perturbflow.screen._splits import check_no_leakage
from perturbflow.store._file import check_folder
from perturbflow.train._callbacks import termination_interrupts
from perturbflow.train._checkpoint import Checkpoint, LightningState, hash_of
from perturbflow.train._flow_options import FlowOptions
from perturbflow.train._flow_plan import FlowData, FlowPlan, NonFiniteLossError
from perturbflow.train._train_flow import Trained, check_trainer_options, placed, run_lightning, train_flow
from perturbflow.train._transfer import transfer_weights
from perturbflow.train._validation import HeldOutConditions, learn_zeros, support_of

logger = logging.getLogger(__name__)

_N_PARTS = 4  # of the cells of every condition, each of which is left out once, or until that tells enough
_MOST_CONTROLS = 20_000  # whose totals are summarised


@shows_progress("fit flow")
@usual_torch()
def fit(
    adata: AnnData,
    options: FlowOptions,
    *,
    max_epochs: int | None = None,
    init_from: FittedFlow | None = None,
    split_key: str = "split",
    checkpoint: str | Path | None = None,
    trainer_kwargs: Mapping[str, Any] | None = None,
    run: Callable[..., Any] = run_lightning,
    datamodule: LightningDataModule | None = None,
    plan_class: type[FlowPlan] = FlowPlan,
    data_class: type[FlowData] = FlowData,
    progress_bar: bool = True,
) -> FittedFlow:
    """Fit a flow to the registered cells.

    The prior is estimated on the training cells; the network is trained on them and stopped early on the validation
    conditions; there it is also chosen how late the path is entered and how much of the network's correction is applied. Then the
    prior, and what cells share in their responses, whose estimation involves no choice, are estimated anew on training
    and validation cells together.

    Parameters
    ----------
    adata
        Cells with registered fields.
    options
        What was chosen.
    max_epochs
        Passes over the training cells, which are then the number of steps.
    init_from
        A fitted flow whose network this one starts from.
    split_key
        Column of ``obs`` with the split; without it all cells are training cells and nothing is chosen.
    checkpoint
        Directory to continue from and to save to at every validation; removed when the fit is complete.
    trainer_kwargs
        Options of :class:`lightning.pytorch.Trainer`, such as ``accelerator``, which takes a GPU by default where there is
        one, ``devices``, ``strategy``, ``logger`` or ``callbacks``.
    run
        Trains a plan on data with such options; the model class of scvi-tools gives its own.
    datamodule
        Batches to train on, each a :class:`perturbflow.train._flow_plan.Batch` whose groups are numbered as by
        :meth:`perturbflow.flow.CellData.groups`; by default they are drawn from the training cells.
    plan_class, data_class
        How the network is trained, and on which batches; subclasses of the defaults.
    progress_bar
        Whether to show the progress.

    Returns
    -------
    The fitted flow, on the CPU.

    Raises
    ------
    KeyError
        If the fields are not registered.
    ValueError
        If there are no training cells, held-out conditions have leaked into training, or expression is not
        log1p-normalised.
    OSError
        If nothing can be written to ``checkpoint``.
    FloatingPointError
        If the loss is not finite before anything was validated.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> options = pf.models.FlowOptions.of(model_kwargs={"width": 32}, plan_kwargs={"calibrate": False}, max_steps=20)
    >>> fitted = pf.models.fit(adata, options, progress_bar=False)
    >>> len(fitted.genes), fitted.fitted_splits, fitted.config["width"]
    (50, ('train',), 32)
    """
    stage("cells")
    settings, guidance = options.training, options.guidance
    if max_epochs is not None:
        check_whole_number(max_epochs, name="max_epochs", least=1)
    target, trainer_options = placed(check_trainer_options(trainer_kwargs, is_lightning=run is run_lightning))
    if checkpoint is not None:
        check_folder(checkpoint, name="checkpoint")
    fields = read_fields(adata)
    check_expression(adata, fields)
    if split_key in adata.obs:
        split = check_no_leakage(adata, split_key, fields=fields)
    else:
        logger.warning(
            "`adata.obs[%r]` not found: all cells are training cells, without early stopping and without choices on "
            "held-out conditions. Run `pf.pp.split_perturbations(adata, task=...)` first to have both.",
            split_key,
        )
        split = np.full(adata.n_obs, "train")
    if not (split == "train").any():
        msg = f"Expected training cells, found no 'train' in `adata.obs[{split_key!r}]`. Split the cells again."
        raise ValueError(msg)
    known = read_screen(adata, fields=fields, rows=split != "test")
    is_training = split[split != "test"] == "train"
    screen = known.part(is_training)
    if max_epochs is not None:
        settings = replace(settings, max_steps=math.ceil(max_epochs * len(screen) / settings.batch_size))
    config = FlowConfig(
        n_genes=adata.n_vars,
        n_components=len(fields.vocabulary.components),
        n_categories=tuple(len(categories) for _, categories in fields.vocabulary.covariates),
        guidance=1.0 if guidance == "auto" else float(guidance),
        **options.model,
    )
    features = read_feature_table(adata, vocabulary=fields.vocabulary)
    stage("prior")
    n_cells = screen.grouping().n_cells[~screen.grouping().is_control]
    n_apart = parts_that_tell(n_cells, screen.n_genes, _N_PARTS) if options.calibrate else 0
    parts = sums_of_parts(screen, _N_PARTS, seed=settings.seed, apart=n_apart)
    sums = GroupSums.union(parts)
    training = _in_memory(screen)
    prior = AdditiveHurdlePrior.fit(sums, features=features)
    responses = Responses.fit(prior, training, seed=settings.seed)
    flow = ConditionalFlow(config, prior, responses=responses, seed=settings.seed)
    has_zeros = flow.parametrisation.has_zeros
    flow.support = support_of(config, (block for _, block in screen.x.chunks()), has_zeros=has_zeros)
    init: dict[str, Any] = {}
    if init_from is not None:
        init = transfer_weights(init_from, flow, list(map(str, adata.var_names)), fields.vocabulary)
        logger.info(
            "Started from a fitted flow: %d of %d genes shared (%d new, %d dropped), %d of %d perturbation components and "
            "%d of %d covariate categories known.",
            *(init["n_shared_genes"], adata.n_vars, init["n_new_genes"], init["n_dropped_genes"]),
            *(len(init["known_components"]), len(fields.vocabulary.components)),
            *(len(init["known_categories"]), len(init["known_categories"]) + len(init["new_categories"])),
        )
    flow.to(target)
    totals = summary_of_totals(_some_controls(screen, seed=settings.seed), fields.natural_per_unit)

    held_out, trained = None, None
    trains = config.entry < 1  # else no network is ever asked
    validation = known.part(~is_training)
    if trains and len(validation):
        held_out = HeldOutConditions(training, _in_memory(validation), seed=settings.seed)
        held_out = held_out if len(held_out) else None
    identity = _identity(flow, settings, screen, sums, init)
    del sums
    saved = Checkpoint(checkpoint, LightningState(), fit=identity) if checkpoint is not None and trains else None
    try:
        if trains:
            trained = train_flow(
                flow,
                training,
                settings,
                validate=None if held_out is None else held_out.score_of_whole_path,
                checkpoint=saved,
                run=run,
                plan_class=plan_class,
                data_class=data_class,
                datamodule=datamodule,
                trainer_options=trainer_options,
                progress_bar=progress_bar,
            )
    except NonFiniteLossError as error:
        raise error.named(list(map(str, adata.var_names)), _names_of(screen)) from None
    interrupted = trained is not None and _tell(trained, [str(gene) for gene in adata.var_names], screen)
    flow.to(target)
    fitted_splits: tuple[str, ...] = ("train",)
    curve: dict[str, NDArray[np.float64]] = {}
    calibration = Calibration.uncalibrated()
    try:
        with termination_interrupts():
            if held_out is not None:
                stage("choices")
                curve = _choose(flow, held_out, guidance)
            if len(validation) and (held_out is not None or not trains):
                stage("prior of all cells")
                others = sums_of_parts(validation, _N_PARTS, seed=settings.seed, apart=n_apart)
                for part, more in zip(parts, others, strict=True):
                    part.include(more)
                del others, more
                flow.prior = AdditiveHurdlePrior.fit(GroupSums.union(parts), features=features)
                flow.responses = Responses.fit(flow.prior, _in_memory(known), seed=settings.seed)
                flow.support = support_of(config, (block for _, block in known.x.chunks()), has_zeros=has_zeros)
                fitted_splits = ("train", "valid")
            stage("calibration")
            learn_zeros(flow, training, seed=settings.seed)
            if options.calibrate:
                calibration = Calibration.fit(parts, features=features, seed=settings.seed)
    except KeyboardInterrupt:
        interrupted = True
        logger.warning(
            "Interrupted after training: the trained flow is kept, with what was chosen on held-out conditions so far, "
            "and without calibration."
        )
    if saved is not None and not interrupted and is_first_process():
        saved.remove()
    logger.info("Fitted a flow: %s.", _chosen(flow, trained, 0 if held_out is None else len(held_out)))
    return FittedFlow(
        flow=flow.cpu(),
        genes=tuple(map(str, adata.var_names)),
        fields=fields,
        history={} if trained is None else trained.history,
        fitted_splits=fitted_splits,
        settings={name: value for name, value in asdict(settings).items() if value is not None}
        | {"split_key": split_key, "interrupted": interrupted, CONTROL_TOTALS: totals},
        guidance_curve=curve,
        calibration=calibration,
        init=init,
    )


def _chosen(flow: ConditionalFlow, trained: Trained | None, n_conditions: int) -> str:
    """Describe in words how a flow was fitted, and what was chosen on held-out conditions."""
    config = flow.config
    steps = "without training" if trained is None else f"{trained.steps} steps of training"
    choices = f"entry time {config.entry:g}, correction scale {config.correction_scale:g}, guidance {config.guidance:g}"
    where = (
        f"chosen on {n_conditions} validation conditions"
        if n_conditions
        else "none of them chosen on validation conditions"
    )
    return f"{steps}; {choices}, {where}"


def _in_memory(screen: Screen) -> CellData | Screen:
    """Return the cells themselves where they are in memory, and otherwise what reads them."""
    return screen.subset() if screen.x.is_in_memory else screen


def _some_controls(screen: Screen, *, seed: int) -> Expression:
    """Expression of control cells, of some of them where there are very many."""
    rows = np.flatnonzero(screen.is_control)
    if len(rows) > _MOST_CONTROLS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, _MOST_CONTROLS, replace=False))
    return screen.x[rows]


def _names_of(screen: Screen) -> Callable[[int], str]:
    """Label of a training group by its number."""
    doses = screen.grouping().doses
    return lambda number: screen.fields.vocabulary.label(doses[[number]].toarray()[0])


def _identity(
    flow: ConditionalFlow, settings: TrainingSettings, screen: Screen, sums: GroupSums, init: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what tells a fit from others, for its checkpoints."""
    doses = screen.distinct
    return {
        "config": flow.config.to_dict(),
        "settings": asdict(settings),
        "n_cells": len(screen),
        "sum": float(sums.total.sum()),
        "init": init,
        "conditions": hash_of(doses.indptr, doses.indices, doses.data, screen.codes, screen.covariates),
    }


def _tell(trained: Trained, genes: list[str], screen: Screen) -> bool:
    """Say why training was cut short, if it was; whether it was."""
    if trained.failure is not None:
        logger.warning("%s The best weights so far are kept.", trained.failure.named(genes, _names_of(screen)))
    elif trained.interrupted:
        if not trained.steps:
            raise KeyboardInterrupt
        # The checkpoint stays that of the last validation: an interruption may have left a step half done.
        logger.warning("Interrupted at step %d: the best weights so far are kept.", trained.steps)
    return trained.interrupted


def _choose(
    flow: ConditionalFlow, held_out: HeldOutConditions, guidance: float | Literal["auto"]
) -> dict[str, NDArray[np.float64]]:
    """Choose settings of prediction on held-out conditions, and configure the flow with them; the guidance curve."""
    chosen = held_out.choose(flow)
    flow.configure(**chosen)
    curve: dict[str, NDArray[np.float64]] = {}
    if guidance == "auto":
        chosen["guidance"], curve = held_out.guidance_curve(flow)
        flow.configure(guidance=chosen["guidance"])
    return curve

"""Fitting a flow: prior, network, and the choices made on held-out conditions."""

from __future__ import annotations

import logging
import math
from dataclasses import asdict
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from perturbflow._checks import check_between, check_type, check_whole_number
from perturbflow.flow import (
    AdditiveHurdlePrior,
    Calibration,
    CellData,
    ConditionalFlow,
    FlowConfig,
    FlowTrainer,
    TrainingSettings,
)
from perturbflow.predict._fitted_flow import CONTROL_TOTALS, FittedFlow
from perturbflow.predict._torch_state import usual_torch
from perturbflow.screen._feature_table import read_feature_table
from perturbflow.screen._fields import check_expression, read_cells, read_fields
from perturbflow.screen._scale import summary_of_totals
from perturbflow.screen._splits import check_no_leakage
from perturbflow.store._outputs import check_folder
from perturbflow.train._checkpoint import Checkpoint, hash_of
from perturbflow.train._progress import progress_bar as bar
from perturbflow.train._transfer import transfer_weights
from perturbflow.train._validation import HeldOutConditions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)


@usual_torch()
def fit(
    adata: AnnData,
    *,
    options: Mapping[str, Any],
    settings: TrainingSettings,
    guidance: float | Literal["auto"] = "auto",
    calibrate: bool = True,
    init_from: FittedFlow | None = None,
    split_key: str = "split",
    device: str = "auto",
    checkpoint: str | Path | None = None,
    progress_bar: bool = True,
) -> FittedFlow:
    """Fit a flow to the registered cells.

    The prior is estimated on the training cells; the network is trained on them and stopped early on the validation
    conditions; there it is also chosen how late the path is entered and how far the network is trusted. Then the
    prior, whose estimation involves no choice, is estimated anew on training and validation cells together.

    Parameters
    ----------
    adata
        Cells with registered fields.
    options
        Settings of :class:`FlowConfig`, without its numbers of genes, components and categories.
    settings
        How to train.
    guidance
        Weight of classifier-free guidance, or "auto" to choose it on the validation conditions.
    calibrate
        Whether to cross-validate the prior, so that stated uncertainties are calibrated.
    init_from
        A fitted flow whose network this one starts from.
    split_key
        Column of ``obs`` with the split; without it all cells are training cells and nothing is chosen.
    device
        Torch device; ``"auto"`` takes a GPU where there is one.
    checkpoint
        Directory to continue from and to save to at every validation; removed when the fit is complete.
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
        If there are no training cells, an option or setting is out of its range, held-out conditions have leaked into
        training, or expression is not log1p-normalised.
    OSError
        If nothing can be written to ``checkpoint``.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> settings = pf.flow.TrainingSettings(max_steps=20)
    >>> fitted = pf.models.fit(adata, options={"width": 32}, settings=settings, calibrate=False, progress_bar=False)
    >>> len(fitted.genes), fitted.fitted_splits, fitted.config["width"]
    (50, ('train',), 32)
    """
    _check_settings(settings, options, guidance)
    if checkpoint is not None:
        check_folder(checkpoint, name="checkpoint")
    fields = read_fields(adata)
    check_expression(adata, fields)
    if split_key in adata.obs:
        split = check_no_leakage(adata, split_key)
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
    training = read_cells(adata, rows=split == "train")
    target = _device(device)
    config = FlowConfig(
        n_genes=adata.n_vars,
        n_components=len(fields.vocabulary.components),
        n_categories=tuple(len(categories) for _, categories in fields.vocabulary.covariates),
        guidance=1.0 if guidance == "auto" else float(guidance),
        **options,
    )
    features = read_feature_table(adata, vocabulary=fields.vocabulary)
    flow = ConditionalFlow(config, AdditiveHurdlePrior.fit(training, features=features), seed=settings.seed)
    init = {}
    if init_from is not None:
        report = transfer_weights(init_from, flow, list(map(str, adata.var_names)), fields.vocabulary)
        logger.info("%s", report)
        init = report.to_dict()
    flow.to(target)
    controls = training.subset(np.flatnonzero(training.perturbations.getnnz(axis=1) == 0))
    totals = summary_of_totals(controls.x, fields.natural_per_unit)

    held_out = None
    if (split == "valid").any():
        held_out = HeldOutConditions(training, read_cells(adata, rows=split == "valid"), seed=settings.seed)
        held_out = held_out if len(held_out) else None
    trainer = FlowTrainer(flow, training, settings)
    saved = None
    if checkpoint is not None:
        saved = Checkpoint(checkpoint, trainer, fit=_identity(trainer, training, init))
    history = _train(trainer, held_out, saved, progress_bar=progress_bar)

    fitted_splits: tuple[str, ...] = ("train",)
    curve: dict[str, NDArray[np.float64]] = {}
    if held_out is not None:
        chosen = held_out.choose(flow)
        flow.configure(**chosen)
        if guidance == "auto":
            chosen["guidance"], curve = held_out.guidance_curve(flow)
            flow.configure(guidance=chosen["guidance"])
        logger.info("Chosen on %d held-out conditions: %s.", len(held_out), chosen)
        training = read_cells(adata, rows=np.isin(split, ("train", "valid")))
        flow.prior = AdditiveHurdlePrior.fit(training, features=features)
        fitted_splits = ("train", "valid")
    calibration = Calibration.uncalibrated()
    if calibrate:
        calibration = Calibration.fit(training, features=features, seed=settings.seed)
    if saved is not None and not trainer.interrupted:
        saved.remove()
    return FittedFlow(
        flow=flow.cpu(),
        genes=tuple(map(str, adata.var_names)),
        fields=fields,
        history=history,
        fitted_splits=fitted_splits,
        settings={name: value for name, value in asdict(settings).items() if value is not None}
        | {"split_key": split_key, "interrupted": trainer.interrupted, CONTROL_TOTALS: totals},
        guidance_curve=curve,
        calibration=calibration,
        init=init,
    )


def _identity(trainer: FlowTrainer, cells: CellData, init: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tells a fit from others, for its checkpoints."""
    return {
        "config": trainer.flow.config.to_dict(),
        "settings": asdict(trainer.settings),
        "n_cells": len(cells),
        "sum": float(cells.x.sum(dtype="float64")),
        "init": init,
        "conditions": hash_of(cells.perturbations.toarray(), cells.covariates),
    }


def _train(
    trainer: FlowTrainer, held_out: HeldOutConditions | None, saved: Checkpoint | None, *, progress_bar: bool
) -> dict[str, Any]:
    # The whole path from noise is judged: entered late, it would hardly depend on the network.
    validate = None if held_out is None else lambda flow: float(held_out.energies(flow, start=0.0, trust=1.0).mean())
    total = trainer.settings.max_steps
    with bar("fit flow", unit="step", total=total, initial=trainer.step, show=progress_bar) as progress:

        def on_step(trainer: FlowTrainer) -> None:
            progress.update()
            if trainer.step % 10 == 0:
                valid = trainer.history["valid_energy"]
                progress.set_postfix(loss=f"{trainer.loss:.4f}", **({"held out": f"{valid[-1]:.3f}"} if valid else {}))

        history = trainer.run(
            validate=validate, on_step=on_step, on_validation=None if saved is None else lambda _: saved.save()
        )
    if trainer.interrupted:
        if not trainer.step:
            raise KeyboardInterrupt
        # The checkpoint stays that of the last validation: an interruption may have left a step half done.
        logger.warning("Interrupted at step %d: the best weights so far are kept.", trainer.step)
    return history


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for the device
        msg = f"Expected a torch device that is present, such as 'cpu' or 'cuda', found {name!r} ({error})."
        raise ValueError(msg) from error


def _check_settings(settings: TrainingSettings, options: Mapping[str, Any], guidance: object) -> None:
    """Raise unless numbers are of the right type and in their range."""
    for name in ("max_steps", "batch_size", "patience", "seed"):
        check_whole_number(getattr(settings, name), name=name, least=0 if name == "seed" else 1)
    for name in ("width", "n_blocks"):
        if options.get(name) is not None:
            check_whole_number(options[name], name=name, least=1)
    check_between(settings.weight_decay, 0, math.inf, name="weight_decay")
    if settings.max_minutes is not None:
        check_between(settings.max_minutes, 0, math.inf, name="max_minutes")
    if guidance != "auto":
        check_type(guidance, () if isinstance(guidance, bool) else Real, name="guidance", expected='"auto" or a number')

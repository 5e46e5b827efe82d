"""Predict perturbed cells."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from perturbflow._checks import check_type, check_whole_number
from perturbflow._progress import shows_progress, stage
from perturbflow.predict._controls import control_cells, recorded_dose
from perturbflow.predict._fitted_flow import read_flow
from perturbflow.predict._output_space import OutputSpace
from perturbflow.predict._predicted_cells import PredictedCells, check_path, predicted_batches, scattered, write_cells
from perturbflow.predict._predicted_uncertainty import uncertainty_tables, warn_of_new_contexts
from perturbflow.predict._prediction import (
    ConditionSampler,
    PredictedCondition,
    conditions_to_predict,
    warn_of_extrapolation,
    warn_of_scale,
)
from perturbflow.predict._torch_state import moved
from perturbflow.screen._fields import check_expression, check_writable
from perturbflow.screen._modality import takes_modality
from perturbflow.store._keys import check_key_added, check_name
from perturbflow.tl._common import of_flow, written

if TYPE_CHECKING:
    from mudata import MuData

logger = logging.getLogger(__name__)


@takes_modality
@of_flow
@shows_progress("predict")
def predict_perturbation(
    adata: AnnData | MuData,
    perturbations: str | Sequence[str],
    *,
    key: str = "flow",
    covariates: Mapping[str, str] | None = None,
    dose: float | str | Sequence[float] | Mapping[str, float] | None = None,
    guidance: float | None = None,
    n_cells: int | None = None,
    n_steps: int | None = None,
    output: Literal["log_normalised", "counts", "challenge"] = "log_normalised",
    target_total: float | None = None,
    key_added: str = "predicted",
    as_anndata: bool = False,
    path: str | Path | None = None,
    device: str | None = None,
    seed: int = 0,
    progress_bar: bool = True,
    modality: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Predict perturbed cells from control cells.

    Only control cells are needed. They may be new cells that were not part of the fit, with the flow copied into
    ``adata.uns``. Genes are aligned by name. With controls as the source of the flow, a predicted cell is the perturbed
    counterpart of its control cell; with noise as the source, it is a random sample for the context of that cell.

    Parameters
    ----------
    adata
        Control cells, with or without other cells. Without the perturbation column, all cells are used as controls.
    perturbations
        One or several labels, such as "KLF1" or "KLF1+SET", with components in any order.
    covariates
        Predict only in this context, for example ``{"cell_type": "B"}``. Covariates without a column in ``adata.obs``
        are set for all cells.
    dose
        Dose of the perturbations: a number, one number per component in the order of the label ("1+0.5", [1, 0.5]), or
        a dictionary by component ({"KLF1": 1}). By default the dose in training, see Notes. Doses between measured ones
        are of kind "new dose"; doses above the largest are replaced by the largest. A warning is given in both cases.
    guidance
        Weight of classifier-free guidance. 1 is the conditional flow itself; larger values amplify the differences
        between conditions. By default the weight chosen by the fit.
    n_cells
        With ``as_anndata`` or ``path``: number of cells per perturbation and context, from randomly drawn control
        cells. By default one per control cell.
    n_steps
        Number of solver steps. By default chosen by the flow.
    output
        Units of the predicted cells. "log_normalised": those of the fitted cells. "counts": integer counts with the
        depth of the control cell, rounded at random such that expectations are preserved. "challenge": the format of
        the Virtual Cell Challenge, see Notes.
    target_total
        With "counts", the total counts per cell over the genes of the flow; with "challenge", the total to which cells
        are scaled. By default the total of each control cell, or the median of all. These totals are inferred from
        expression values that are integer multiples of the value of a single count.
    as_anndata
        Return the predicted cells as a new AnnData and write nothing into ``adata``.
    path
        Write the AnnData that ``as_anndata`` would return to this new file, ending in ".h5ad" or ".zarr", with sparse
        expression. Cells are written while they are predicted, so that they need not fit in memory. The file appears
        when it is complete.
    seed
        Random seed. The cells of one perturbation do not depend on the other perturbations in the call.
    progress_bar
        Whether to show a progress bar over cells.

    Returns
    -------
    None, the copy with these entries, or with ``as_anndata`` the predicted cells

    All entries of an earlier prediction with the same key are replaced.

    `adata.obsm["predicted" | key_added]` : CSR, float32 (n_obs, n_vars)
        Predicted expression, log1p-normalised or counts, in the rows of control cells. Other rows, and genes outside the
        flow, are empty, which does not mean that zeros are predicted: rows with predicted cells are
        ``obsm["predicted"].getnnz(axis=1) > 0``. Several perturbations have one entry each, ``"predicted_KLF1+SET"``.
    `adata.uns["predicted" | key_added]` : dict
        ``perturbations``, their ``doses`` (if registered or given), the names of their entries in ``obsm``, ``params``,
        and ``uncertainty``: a table of perturbations and contexts with the ``kind`` of the condition ("seen", "new
        dose", "combination", "new context", "unseen"), the root mean squares over genes of the predicted effect and of
        its calibrated standard deviation (``rms_effect``, ``rms_sd``), ``feature_distance`` of perturbations without
        training cells to the nearest perturbation in training (typically 1 between those; NaN without features), and
        ``context_distance`` to the nearest context with perturbed training cells (relative to the median distance
        between such contexts).
    `adata.varm["predicted_sd" | key_added + "_sd"]` : DataFrame (n_vars, perturbations)
        Standard deviation of the error of the predicted mean of every gene (log1p-normalised); NaN for genes outside
        the flow.

    The new AnnData has the last two entries, the genes of the flow, and in ``obs`` the perturbation, its dose (if doses
    are registered), the covariates, ``source`` ("predicted") and ``source_cell`` (the control cell).

    Raises
    ------
    KeyError
        If there is no fitted flow, or a covariate is missing.
    ValueError
        If a perturbation is unknown, a dose is invalid or required, genes, control cells or categories of a
        covariate are missing, the expression is not log1p-normalised, counts cannot be inferred from the control cells,
        ``key_added`` exists and is not a prediction, the device is not available, or ``path`` cannot be created.
    OSError
        If the file cannot be written.

    Notes
    -----
    An unknown category of a covariate is a new context. Its control cells place it among the known contexts, without a
    new fit; a warning names the nearest one.

    Cells are predicted in batches. Memory holds one batch and, unless ``path`` is set, the output. Control cells may
    also be in a file (backed, lazy, or dask arrays); only those of the current batch are read. The control cells of a
    context without training controls form one batch.

    If doses are registered and ``dose`` is not given, a perturbation is predicted at the dose at which it was measured
    in the contexts of the prediction or, if it was not measured there, in any context. Unmeasured combinations are
    predicted at the doses of their components, and components without training cells at the dose of all others if
    these share a single one. If there are several such doses, an error lists them. Without registered doses, the dose
    is 1.

    With ``output="challenge"``, every cell is transformed back from log1p, scaled to ``target_total``, rounded to
    integer counts, scaled again and log1p-transformed, and the knocked-down gene is set to 0 (arXiv 2604.13986). This
    is the gene with the name of the component; if types are registered, only for repressing types such as "CRISPRi".
    The challenge provides the median total of its cells: pass it as ``target_total``.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> pf.tl.fit_flow(adata, max_steps=20, progress_bar=False)
    >>> label = adata.obs["perturbation"].cat.categories[0]
    >>> cells = pf.tl.predict_perturbation(adata, [label], n_cells=30, as_anndata=True)
    >>> cells.shape
    (30, 50)
    """
    is_several = isinstance(perturbations, Iterable) and not isinstance(perturbations, str)
    names: list[Any] = list(perturbations) if is_several else [perturbations]
    for name in names:
        check_type(name, str, name="perturbations", expected="a label, or several")
    check_name(key_added, "predicted")
    if not names:
        msg = "Expected at least one perturbation in `perturbations`, found none."
        raise ValueError(msg)
    if n_cells is not None:
        check_whole_number(n_cells, name="n_cells", least=1)
        if not as_anndata and path is None:
            msg = (
                "Expected `n_cells` together with `as_anndata=True` or `path`, found it alone: predictions in `obsm` "
                "belong to the control cells of `adata`, one each."
            )
            raise ValueError(msg)
    if path is not None and (as_anndata or copy):
        msg = (
            f"Expected predictions either in a file or in memory, found `path={str(path)!r}` together with "
            f"`{'as_anndata' if as_anndata else 'copy'}=True`. Leave out one of them."
        )
        raise ValueError(msg)
    file = None if path is None else check_path(path)
    if not as_anndata and file is None:
        check_writable(adata, copy=copy)
    stage("flow and control cells")
    flow = moved(read_flow(adata, key), device)
    check_expression(adata, flow.fields)
    controls = control_cells(adata, flow.fields, genes=flow.genes, covariates=covariates)
    sampler = ConditionSampler(flow, controls, guidance=guidance, n_steps=n_steps, seed=seed)
    unit = flow.fields.natural_per_unit
    space = OutputSpace.from_controls(output, controls.x, total=target_total, unit=unit)
    conditions = conditions_to_predict(flow, controls, names, dose, argument="perturbations")
    warn_of_scale(flow, controls)
    warn_of_extrapolation(flow, conditions)
    warn_of_new_contexts(flow, controls, conditions)
    params = {
        "key": key,
        "covariates": dict(covariates or {}),
        "seed": seed,
        **sampler.changes,
        **({} if dose is None else {"dose": recorded_dose(dose)}),
        **({} if output == "log_normalised" else {"output": output, "target_total": space.total}),
    }
    if as_anndata or file is not None:
        cells = PredictedCells.draw(sampler, space, conditions, n_cells)
        stage("cells", unit="cell", total=cells.n_cells)
        elements = cells.annotations(adata, params | {"n_cells": n_cells or 0}, key=key_added)
        if file is not None:
            write_cells(file, cells.blocks(), elements)
            return None
        x = np.empty((cells.n_cells, len(flow.genes)), dtype=np.float32)
        first = 0
        for block in cells.blocks():
            x[first : first + len(block)] = block
            first += len(block)
        return AnnData(x, **elements)

    labels = list(dict.fromkeys(condition.label for condition in conditions))
    keys = {label: key_added if len(labels) == 1 else f"{key_added}_{label}".replace("/", "|") for label in labels}
    beside = [*(("obsm", name) for name in keys.values()), ("varm", f"{key_added}_sd")]
    check_key_added(adata, key_added, "predicted", beside=beside)
    places = adata.var_names.get_indexer(list(flow.genes))
    if len(places) < adata.n_vars:
        logger.warning(
            "%d of %d genes are unknown to the flow: not predicted.", adata.n_vars - len(places), adata.n_vars
        )
    uncertainty, sds = uncertainty_tables(flow, controls, conditions)
    stage("cells", unit="cell", total=sum(len(condition.members) for condition in conditions))
    results = {
        keys[label]: _predicted(
            sampler, space, [one for one in conditions if one.label == label], places, (adata.n_obs, adata.n_vars)
        )
        for label in labels
    }
    sds = sds.reindex(adata.var_names)
    record = {
        "perturbations": labels,
        "obsm": [keys[label] for label in labels],
        "params": params,
        "uncertainty": uncertainty,
    }
    if flow.fields.dose_key is not None or dose is not None:
        doses = {condition.label: condition.dose_label for condition in conditions}
        record["doses"] = [doses[label] for label in labels]
    beside_it = {"obsm": results, "varm": {f"{key_added}_sd": sds}}
    return written(adata, copy=copy, replaces=(key_added, "predicted"), uns={key_added: record}, **beside_it)


def _predicted(
    sampler: ConditionSampler,
    space: OutputSpace,
    conditions: Sequence[PredictedCondition],
    places: NDArray[np.intp],
    shape: tuple[int, int],
) -> sparse.csr_matrix:
    """Cells of one perturbation in the rows of the control cells that they start from."""
    blocks, rows = [], []
    for condition in conditions:
        of_condition = sampler.controls.rows[condition.members]
        for batch, cells in predicted_batches(sampler, space, condition, condition.members):
            blocks.append(sparse.csr_matrix(cells))
            rows.append(of_condition[batch])
    return scattered(blocks, np.concatenate(rows), places, shape)

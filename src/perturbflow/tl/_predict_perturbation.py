"""Predict perturbed cells."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from perturbflow._checks import check_type, check_whole_number
from perturbflow.predict._controls import PREDICTED_SOURCE, control_cells, predicted_keys
from perturbflow.predict._doses import recorded_dose
from perturbflow.predict._flow_store import read_flow
from perturbflow.predict._output_space import OutputSpace, repressed_genes
from perturbflow.predict._predicted_uncertainty import uncertainty_tables
from perturbflow.predict._prediction import (
    ConditionSampler,
    conditions_to_predict,
    warn_of_extrapolation,
    warn_of_scale,
)
from perturbflow.screen._conditions import TYPE_MARK
from perturbflow.screen._fields import check_expression, writable
from perturbflow.screen._modality import takes_modality
from perturbflow.store._keys import check_key_added, check_name, remove_earlier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray

    from perturbflow.predict._controls import ControlCells
    from perturbflow.predict._fitted_flow import FittedFlow
    from perturbflow.predict._prediction import PredictedCondition

logger = logging.getLogger(__name__)


@takes_modality
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
    seed: int = 0,
    modality: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Predict the cells that perturbations would give, from control cells.

    Only control cells are needed; they may be new ones that the fit has not seen, with the flow copied into
    ``adata.uns``. Genes are aligned by name. With the control source a prediction is the perturbed counterpart of its
    control cell; with the noise source it is a sample for that cell's context and shares nothing else with it.

    Parameters
    ----------
    adata
        Control cells, with or without others. Cells without the perturbation column are all taken for controls.
    perturbations
        One label or several, such as "KLF1" or "KLF1+SET"; the order of components does not matter.
    key
        The fitted flow in ``adata.uns``.
    covariates
        Predict only in this context, for example ``{"cell_type": "B"}``. Covariates without a column in ``adata.obs``
        are set for all cells.
    dose
        Dose of the perturbations: a number; one a component in the order of the label ("1+0.5", [1, 0.5]); or one by
        component ({"KLF1": 1}). What is left out is the dose at which the perturbation was measured in training, see
        Notes. A dose between measured ones is a new one, of kind "new dose"; above the largest it counts as the
        largest. Both give a warning.
    guidance
        Weight of classifier-free guidance; 1 is the conditional flow itself, larger values exaggerate what sets the
        condition apart. By default the one chosen by the fit.
    n_cells
        With ``as_anndata``: number of cells for every perturbation and context, from control cells drawn at random
        (without replacement as far as they go). By default one for every control cell.
    n_steps
        Steps of the solver; chosen by the flow by default.
    output
        Units of the predicted cells. "log_normalised": those of the fitted cells. "counts": whole counts at the depth
        of each cell's control cell, rounded at random so that expectations are kept. "challenge": the recipe for the
        Virtual Cell Challenge, see Notes.
    target_total
        Total of the counts of a cell over the genes of the flow: with "counts" of every predicted cell, with
        "challenge" what cells are scaled to. By default it is told from the control cells, whose log1p-normalised
        values are whole multiples of that of a single count: their own total each, or the median of all.
    key_added
        Where predictions go in ``adata.obsm`` and their description in ``adata.uns``.
    as_anndata
        Return the predicted cells as a new AnnData; nothing is written into ``adata``.
    seed
        Seed of everything random. The cells of one perturbation do not depend on which others are asked for.
    modality
        Modality of a MuData that is meant; results are written into it.
    copy
        Return a copy of ``adata`` instead of writing into it.

    Returns
    -------
    None, the copy with these entries, or with ``as_anndata`` the predicted cells

    An earlier prediction under the key is replaced, with all that it has written.

    `adata.obsm["predicted" | key_added]` : array of float32 (n_obs, n_vars)
        Predicted expression, log1p-normalised or counts, in the rows of control cells, NaN in other rows and for genes
        that the flow does not know. For several perturbations one entry each, ``"predicted_KLF1+SET"``.
    `adata.uns["predicted" | key_added]` : dict
        ``perturbations``, their ``doses`` (if doses are registered or given), the names of their entries in ``obsm``,
        ``params``, and ``uncertainty``: a table with one row a perturbation and context, with the ``kind`` of the
        condition ("seen", "new dose", "combination", "new context", "unseen"), the root mean squares over genes of
        the predicted effect on the mean expression and of its calibrated standard deviation (``rms_effect``,
        ``rms_sd``), and ``feature_distance``, how far perturbations without training cells are from the nearest in
        training (1 is usual among those in training; NaN without features).
    `adata.varm["predicted_sd" | key_added + "_sd"]` : DataFrame (n_vars, perturbations)
        Standard deviation of the error of the predicted mean of every gene (log1p-normalised); NaN for genes that the
        flow does not know.

    The new AnnData has the same two entries, the flow's genes and in ``obs`` the perturbation, its dose (if doses are registered), the
    covariates, ``source`` ("predicted") and ``source_cell`` (the control cell it started from).

    Raises
    ------
    KeyError
        If there is no fitted flow, or a covariate is missing.
    ValueError
        If a perturbation is unknown (the nearest known ones are named), a dose is wrong or cannot be left out, genes
        are missing, there are no control cells, a covariate is unknown, the expression is not log1p-normalised, counts
        are wanted that the control cells do not tell, or ``key_added`` names something else.

    Notes
    -----
    Conditions are streamed in batches of cells: memory is that of one batch and of the output. Only the control cells
    of a context without training controls are one batch, whatever their number.

    Where doses are registered and ``dose`` is left out, a perturbation is predicted at the dose at which it was measured
    in the contexts of the prediction or, if it was not there, in any. A combination that was not measured has the doses
    at which its components were, alone if they were alone. A component without training cells has the dose of all others
    if it is the same for all. Where there are several such doses, an error lists them. Where doses are not registered
    they are 1.

    With ``output="challenge"`` the logarithm is undone, every cell is scaled to ``target_total``, rounded to whole
    counts, scaled again and taken the log1p of, and the gene that is knocked down is set to 0 (arXiv 2604.13986). That
    is the gene with the name of the component; where the fields name the type of a perturbation, only for types that
    repress, such as "CRISPRi". The challenge gives the median total of its cells: pass it as ``target_total``.

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
        if not as_anndata:
            msg = (
                "Expected `n_cells` together with `as_anndata=True`, found it alone: predictions in `obsm` belong to "
                "the control cells of `adata`, one each."
            )
            raise ValueError(msg)
    flow = read_flow(adata, key)
    check_expression(adata, flow.fields)
    controls = control_cells(adata, flow.fields, genes=flow.genes, covariates=covariates)
    sampler = ConditionSampler(flow, controls, guidance=guidance, n_steps=n_steps, seed=seed)
    unit = flow.fields.natural_per_unit
    space = OutputSpace.from_controls(output, controls.x, total=target_total, unit=unit)
    conditions = conditions_to_predict(flow, controls, names, dose)
    warn_of_scale(flow, controls)
    warn_of_extrapolation(flow, conditions)
    params = {
        "key": key,
        "covariates": dict(covariates or {}),
        "seed": seed,
        **sampler.changes,
        **({} if dose is None else {"dose": recorded_dose(dose)}),
        **({} if output == "log_normalised" else {"output": output, "target_total": space.total}),
    }
    if as_anndata:
        return _new_cells(
            adata, flow, controls, conditions, sampler, space, n_cells=n_cells, params=params, key_added=key_added
        )

    labels = list(dict.fromkeys(condition.label for condition in conditions))
    keys = predicted_keys(labels, key_added=key_added)
    beside = [*(("obsm", name) for name in keys.values()), ("varm", f"{key_added}_sd")]
    check_key_added(adata, key_added, "predicted", beside=beside)
    places = adata.var_names.get_indexer(list(flow.genes))
    if len(places) < adata.n_vars:
        logger.warning("%d of %d genes are unknown to the flow: NaN.", adata.n_vars - len(places), adata.n_vars)
    uncertainty, sds = uncertainty_tables(flow, controls, conditions)
    results = {}
    for label in labels:
        predicted = np.full((adata.n_obs, adata.n_vars), np.nan, dtype=np.float32)
        for condition in conditions:
            if condition.label == label:
                rows = controls.rows[condition.members]
                for batch, cells in _batches(sampler, space, condition, condition.members):
                    predicted[np.ix_(rows[batch], places)] = cells
        results[keys[label]] = predicted
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
    adata = writable(adata, copy=copy)
    remove_earlier(adata, key_added, "predicted")
    for name, predicted in results.items():
        adata.obsm[name] = predicted
    adata.varm[f"{key_added}_sd"] = sds
    adata.uns[key_added] = record
    return adata if copy else None


def _batches(
    sampler: ConditionSampler, space: OutputSpace, condition: PredictedCondition, members: NDArray[np.intp]
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Predict from control cells as :meth:`ConditionSampler.batches` does, in the units that are wanted."""
    flow, rng = sampler.flow, sampler.rng(condition, "rounding")
    vocabulary = flow.vocabulary
    components = [vocabulary.components[place] for place in np.flatnonzero(condition.perturbation)]
    targets = repressed_genes(components, flow.genes, type_mark=TYPE_MARK if vocabulary.has_types else None)
    for batch, cells in sampler.batches(condition, members):
        yield batch, space.convert(cells, members=members[batch], targets=targets, rng=rng)


def _new_cells(
    adata: AnnData,
    flow: FittedFlow,
    controls: ControlCells,
    conditions: Sequence[PredictedCondition],
    sampler: ConditionSampler,
    space: OutputSpace,
    *,
    n_cells: int | None,
    params: Mapping[str, Any],
    key_added: str,
) -> AnnData:
    from anndata import AnnData

    drawn = [
        condition.members if n_cells is None else _draw(condition.members, n_cells, sampler.rng(condition, "controls"))
        for condition in conditions
    ]
    x = np.empty((sum(map(len, drawn)), len(flow.genes)), dtype=np.float32)
    tables, first = [], 0
    fields, vocabulary = flow.fields, flow.vocabulary
    for condition, members in zip(conditions, drawn, strict=True):
        for _, cells in _batches(sampler, space, condition, members):
            x[first : first + len(cells)] = cells
            first += len(cells)
        columns: dict[str, Any] = {fields.perturbation_key: condition.label}
        if fields.dose_key is not None:
            columns[fields.dose_key] = condition.dose_label
        for (name, categories), code in zip(vocabulary.covariates, condition.covariates, strict=True):
            columns[name] = categories[code]
        source = adata.obs_names[controls.rows[members]]
        tables.append(pd.DataFrame({**columns, "source": PREDICTED_SOURCE, "source_cell": source}))
    obs = pd.concat(tables, ignore_index=True)
    for name in obs.columns:
        if name != "source_cell":
            obs[name] = obs[name].astype("category")
    obs.index = [f"predicted_{i}" for i in range(len(obs))]
    var = adata.var.loc[list(flow.genes)].copy()
    uncertainty, sds = uncertainty_tables(flow, controls, conditions)
    record = {"params": dict(params) | {"n_cells": n_cells or 0}, "uncertainty": uncertainty}
    return AnnData(x, obs=obs, var=var, uns={key_added: record}, varm={f"{key_added}_sd": sds})


def _draw(members: NDArray[np.intp], n: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Draw n of the members, each as often as any other but for one."""
    whole = np.tile(members, n // len(members))
    return np.concatenate([whole, rng.choice(members, n - len(whole), replace=False)])

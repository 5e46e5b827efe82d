"""Choice of perturbations to measure next, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbflow._checks import check_whole_number
from perturbflow.predict._controls import recorded_dose
from perturbflow.predict._next_measurements import Measurable, greedy_choice, measurable
from perturbflow.predict._predicted_uncertainty import contexts_of, warn_of_new_contexts
from perturbflow.predict._prediction import candidate_conditions, n_training_cells, warn_of_extrapolation
from perturbflow.screen._modality import takes_modality
from perturbflow.tl._common import by_label, check_result, flow_and_controls, of_flow, without_none, written

if TYPE_CHECKING:
    from mudata import MuData


@takes_modality
@of_flow
def next_perturbations(
    adata: AnnData | MuData,
    candidates: Sequence[str] | None = None,
    *,
    n: int = 10,
    n_cells: int = 100,
    combinations: bool = False,
    dose: float | str | Sequence[float] | Mapping[str, float] | None = None,
    key: str = "flow",
    key_added: str = "next_perturbations",
    modality: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    r"""Choose the conditions to measure next: those whose cells would be most informative about all candidates.

    The uncertainty is the variance of the predicted effects on mean expression, summed over all candidates, contexts of the
    control cells, and genes. Let :math:`S` be the covariance between contexts of the errors of a perturbation, and s the
    variance of expression between its cells. Then n cells in the context c are expected to reduce this variance by

    .. math:: \sum_g \sum_k \frac{S_{ckg}^2}{S_{ccg} + s_{cg} / n},

    in the context c itself and in contexts with correlated errors (Bayesian A-optimal design). The best condition is chosen
    first, then the best one given this measurement, and so on.

    Parameters
    ----------
    adata
        Cells with control cells and a fitted flow; their contexts are those in which perturbations may be measured.
    candidates
        Labels of perturbations, such as "KLF1" or "KLF1+SET"; by default every component, also those without training cells.
    n
        Number of conditions to choose.
    n_cells
        Number of cells per condition.
    combinations
        Whether all pairs of single candidates are candidates as well.

    Returns
    -------
    None, or the copy with the entries

    `adata.uns["next_perturbations" | key_added]` : DataFrame
        One row per chosen condition, in the order of choice: ``perturbation``, ``dose`` (if doses are registered or given),
        one column per covariate, ``reduction`` of the summed variance given the rows above, ``reduction_per_cell``,
        ``share_of_variance``, ``cumulative_share``, ``kind`` of prediction as in
        :func:`perturbflow.tl.rank_perturbations`, and ``n_training_cells`` of exactly this condition.
    `adata.uns["next_perturbations_params" | f"{key_added}_params"]` : dict
        The parameters, and ``variance``, the sum before any of these measurements.

    Notes
    -----
    Errors of different perturbations are assumed to be independent. Information of a combination about its components, of a
    perturbation about others with similar features, and of additional control cells is not included. Sums of squares are
    dominated by the genes with the largest effects. Candidates that are equally good are chosen in their order.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_contexts(3, 6, n_genes=40)
    >>> known = (adata.obs["perturbation"] != "P002") | (adata.obs["context"] == "context_0")
    >>> adata = adata[known].copy()
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control", covariate_keys=["context"])
    >>> adata.obs["split"] = "train"
    >>> pf.tl.fit_flow(adata, preset="prior", progress_bar=False)
    >>> pf.tl.next_perturbations(adata, n=2)
    >>> adata.uns["next_perturbations"]["perturbation"].tolist()
    ['P002', 'P002']
    """
    check_result(adata, key_added, "next_perturbations", copy=copy)
    check_whole_number(n, name="n", least=1)
    check_whole_number(n_cells, name="n_cells", least=1)
    flow, controls = flow_and_controls(adata, key)
    conditions = candidate_conditions(flow, controls, candidates, dose, combinations=combinations, untrained=True)
    if trained := [one for one in conditions if flow.flow.prior.trained[one.perturbation > 0].all()]:
        warn_of_extrapolation(flow, trained)  # nothing is expected to be known of the others
    warn_of_new_contexts(flow, controls, conditions)

    contexts = contexts_of(flow, controls, conditions)
    everything = by_label(conditions)

    def candidate(number: int) -> Measurable:
        part = everything[number]
        return measurable(flow, part[0].perturbation, [contexts[one.codes] for one in part])

    choices, variance = greedy_choice(candidate, len(everything), n=n, n_cells=n_cells)
    rows: list[dict[str, Any]] = []
    for choice in choices:
        condition, reduction = everything[choice.candidate][choice.context], choice.reduction
        rows.append(
            {"perturbation": condition.label, "dose": condition.dose_label}
            | controls.named(condition.codes)
            | {"reduction": reduction, "reduction_per_cell": reduction / n_cells}
            | {"share_of_variance": reduction / variance if variance > 0 else np.nan}
            | {"kind": choice.kind}
            | {"n_training_cells": n_training_cells(flow, condition.perturbation, condition.covariates)}
        )
    table = pd.DataFrame(rows)
    table.insert(table.columns.get_loc("kind"), "cumulative_share", table["share_of_variance"].cumsum())
    if flow.fields.dose_key is None and dose is None:
        del table["dose"]

    params = without_none(
        key=key,
        n=n,
        n_cells=n_cells,
        combinations=combinations,
        variance=variance,
        dose=None if dose is None else recorded_dose(dose),
    )
    return written(adata, copy=copy, uns={key_added: table, f"{key_added}_params": params})

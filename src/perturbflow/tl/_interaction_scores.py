"""Genetic interactions: what two perturbations do together beyond what each does alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from perturbflow._checks import check_between, check_whole_number
from perturbflow.predict._controls import recorded_dose
from perturbflow.predict._fitted_flow import FittedFlow
from perturbflow.predict._interaction_fit import interaction_fit, measured_pair, predicted_pair, singles_of
from perturbflow.predict._predicted_uncertainty import MeasuredMeans, contexts_of, measured_screen, warn_of_new_contexts
from perturbflow.predict._prediction import conditions_to_predict, warn_of_extrapolation
from perturbflow.screen._fields import canonical_labels
from perturbflow.screen._modality import takes_modality
from perturbflow.tl._common import check_result, flow_and_controls, of_flow, without_none, written

if TYPE_CHECKING:
    from mudata import MuData

_SUFFIXES = ("", "_sd", "_measured", "_measured_sd")


@takes_modality
@of_flow
def interaction_scores(
    adata: AnnData | MuData,
    combinations: Sequence[str] | None = None,
    *,
    dose: float | str | Sequence[float] | Mapping[str, float] | None = None,
    level: float = 0.95,
    min_cells: int = 10,
    key: str = "flow",
    key_added: str = "interaction_scores",
    modality: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    r"""Score genetic interactions: what two perturbations do together, beyond what each does alone.

    As in Norman et al. (2019), the mean effect of both together is fitted by those of each alone,

    .. math:: d_{AB} \approx c_1 d_A + c_2 d_B

    over genes, by least squares without what sampling adds to the products of effects, so that few cells do not draw the
    coefficients to 0. Both are 1 where effects add up. Every combination has a row for what was *measured*, where the
    combination and both of its perturbations have cells, and one for what the fit *predicts*.

    Parameters
    ----------
    adata
        Cells with control cells and a fitted flow. Measured are cells of all splits.
    combinations
        Labels of two perturbations, such as "KLF1+SET"; by default all combinations of two in ``adata``.

    Returns
    -------
    None, or the copy with the entries

    `adata.uns["interaction_scores" | key_added]` : DataFrame
        One row a combination, context and ``source`` ("measured" or "predicted"): ``perturbation``, ``dose`` (if doses are
        registered or given), one column per covariate, ``n_cells`` (0 for a prediction), ``kind`` of prediction ("" for what was measured);
        ``coefficient_1`` and ``coefficient_2`` of the components in the order of the label; ``magnitude``,
        :math:`\sqrt{(c_1^2 + c_2^2) / 2}`; ``dominance``, :math:`(|c_1| - |c_2|) / (|c_1| + |c_2|)`; each with
        ``_lower`` and ``_upper``. ``fit`` is the share of the squared effect that the two explain, ``similarity`` the
        cosine of their effects, ``interaction_rms`` the root mean square over genes of :math:`d_{AB} - d_A - d_B`, all
        without sampling noise. ``class`` is the first that holds:

        - "not measurable": one of the effects is not larger than sampling;
        - "neomorphic": more than half of the squared effect is in no direction of the two;
        - "epistatic": one of the two counts more than three times as much as the other;
        - "synergistic" and "suppressive": the magnitude is above and below 1;
        - "additive": the magnitude is between 2/3 and 3/2;
        - "undetermined", else,

        each where the whole interval says so.
    `adata.varm["interaction_scores" | key_added]` : DataFrame
        Predicted interaction :math:`d_{AB} - d_A - d_B` of every gene, one column a combination ("A+B", with dose and context where
        there are several).
    `adata.varm["interaction_scores_sd" | f"{key_added}_sd"]` : DataFrame
        Standard deviations of it.
    `adata.varm["interaction_scores_measured" | f"{key_added}_measured"]` : DataFrame
        The same as measured; NaN where there are no cells.
    `adata.varm["interaction_scores_measured_sd" | f"{key_added}_measured_sd"]` : DataFrame
        Standard deviations of it.

    Notes
    -----
    Of a combination without cells the fit knows no interaction: shares of expressing cells add on the angular scale, so that
    what two strong effects do to one gene levels off, and intervals have the width of the interactions in training. That is a
    statement about what is not known, and no prediction of a class. Intervals take genes as given.

    References
    ----------
    Norman et al. (2019), Exploring genetic interaction manifolds constructed from rich single-cell phenotypes. Science 365,
    786-793.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=800, n_genes=40, n_perturbations=4, n_combinations=3)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> pf.pp.split_perturbations(adata, task="combination")
    >>> pf.tl.fit_flow(adata, preset="prior", progress_bar=False)
    >>> pf.tl.interaction_scores(adata)
    >>> adata.uns["interaction_scores"]["source"].value_counts().to_dict()
    {'measured': 3, 'predicted': 3}
    """
    beside = [("varm", f"{key_added}{suffix}") for suffix in _SUFFIXES]
    check_result(adata, key_added, "interaction_scores", copy=copy, beside=beside)
    check_between(level, 0.01, 0.999, name="level")
    check_whole_number(min_cells, name="min_cells", least=2)
    flow, controls = flow_and_controls(adata, key)
    labels = _pairs_in(adata, flow) if combinations is None else _given(combinations)
    conditions = conditions_to_predict(flow, controls, labels, dose, argument="combinations", every_dose=True)
    for condition in conditions:
        if np.count_nonzero(condition.perturbation) != 2:
            msg = f"Expected combinations of two perturbations, found {condition.label!r}. Name two components each."
            raise ValueError(msg)
    warn_of_extrapolation(flow, conditions)
    warn_of_new_contexts(flow, controls, conditions)
    asked = [row for one in conditions for row in (one.perturbation, *singles_of(one.perturbation))]
    screen = measured_screen(adata, flow, controls.vocabulary)
    means = None if screen is None else MeasuredMeans(screen, np.array(asked), min_cells=min_cells)

    has_dose = flow.fields.dose_key is not None or dose is not None
    contexts = contexts_of(flow, controls, conditions)
    rows: list[dict[str, Any]] = []
    genes: dict[str, dict[str, NDArray[np.float64]]] = {suffix: {} for suffix in _SUFFIXES}
    for condition in conditions:
        where = controls.named(condition.codes)
        labelled = {"perturbation": condition.label} | ({"dose": condition.dose_label} if has_dose else {}) | where
        # Files read a slash as a folder.
        column = "|".join(
            [condition.label]
            + ([condition.dose_label] if has_dose else [])
            + (list(where.values()) if len(controls.contexts()) > 1 else [])
        ).replace("/", "|")
        predicted, kind = predicted_pair(flow, condition.perturbation, contexts[condition.codes])
        found = [("predicted", predicted, kind, 0)]
        measured = None if means is None else measured_pair(flow, means, condition.perturbation, condition.covariates)
        if measured is not None:
            found.insert(0, ("measured", measured[0], "", measured[1]))
        for source, pair, known, n_cells in found:
            about = {"source": source, "n_cells": n_cells, "kind": known}
            rows.append(labelled | about | interaction_fit(pair, level=level))
            suffix = "" if source == "predicted" else "_measured"
            genes[suffix][column] = pair.interaction
            genes[f"{suffix}_sd"][column] = np.sqrt(pair.interaction_variance)

    by_gene = {
        f"{key_added}{suffix}": pd.DataFrame(values, index=list(flow.genes)).reindex(
            columns=list(genes[""]), index=adata.var_names
        )
        for suffix, values in genes.items()
    }
    params = without_none(key=key, level=level, min_cells=min_cells, dose=None if dose is None else recorded_dose(dose))
    return written(adata, copy=copy, uns={key_added: pd.DataFrame(rows), f"{key_added}_params": params}, varm=by_gene)


def _pairs_in(adata: AnnData, flow: FittedFlow) -> list[str]:
    """Combinations of two known perturbations among the labels of cells."""
    vocabulary, labels = flow.vocabulary, set()
    for label in set(canonical_labels(adata, flow.fields).tolist()):
        if len(vocabulary.readings(label)) == 1:
            doses = vocabulary.encode_perturbations([label]).toarray()[0]
            labels |= {vocabulary.label(doses)} if np.count_nonzero(doses) == 2 else set()
    if not labels:
        msg = "Expected combinations of two perturbations in `adata`, found none. Name those to predict in `combinations`."
        raise ValueError(msg)
    return sorted(labels)


def _given(combinations: Sequence[str]) -> list[str]:
    labels = [combinations] if isinstance(combinations, str) else list(combinations)
    if not labels:
        msg = "Expected at least one combination in `combinations`, found none. Leave it out for all that there are."
        raise ValueError(msg)
    return labels

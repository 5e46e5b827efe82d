"""Rank perturbations by how far they would move control cells toward a target state, or along a signature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from perturbflow._checks import (
    check_between,
    check_key,
    check_one_of,
    check_unique_names,
    check_whole_number,
    listing,
    nearest,
)
from perturbflow._warnings import warn
from perturbflow.flow import KINDS
from perturbflow.metrics._moments import Moments
from perturbflow.predict._controls import recorded_dose
from perturbflow.predict._moves import Profile, Way
from perturbflow.predict._predicted_uncertainty import contexts_of, predicted_uncertainty, warn_of_new_contexts
from perturbflow.predict._prediction import candidate_conditions, n_training_cells, warn_of_extrapolation, warn_of_scale
from perturbflow.screen._fields import (
    canonical_labels,
    find_genes,
    read_expression,
)
from perturbflow.screen._modality import takes_modality
from perturbflow.screen._named_arrays import chosen, without_names
from perturbflow.tl._common import by_label, check_result, flow_and_controls, of_flow, without_none, written

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import ArrayLike, NDArray

    from perturbflow.predict._controls import ControlCells
    from perturbflow.predict._fitted_flow import FittedFlow
    from perturbflow.predict._prediction import PredictedCondition
    from perturbflow.screen._expression import Expression
    from perturbflow.screen._fields import PerturbationFields

_DRAWS = 2000
_GENE_SETS = {"up": 1.0, "down": -1.0}


@takes_modality
@of_flow
def rank_perturbations(
    adata: AnnData | MuData,
    target: Mapping[str, Any] | pd.Series | ArrayLike,
    *,
    goal: Literal["reach", "follow", "reverse"] = "reach",
    candidates: Sequence[str] | None = None,
    combinations: bool = False,
    from_cells: Mapping[str, Any] | ArrayLike | None = None,
    dose: float | str | Sequence[float] | Mapping[str, float] | None = None,
    metric: Literal["euclidean", "standardised"] = "euclidean",
    level: float = 0.9,
    key: str = "flow",
    key_added: str = "ranked_perturbations",
    seed: int = 0,
    modality: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    r"""Rank perturbations by how far they would move control cells toward a target state, with uncertainty.

    The score is the fraction of the squared distance to the target that the perturbation removes,

    .. math:: 1 - \frac{\lVert c + e - t \rVert^2 - v}{\lVert c - t \rVert^2 - v},

    with the mean profile c of the control cells, its predicted change e, the target profile t, and the sampling variance v
    of both profiles. The maximum of 1 reaches the target, 0 is no move, and negative scores lead away from it. Profiles are
    means of log1p-normalised expression over the genes of the flow. The change is that of the prior of the flow in the
    contexts of the control cells, in closed form, so that thousands of candidates take seconds. Standard deviations and
    intervals are based on the calibrated uncertainty of every gene, with the correlation of errors in left-out conditions.

    If only a direction is known, such as the difference between diseased and healthy cells, the effect should follow or
    reverse a signature u. The score is then :math:`\pm\, e \cdot u / \lVert u \rVert^2`. If log fold changes are reversed, 1
    cancels them, 0 is no move, and negative scores add to them. For sets of genes that should go up or down, the score is
    their mean change.

    Parameters
    ----------
    adata
        Cells with control cells and a fitted flow.
    target
        The state to reach: cells, given by values of columns of ``obs`` (``{"cell_type": "B"}``, or several values
        ``{"cell_type": ["B", "NK"]}``) or by one boolean per cell; or their mean profile, as a Series by gene or an array
        with one number per gene of ``adata``. A Series is aligned by its names of genes or cells. To follow or reverse: a
        Series with signed numbers for some genes, one number per gene, sets of genes as ``{"up": [...], "down": [...]}``
        (or one of them), or cells, whose difference from the control cells is the signature.
    goal
        "reach" the target, or "follow" or "reverse" the signature.
    candidates
        Labels of perturbations, such as "KLF1" or "KLF1+SET"; by default every component with training cells or
        features.
    combinations
        Whether to also rank all pairs of single candidates.
    from_cells
        The control cells to move, given by values of columns of ``obs`` or one boolean per cell; by default all. Perturbed
        cells among them are ignored.
    metric
        "euclidean", or "standardised" to divide every gene by its standard deviation among control cells.
    level
        Probability of the interval from ``lower`` to ``upper``.
    seed
        Random seed for ``probability_best``.

    Returns
    -------
    None, or the copy with the entries

    `adata.uns["ranked_perturbations" | key_added]` : DataFrame
        One row per candidate and dose, best first: ``perturbation``, ``dose`` (if doses are registered or given),
        ``score``, its ``sd``, ``lower`` and ``upper``; ``cosine`` similarity of the predicted effect and the direction to
        the target, or the signature; ``distance`` that remains to the target (for "reach"); the
        ``probability_better_than_none`` of a positive score, and ``probability_best`` among the rows, both assuming normal,
        independent errors; ``kind`` of prediction ("seen", "new dose", "combination", "new context", "unseen"; that of the
        least known context) and ``n_training_cells`` of exactly this condition.
    `adata.uns["ranked_perturbations_params" | f"{key_added}_params"]` : dict
        The parameters, and the ``distance`` to the target without perturbation, or the length of the signature.

    Raises
    ------
    KeyError
        If there is no fitted flow, or a column is missing.
    ValueError
        If a perturbation or value is unknown, a dose is invalid or required, there are no cells, genes are missing, or
        the target does not differ from the control cells by more than sampling noise.

    Notes
    -----
    Target cells may be from another context than the control cells, but differences between the contexts are then part of
    the direction, and possibly no perturbation leads there. The ranking does not use the network of the flow, which
    refines the distribution of cells around the means of the prior. Predict the cells of the first candidates with
    :func:`perturbflow.tl.predict_perturbation`.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> pf.tl.fit_flow(adata, max_steps=20, progress_bar=False)
    >>> wanted = adata.obs["perturbation"].cat.categories[0]
    >>> pf.tl.rank_perturbations(adata, {"perturbation": wanted})
    >>> adata.uns["ranked_perturbations"]["perturbation"].iloc[0] == wanted
    True
    """
    check_one_of(goal, ("reach", "follow", "reverse"), name="goal")
    check_one_of(metric, ("euclidean", "standardised"), name="metric")
    check_between(level, 0.01, 0.999, name="level")
    check_whole_number(seed, name="seed")
    check_result(adata, key_added, "ranked_perturbations", copy=copy)
    flow, controls = flow_and_controls(adata, key)
    if from_cells is not None:
        keep = _cells(adata, from_cells, flow.fields, name="from_cells")[controls.rows]
        if not keep.any():
            msg = "Expected control cells among `from_cells`, found none. Name cells with the control label."
            raise ValueError(msg)
        controls = controls.subset(keep)
    start, sign = _profile(controls.x), -1.0 if goal == "reverse" else 1.0
    signature = None if goal == "reach" else _signature(adata, target, flow)
    if signature is None:
        move = Way.between(start, _target(adata, target, flow), metric, sign=sign)
    else:
        move = Way.along(sign * signature, start, metric)
    conditions = candidate_conditions(flow, controls, candidates, dose, combinations=combinations)
    warn_of_scale(flow, controls)
    warn_of_extrapolation(flow, conditions)
    warn_of_new_contexts(flow, controls, conditions)
    table = _score(flow, controls, conditions, move, goal=goal, level=level, rng=np.random.default_rng(seed))
    if flow.fields.dose_key is None and dose is None:
        del table["dose"]
    params = without_none(
        **{"key": key, "goal": goal, "metric": metric, "level": level, "seed": seed, "combinations": combinations},
        dose=None if dose is None else recorded_dose(dose),
        distance=float(np.sqrt(move.squared_length)),
    )
    return written(adata, copy=copy, uns={key_added: table, f"{key_added}_params": params})


def _score(
    flow: FittedFlow,
    controls: ControlCells,
    conditions: Sequence[PredictedCondition],
    move: Way,
    *,
    goal: str,
    level: float,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """The table, best first."""
    contexts = contexts_of(flow, controls, conditions)
    rows = []
    for parts in by_label(conditions):
        shares = np.array([len(part.members) for part in parts]) / sum(len(part.members) for part in parts)
        predicted = [predicted_uncertainty(flow, part.perturbation, contexts[part.codes]) for part in parts]
        effect = shares @ [each.effect for each in predicted]
        # Errors in different contexts go together: what is not known of a perturbation is unknown in all of them.
        variance = np.square(shares @ [each.sd for each in predicted])
        codependence = max(each.codependence for each in predicted)
        measure = move.reached if goal == "reach" else move.followed
        progress = measure(effect, variance, codependence)
        rows.append(
            {
                "perturbation": parts[0].label,
                "dose": parts[0].dose_label,
                **asdict(progress),
                "kind": max((each.kind for each in predicted), key=KINDS.index),
                "n_training_cells": n_training_cells(flow, parts[0].perturbation),
            }
        )
    table = pd.DataFrame(rows).sort_values(["order", "perturbation"], ignore_index=True).drop(columns="order")
    half = ndtri((1 + level) / 2) * table["sd"]
    table.insert(4, "lower", table["score"] - half)
    table.insert(5, "upper", np.minimum(table["score"] + half, 1.0 if goal == "reach" else np.inf))
    above = table["score"] / table["sd"]
    table.insert(8, "probability_better_than_none", ndtr(above.to_numpy()))
    drawn = table["score"].to_numpy() + table["sd"].to_numpy() * rng.standard_normal((_DRAWS, len(table)))
    best = np.bincount(drawn.argmax(axis=1), minlength=len(table)) / _DRAWS
    table.insert(9, "probability_best", best)
    return table if goal == "reach" else table.drop(columns="distance")


def _signature(adata: AnnData, target: Any, flow: FittedFlow) -> NDArray[np.float64] | None:
    """Weights of the genes of the flow (G,); None where the target names cells."""
    if isinstance(target, Mapping):
        if not target or not set(target) <= set(_GENE_SETS) or set(target) & set(adata.obs.columns):
            return None
        genes = [(str(gene), sign) for name, sign in _GENE_SETS.items() for gene in target.get(name, ())]
        target = pd.Series([sign for _, sign in genes], index=[gene for gene, _ in genes], dtype=np.float64)
    if isinstance(target, pd.Series) and target.dtype != bool:
        check_unique_names(list(map(str, target.index)), what="genes of the signature", hint="Name each once.")
        by_gene = {str(gene): float(value) for gene, value in target.items()}
        missing = [gene for gene in by_gene if gene not in set(flow.genes)]
        if missing and len(missing) < len(by_gene):
            warn(
                f"{len(missing)} of {len(by_gene)} genes of the signature are not among those of the flow: {listing(missing)}."
            )
        values = np.array([by_gene.get(gene, 0.0) for gene in flow.genes])
    elif np.asarray(without_names(target, name="target")).dtype == bool:
        return None
    else:
        values = _by_gene(adata, target, flow)
    if not np.isfinite(values).all() or not values.any():
        msg = "Expected a signature of finite numbers, of a gene of the flow at least, found none. Name other genes."
        raise ValueError(msg)
    return values


def _by_gene(adata: AnnData, target: Any, flow: FittedFlow) -> NDArray[np.float64]:
    """Numbers in the order of the genes of the flow (G,), from those in the order of ``adata``."""
    values = np.asarray(target, dtype=np.float64)
    if values.shape != (adata.n_vars,):
        msg = f"Expected `target` to have one number for each of {adata.n_vars} genes, found shape {values.shape}."
        raise ValueError(msg)
    return values[find_genes(adata, flow.genes)]


def _target(adata: AnnData, target: Any, flow: FittedFlow) -> Profile:
    """Profile of the target over the genes of the flow."""
    if not isinstance(target, Mapping) and np.asarray(without_names(target, name="target")).dtype != bool:
        named = chosen(target, flow.genes, name="target")
        if named is not None:
            return _given(np.asarray(named, dtype=np.float64), len(flow.genes))
        return _given(_by_gene(adata, target, flow), len(flow.genes))
    rows = np.flatnonzero(_cells(adata, target, flow.fields, name="target"))
    if not len(rows):
        msg = "Expected cells in `target`, found none. Name values that occur together."
        raise ValueError(msg)
    return _profile(read_expression(adata, flow.fields.layer, genes=flow.genes).part(rows=rows))


def _profile(x: Expression) -> Profile:
    """The profile of cells, which are read a chunk at a time."""
    parts = [Moments.of(block) for _, block in x.chunks()]
    found = parts[0] if len(parts) == 1 else Moments.pooled(*parts)
    variance = found.variance if len(x) > 1 else np.zeros_like(found.mean)
    return Profile(found.mean, variance, variance / len(x))


def _given(values: NDArray[np.float64], n_genes: int) -> Profile:
    if values.shape == (1, n_genes):  # a table of one row
        values = values[0]
    if values.shape != (n_genes,) or not (np.isfinite(values) & (values >= 0)).all():
        msg = "Expected `target` to be one mean of log1p-normalised expression a gene, found others than finite ones from 0."
        raise ValueError(msg)
    return Profile.exactly(values)


def _cells(adata: AnnData, which: Any, fields: PerturbationFields, *, name: str) -> NDArray[np.bool_]:
    """Cells that a mapping of columns to values, or one boolean per cell, names."""
    if not isinstance(which, Mapping):
        named = chosen(which, adata.obs_names, name=name, what="cells")
        mask = np.asarray(which if named is None else named)
        if mask.dtype != bool or mask.shape != (adata.n_obs,):
            msg = (
                f"Expected `{name}` to map columns of `adata.obs` to values or to be one boolean for each of "
                f"{adata.n_obs} cells, found {mask.dtype} of shape {mask.shape}."
            )
            raise ValueError(msg)
        return mask
    keep = np.ones(adata.n_obs, dtype=bool)
    for column, wanted in which.items():
        check_key(column, adata.obs.columns, where="adata.obs")
        values = adata.obs[column].astype(str).to_numpy()
        names = [str(each) for each in ([wanted] if isinstance(wanted, str) or np.ndim(wanted) == 0 else wanted)]
        meanings = {each: {each} for each in names}
        if column == fields.perturbation_key:  # components in any order, with or without types; any label of controls
            values = canonical_labels(adata, fields)
            meanings = {each: {fields.vocabulary.written(each), *fields.vocabulary.readings(each)} for each in names}
        known = set(values.tolist())
        unknown = [each for each, labels in meanings.items() if not labels & known]
        if unknown:
            msg = (
                f"Expected values of `adata.obs[{column!r}]` in `{name}`, found {listing(unknown)}. "
                f"The most similar are {nearest(unknown[0], known, n=3)}."
            )
            raise ValueError(msg)
        keep &= np.isin(values, sorted(set().union(*meanings.values())))
    return keep

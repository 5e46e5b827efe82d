"""Rank perturbations by how far they would move control cells toward a target state."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.special import ndtr, ndtri

from perturbflow._checks import (
    check_between,
    check_key,
    check_one_of,
    check_whole_number,
    listing,
    nearest,
)
from perturbflow.flow import KINDS
from perturbflow.metrics._moments import Moments
from perturbflow.predict._controls import control_cells
from perturbflow.predict._doses import recorded_dose
from perturbflow.predict._flow_store import read_flow
from perturbflow.predict._predicted_uncertainty import (
    context_of,
    predicted_uncertainty,
    warn_of_new_contexts,
)
from perturbflow.predict._prediction import conditions_to_predict, warn_of_extrapolation, warn_of_scale
from perturbflow.screen._fields import check_expression, check_writable, find_genes, read_expression, writable
from perturbflow.screen._modality import takes_modality
from perturbflow.screen._named_arrays import chosen, without_names
from perturbflow.store._keys import check_key_added

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import ArrayLike, NDArray

    from perturbflow.flow import Context
    from perturbflow.predict._controls import ControlCells
    from perturbflow.predict._fitted_flow import FittedFlow
    from perturbflow.predict._prediction import PredictedCondition
    from perturbflow.screen._expression import Expression
    from perturbflow.screen._fields import PerturbationFields

_DRAWS = 2000
_LEAST_VARIANCE = 0.01  # below this a gene does not gain further weight


@takes_modality
def rank_perturbations(
    adata: AnnData | MuData,
    target: Mapping[str, Any] | pd.Series | ArrayLike,
    *,
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

    The score is the share of the squared distance to the target that the perturbation removes,

    .. math:: 1 - \frac{\lVert c + e - t \rVert^2 - v}{\lVert c - t \rVert^2 - v},

    with the mean profile c of the control cells, the predicted effect e on it and the target profile t, minus the
    sampling variance v of both profiles: 1, the largest, reaches the target, 0 is no move, below 0 leads away. Profiles are means of
    log1p-normalised expression over the genes of the flow; the effect is that of the flow's prior in the contexts of
    the control cells, in closed form, so that thousands of candidates take seconds. Standard deviation and interval come
    from the calibrated uncertainty of every gene, whose errors go together as much as they did in left-out conditions.

    Parameters
    ----------
    adata
        Cells with control cells and a fitted flow.
    target
        The state to reach: cells, as values of columns of ``obs`` (``{"cell_type": "B"}``, or several values
        ``{"cell_type": ["B", "NK"]}``) or as one boolean a cell; or their mean profile, as a Series by gene or one
        number a gene of ``adata``. A Series is read by its names, of genes or of cells.
    candidates
        Labels of perturbations, such as "KLF1" or "KLF1+SET"; by default every component with training cells or
        features.
    combinations
        Rank all pairs of single candidates too.
    from_cells
        The control cells to move, as values of columns of ``obs`` or one boolean a cell; by default all. Other cells
        among them do not count.
    dose
        Dose of the perturbations, as in :func:`perturbflow.tl.predict_perturbation`. By default every perturbation is
        ranked at each of the doses at which it was measured.
    metric
        "euclidean", or "standardised" to divide every gene by its standard deviation among control cells.
    level
        Probability of the interval from ``lower`` to ``upper``.
    key
        The fitted flow in ``adata.uns``.
    key_added
        Where the table goes in ``adata.uns``.
    seed
        Seed of the draws for ``probability_best``.
    modality
        Modality of a MuData that is meant; results are written into it.
    copy
        Return a copy of ``adata`` instead of writing into it.

    Returns
    -------
    None, or the copy with the entries

    `adata.uns["ranked_perturbations" | key_added]` : DataFrame
        One row a candidate and dose, best first: ``perturbation``, ``dose`` (if doses are registered or given),
        ``score``, its ``sd``, ``lower`` and ``upper``; ``cosine`` of the predicted effect and the direction to the
        target; ``distance``, what is left of the distance to the target; ``probability_better_than_none`` that the
        score is above 0, and ``probability_best`` among the rows, both with normal and independent errors; ``kind`` of
        prediction ("seen", "new dose", "combination", "new context", "unseen"; of several contexts the least known) and
        ``n_training_cells`` of this very condition.
    `adata.uns["ranked_perturbations_params" | f"{key_added}_params"]` : dict
        The parameters, and the ``distance`` to the target without perturbation.

    Raises
    ------
    KeyError
        If there is no fitted flow, or a column is missing.
    ValueError
        If a perturbation or value is unknown, a dose is wrong or cannot be left out, there are no cells, genes are
        missing, or the target does not differ from the control cells by more than sampling.

    Notes
    -----
    Cells of a perturbation in another context than the control cells are a target as good as any; but what only sets
    the contexts apart is then part of the direction, and no perturbation may lead there. The network of the flow has no
    part in the ranking: it refines the distribution of cells around means that are the prior's. Predict the first few
    with :func:`perturbflow.tl.predict_perturbation` to see their cells.

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
    _check_options(metric, level, seed)
    check_key_added(adata, key_added, "ranked_perturbations")
    check_writable(adata, copy=copy)
    flow = read_flow(adata, key)
    check_expression(adata, flow.fields)
    controls = control_cells(adata, flow.fields, genes=flow.genes)
    if from_cells is not None:
        keep = _cells(adata, from_cells, flow.fields, name="from_cells")[controls.rows]
        if not keep.any():
            msg = "Expected control cells among `from_cells`, found none. Name cells with the control label."
            raise ValueError(msg)
        controls = controls.subset(keep)
    goal = _target(adata, target, flow)
    labels = _labels(flow, candidates, combinations=combinations)
    conditions = conditions_to_predict(flow, controls, labels, dose, every_dose=True)
    if not all(condition.perturbation.any() for condition in conditions):
        msg = f"Expected perturbations in `candidates`, found {flow.fields.control!r} or a dose of 0. Leave it out."
        raise ValueError(msg)
    warn_of_scale(flow, controls)
    warn_of_extrapolation(flow, conditions)
    warn_of_new_contexts(flow, controls, conditions)
    move = _Move.between(_Profile.of(controls.x), goal, metric)
    table = _score(flow, controls, conditions, move, level=level, rng=np.random.default_rng(seed))
    if flow.fields.dose_key is None and dose is None:
        del table["dose"]

    adata = writable(adata, copy=copy)
    adata.uns[key_added] = table
    adata.uns[f"{key_added}_params"] = {
        **{"key": key, "metric": metric, "level": level, "seed": seed, "combinations": combinations},
        **({} if dose is None else {"dose": recorded_dose(dose)}),
        "distance": float(np.sqrt(move.squared_distance)),
    }
    return adata if copy else None


@dataclass(frozen=True, eq=False)
class _Profile:
    """Mean and variance of cells, per gene (G,), and the sampling variance of the mean."""

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    noise: NDArray[np.float64]

    @classmethod
    def of(cls, x: Expression) -> _Profile:
        parts = [Moments.of(block) for _, block in x.chunks()]
        found = parts[0] if len(parts) == 1 else Moments.pooled(*parts)
        variance = found.variance if len(x) > 1 else np.zeros_like(found.mean)
        return cls(found.mean, variance, variance / len(x))


@dataclass(frozen=True, eq=False)
class _Move:
    """The way from control cells to a target: direction, weights of genes, sampling noise, squared distance."""

    direction: NDArray[np.float64]
    weights: NDArray[np.float64]
    noise: float
    squared_distance: float

    @classmethod
    def between(cls, start: _Profile, goal: _Profile, metric: str) -> _Move:
        direction = goal.mean - start.mean
        weights = np.ones(len(direction))
        if metric == "standardised":
            weights = 1 / np.maximum(start.variance, _LEAST_VARIANCE)
        noise = weights * (start.noise + goal.noise)
        squared = float(weights @ direction**2 - noise.sum())
        # Twice the standard deviation that the squared distance between samples of one law has.
        if squared <= 2 * np.sqrt(2 * np.square(noise).sum()):
            msg = (
                "Expected a target that differs from the control cells by more than sampling, found none. "
                "Name another target, or more cells."
            )
            raise ValueError(msg)
        return cls(direction, weights, float(noise.sum()), squared)


def _score(
    flow: FittedFlow,
    controls: ControlCells,
    conditions: Sequence[PredictedCondition],
    move: _Move,
    *,
    level: float,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """The table, best first."""
    prior = flow.flow.prior
    contexts: dict[tuple[int, ...], Context] = {}
    by_label: dict[tuple[str, str], list[PredictedCondition]] = {}
    for condition in conditions:
        by_label.setdefault((condition.label, condition.dose_label), []).append(condition)
        codes = tuple(condition.covariates.tolist())
        if codes not in contexts:
            contexts[codes] = context_of(flow, controls, condition)
    rows = []
    for (label, dose), parts in by_label.items():
        shares = np.array([len(part.members) for part in parts]) / sum(len(part.members) for part in parts)
        predicted = [
            predicted_uncertainty(flow, part.perturbation, contexts[tuple(part.covariates.tolist())]) for part in parts
        ]
        effect = shares @ [each.effect for each in predicted]
        # Errors in different contexts go together: what is not known of a perturbation is unknown in all of them.
        variance = np.square(shares @ [each.sd for each in predicted])
        codependence = max(each.codependence for each in predicted)
        rest = effect - move.direction
        raw = float(move.weights @ rest**2) - move.noise
        left = max(raw, 0.0)  # cells that were training cells too share their sampling with the prediction
        slope = 4 * codependence * float(move.weights**2 @ (rest**2 * variance))
        curvature = 2 * codependence * float(move.weights**2 @ variance**2)
        norm = np.sqrt(float(move.weights @ effect**2) * float(move.weights @ move.direction**2))
        everywhere = prior.groups.all_contexts
        doses = np.minimum(parts[0].perturbation, prior.dose_unit)
        same = prior.groups.find(sparse.csr_matrix(np.repeat(doses[None], len(everywhere), axis=0)), everywhere)
        rows.append(
            {
                "perturbation": label,
                "dose": dose,
                "score": 1 - left / move.squared_distance,
                "sd": np.sqrt(slope + curvature) / move.squared_distance,
                "cosine": float(move.weights @ (effect * move.direction)) / norm if norm > 0 else 0.0,
                "distance": np.sqrt(left),
                "order": raw,
                "kind": max((each.kind for each in predicted), key=KINDS.index),
                "n_training_cells": int(prior.group_cells[same[same >= 0]].sum()),
            }
        )
    table = pd.DataFrame(rows).sort_values(["order", "perturbation"], ignore_index=True).drop(columns="order")
    half = ndtri((1 + level) / 2) * table["sd"]
    table.insert(4, "lower", table["score"] - half)
    table.insert(5, "upper", np.minimum(table["score"] + half, 1.0))
    above = table["score"] / table["sd"]
    table.insert(8, "probability_better_than_none", ndtr(above.to_numpy()))
    drawn = table["score"].to_numpy() + table["sd"].to_numpy() * rng.standard_normal((_DRAWS, len(table)))
    best = np.bincount(drawn.argmax(axis=1), minlength=len(table)) / _DRAWS
    table.insert(9, "probability_best", best)
    return table


def _labels(flow: FittedFlow, candidates: Sequence[str] | None, *, combinations: bool) -> list[str]:
    """Labels of all candidates."""
    vocabulary, prior = flow.vocabulary, flow.flow.prior
    if candidates is None:
        known = prior.trained | bool(prior.features.shape[1])
        names = [name for name, keep in zip(vocabulary.components, known, strict=True) if keep]
    else:
        names = [candidates] if isinstance(candidates, str) else list(candidates)
    if not names:
        msg = "Expected at least one perturbation in `candidates`, found none."
        raise ValueError(msg)
    if combinations:
        singles = sorted({name for name in map(vocabulary.canonical, names) if vocabulary.separator not in name})
        names += [vocabulary.separator.join(pair) for pair in itertools.combinations(singles, 2)]
    return names


def _target(adata: AnnData, target: Any, flow: FittedFlow) -> _Profile:
    """Profile of the target over the genes of the flow."""
    if not isinstance(target, Mapping) and np.asarray(without_names(target, name="target")).dtype != bool:
        named = chosen(target, flow.genes, name="target")
        if named is not None:
            return _given(np.asarray(named, dtype=np.float64), len(flow.genes))
        values = np.asarray(target, dtype=np.float64)
        if values.shape != (adata.n_vars,):
            msg = f"Expected `target` to have one number for each of {adata.n_vars} genes, found shape {values.shape}."
            raise ValueError(msg)
        return _given(values[find_genes(adata, flow.genes)], len(flow.genes))
    rows = np.flatnonzero(_cells(adata, target, flow.fields, name="target"))
    if not len(rows):
        msg = "Expected cells in `target`, found none. Name values that occur together."
        raise ValueError(msg)
    return _Profile.of(read_expression(adata, flow.fields.layer, genes=flow.genes).part(rows=rows))


def _given(values: NDArray[np.float64], n_genes: int) -> _Profile:
    if values.shape == (1, n_genes):  # a table of one row
        values = values[0]
    if values.shape != (n_genes,) or not (np.isfinite(values) & (values >= 0)).all():
        msg = "Expected `target` to be one mean of log1p-normalised expression a gene, found others than finite ones from 0."
        raise ValueError(msg)
    return _Profile(values, np.zeros(n_genes), np.zeros(n_genes))


def _cells(adata: AnnData, which: Any, fields: PerturbationFields, *, name: str) -> NDArray[np.bool_]:
    """Cells that a mapping of columns to values, or one boolean a cell, names."""
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
        if column == fields.perturbation_key:  # components in any order, and any label of control cells
            written = {label: fields.vocabulary.written(label) for label in {*values, *names}}
            values, names = np.array([written[label] for label in values]), [written[label] for label in names]
        known = set(values.tolist())
        unknown = [each for each in names if each not in known]
        if unknown:
            msg = (
                f"Expected values of `adata.obs[{column!r}]` in `{name}`, found {listing(unknown)}. "
                f"The most similar are {nearest(unknown[0], known, n=3)}."
            )
            raise ValueError(msg)
        keep &= np.isin(values, names)
    return keep


def _check_options(metric: object, level: object, seed: object) -> None:
    check_one_of(metric, ("euclidean", "standardised"), name="metric")
    check_between(level, 0.01, 0.999, name="level")
    check_whole_number(seed, name="seed")

"""Judge a fitted flow beside baselines and bounds."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from perturbflow._fields import read_cells, read_fields, read_split, writable
from perturbflow._flow_store import read_flow
from perturbflow.baselines import BASELINES
from perturbflow.metrics import METRICS
from perturbflow.tl._evaluation_table import CEILING, FLOOR, conditions_of, scores_table, summary_table

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from perturbflow._fitted_flow import FittedFlow

MIN_CELLS = 4  # halves of two cells, the least that the unbiased estimates take


def evaluate(
    adata: AnnData,
    *,
    key: str | None = "flow",
    models: Mapping[str, Any] | None = None,
    baselines: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    split_key: str = "split",
    splits: Sequence[str] = ("train", "valid", "test"),
    n_cells: int | None = None,
    min_cells: int = 10,
    guidance: float | None = None,
    n_steps: int | None = None,
    seed: int = 0,
    key_added: str = "evaluation",
    progress_bar: bool = True,
    copy: bool = False,
) -> AnnData | None:
    """Compare predicted with real cells, for the flow, simple baselines and two bounds.

    Every condition (perturbation with its dose, in one context of covariates) is predicted from the training controls
    of its context by the flow, by every baseline (fitted on exactly the cells that the flow was fitted on) and by what
    ``models`` adds. All get the same control cells, which are also the reference of all effects. Two bounds frame the
    scores: the controls themselves (the floor, model "control cells") and the real cells against themselves, as the
    mean over five random halvings (the ceiling, model "ceiling").

    Every model predicts twice from the same controls. Effects are those of both predictions together; the distances
    within a prediction, which energy distance and MMD subtract, are those between the two, so that a model gains nothing
    from making the cells of one prediction depend on each other.

    The rank of a prediction is that of the RMSE of its mean effect among the predictions of all conditions of the same
    context and split. Scores on splits that were fitted on are those of a fit to these very cells and can therefore be
    better than the ceiling. For the unbiased energy distance and MMD a value around 0, also a negative one, means that two
    samples cannot be told apart; halves have half the cells, so for RMSE, cosine and rank the ceiling is cautious.

    Parameters
    ----------
    adata
        Cells with a fitted flow, whose fields are used, or without one with registered fields
        (:func:`perturbflow.pp.setup_perturbation`).
    key
        The flow in ``adata.uns``, which is also its name in the tables; None leaves it out.
    models
        Further fitted samplers by name: anything with the method ``sample`` of
        :class:`perturbflow.baselines.Sampler`. They get genes and perturbations in the order of the flow or, without
        one, of ``adata`` and its registered fields.
    baselines
        Names from ``perturbflow.baselines.BASELINES``; all by default. "control cells" is always there.
    metrics
        Names from ``perturbflow.metrics.METRICS``; all by default.
    split_key
        Column of ``adata.obs`` with the split. Without it every cell counts as "train", with a warning.
    splits
        The splits to judge, in the order of the table; those without cells are passed over.
    n_cells
        Compare at most this many cells: controls (and thereby predictions) of a context and real cells of a condition,
        drawn at random. Time grows with the square of it. All cells by default.
    min_cells
        Conditions with fewer real cells, and contexts with fewer controls, are left out, with a warning and an entry
        in ``left_out``. At least 4.
    guidance
        Weight of classifier-free guidance of the flow; the one chosen by the fit if None.
    n_steps
        Steps of the flow's solver; its own default if None.
    seed
        Seed of all draws. A condition's scores depend on neither the other conditions nor the other models, but for
        the rank.
    key_added
        Prefix of the entries in ``adata.uns``.
    progress_bar
        Whether to show a progress bar over conditions.
    copy
        Return a copy of ``adata`` instead of writing into it.

    Returns
    -------
    None, or the copy with the entries

    `adata.uns["evaluation" | key_added]` : DataFrame
        One row per condition, model and metric: ``split``, ``perturbation``, one column per covariate, ``dose`` (if
        doses are registered), ``model``, ``metric``, ``value`` and ``n_cells`` (real cells compared). A value is NaN
        where the metric is undefined, such as the rank of a single condition.
    `adata.uns["evaluation_summary"]` : DataFrame
        ``split``, ``model``, ``metric``, ``mean`` and ``sd`` over the conditions whose value is defined, and their
        number ``n_conditions``. The metric "dynamic_range_fraction" has the headline as its mean, with the sums over
        conditions of the energy distance, ``(sum(floor) - sum(model)) / (sum(floor) - sum(ceiling))``: 0 is as far
        from the real cells as the controls are, 1 as close as they are to themselves.
    `adata.uns["evaluation_params"]` : dict
        The parameters, ``fitted_splits``, and ``left_out``: a table of the conditions left out, with the reason.

    Raises
    ------
    KeyError
        If fields or flow are missing, with the function to run first.
    ValueError
        If a name is unknown or taken twice, a context has no training controls, no condition is left, or a model
        returns cells of another shape or with values that are not finite.

    Notes
    -----
    Conditions are streamed: beyond the cells of ``adata`` the memory is that of one condition and of the mean
    profiles of one context.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> pf.pp.split_perturbations(adata, task="combination", seed=0)
    >>> pf.tl.evaluate(adata, key=None, metrics=["energy_distance"], progress_bar=False)
    >>> adata.uns["evaluation_summary"]["model"].unique().tolist()[:2]
    ['control cells', 'mean effect']
    """
    flow = None if key is None else read_flow(adata, key)
    fields = read_fields(adata) if flow is None else flow.fields
    vocabulary = fields.vocabulary
    metric_names = list(METRICS) if metrics is None else list(metrics)
    names = list(BASELINES) if baselines is None else [FLOOR, *(name for name in baselines if name != FLOOR)]
    _check_names(metric_names, METRICS, name="metrics")
    _check_names(names, BASELINES, name="baselines")
    _check_own_names(({} if key is None else {key: flow}) | dict(models or {}), key=key, models=models)
    _check_covariates([key for key, _ in vocabulary.covariates])
    if min_cells < MIN_CELLS or (n_cells is not None and n_cells < MIN_CELLS):
        msg = f"Expected `min_cells` and `n_cells` to be at least {MIN_CELLS}, found {min_cells} and {n_cells}."
        raise ValueError(msg)

    cells = read_cells(adata, genes=None if flow is None else flow.genes, fields=fields)
    fitted_splits = ("train",) if flow is None else tuple(flow.fitted_splits)
    split = _split(adata, split_key)
    fitted = np.flatnonzero(np.isin(split, fitted_splits))
    conditions, left_out = conditions_of(
        cells,
        split,
        fitted=fitted,
        splits=splits,
        vocabulary=vocabulary,
        has_doses=fields.dose_key is not None,
        min_cells=min_cells,
    )
    if len(left_out):
        msg = (
            f"Left out {len(left_out)} conditions with too few cells; "
            f"`adata.uns[{key_added + '_params'!r}]['left_out']` lists them."
        )
        warnings.warn(msg, UserWarning, stacklevel=2)
    if not conditions:
        msg = (
            f"Expected perturbed cells to judge in the splits {list(splits)}, found {len(left_out)} conditions, "
            f"all with fewer than {min_cells} cells. Lower `min_cells`, or name other `splits`."
        )
        raise ValueError(msg)

    samplers: dict[str, Any] = (
        {} if flow is None else {str(key): _WithSettings(flow, guidance=guidance, n_steps=n_steps)}
    )
    samplers |= dict(models or {})
    training_cells = cells.subset(fitted)
    samplers |= {name: BASELINES[name]().fit(training_cells) for name in names}

    table = scores_table(
        cells,
        conditions,
        samplers,
        metrics=metric_names,
        n_cells=n_cells,
        seed=seed,
        progress_bar=progress_bar,
    )
    params = {
        **{"key": key, "n_cells": n_cells, "n_steps": n_steps},
        **{"split_key": split_key, "min_cells": min_cells, "guidance": guidance, "seed": seed},
        **{"fitted_splits": list(fitted_splits), "models": [name for name in samplers if name not in names]},
        "left_out": left_out,
    }
    adata = writable(adata, copy=copy)
    adata.uns[key_added] = table
    adata.uns[f"{key_added}_summary"] = summary_table(table)
    # Files of anndata before 0.12 have no None.
    adata.uns[f"{key_added}_params"] = {name: value for name, value in params.items() if value is not None}
    return adata if copy else None


class _WithSettings:
    """A flow with settings of prediction, called like a baseline."""

    def __init__(self, flow: FittedFlow, **changes: float | None) -> None:
        self.flow = flow
        self.changes = {name: value for name, value in changes.items() if value is not None}

    def sample(
        self,
        controls: NDArray[np.float32],
        perturbation: NDArray[np.float32],
        covariates: NDArray[np.int64],
        *,
        rng: np.random.Generator,
    ) -> NDArray[np.float32]:
        return self.flow.sample(controls, perturbation, covariates, rng=rng, **self.changes)


def _split(adata: AnnData, split_key: str) -> NDArray[np.str_]:
    if split_key in adata.obs:
        return read_split(adata, split_key)
    msg = (
        f"`adata.obs[{split_key!r}]` not found: every cell counts as 'train', so nothing is judged on held-out "
        "conditions. Run pf.pp.split_perturbations(adata, task=...) before fitting."
    )
    warnings.warn(msg, UserWarning, stacklevel=3)
    return np.full(adata.n_obs, "train")


def _check_names(names: Sequence[str], known: Mapping[str, Any], *, name: str) -> None:
    unknown = [each for each in names if each not in known]
    if unknown or len(set(names)) < len(names) or not names:
        msg = f"Expected `{name}` to be different names from {list(known)}, found {list(names)}."
        raise ValueError(msg)


def _check_covariates(keys: Sequence[str]) -> None:
    taken = sorted({"model", "metric", "value", "reason"} & set(keys))
    if taken:
        msg = f"Expected covariates with other names than the columns of the table, found {taken}. Rename them in `adata.obs`."
        raise ValueError(msg)


def _check_own_names(own: Mapping[str, Any], *, key: str | None, models: Mapping[str, Any] | None) -> None:
    taken = {*BASELINES, CEILING} & {*own}
    if taken or (models and key in models):
        msg = (
            f"Expected names of models that are neither baselines nor {CEILING!r} nor the key of the flow, found "
            f"{sorted(own)} with `key={key!r}`. Rename the entries of `models`."
        )
        raise ValueError(msg)

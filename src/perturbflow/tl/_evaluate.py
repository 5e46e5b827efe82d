"""Judge predicted cells beside baselines and bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from perturbflow._checks import check_n_jobs, check_none, check_one_of, check_whole_number, listing
from perturbflow._progress import shows_progress, stage
from perturbflow._warnings import warn
from perturbflow.baselines import BASELINES
from perturbflow.evaluation._alignment import aligned, check_predicted, predicted_cells
from perturbflow.evaluation._conditions import conditions_of, generator, named_conditions
from perturbflow.evaluation._metrics import check_names, metrics_of, targets_of
from perturbflow.evaluation._predictors import GivenCells, Predictor, asked, fitted_baselines, sums_of
from perturbflow.evaluation._scores import Settings, score_all
from perturbflow.evaluation._tables import (
    CEILING,
    DUPLICATE,
    FLOOR,
    dataset_rows,
    harm_rows,
    summary_table,
    with_challenge_scores,
)
from perturbflow.predict._fitted_flow import read_flow
from perturbflow.predict._torch_state import moved
from perturbflow.screen._fields import read_feature_table, read_fields, read_screen
from perturbflow.screen._modality import takes_modality
from perturbflow.screen._scale import summary_of_totals, warn_of_totals
from perturbflow.screen._splits import read_split, split_names
from perturbflow.tl._common import check_result, of_flow, without_none, written

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray


MIN_CELLS = 4  # halves of two cells, the least that the unbiased estimates take


@takes_modality
@of_flow
@shows_progress("evaluate")
def evaluate(
    adata: AnnData | MuData,
    predicted: AnnData | MuData | Mapping[str, Any] | None = None,
    *,
    key: str | None = "flow",
    metrics: str | Sequence[str] = "default",
    baselines: Sequence[str] | None = None,
    scale: Literal["log1p", "linear"] = "log1p",
    split_key: str = "split",
    splits: str | Sequence[str] = ("train", "valid", "test"),
    n_cells: int | None = 500,
    min_cells: int = 10,
    guidance: float | None = None,
    n_steps: int | None = None,
    n_resamples: int = 1000,
    n_permutations: int = 200,
    n_jobs: int = 1,
    device: str | None = None,
    seed: int = 0,
    key_added: str = "evaluation",
    progress_bar: bool = True,
    modality: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Compare predicted with real cells, for models, simple baselines and two bounds.

    The predictions for every condition (a perturbation with its dose, in one context of covariates) are compared with
    its real cells. The flow, every baseline (fitted to the same cells) and other samplers predict from the training
    controls of the context; cells predicted by other tools are used as they are. Effects are relative to the same real
    controls for all models. Two bounds frame the scores: the controls themselves (the floor, model "control cells") and
    the real cells compared with themselves, as the mean over random halves (the ceiling, model "ceiling"). If
    differential expression is tested, the "interpolated duplicate" of Miller et al. (2025) is a second positive control
    for metrics of means.

    Models cannot benefit from dependent or more cells: samplers predict twice, and the distances within a prediction,
    which energy distance and MMD subtract, are those between the two samples; differential expression is tested with at
    most as many predicted as real cells. Metrics that compare conditions with each other (ranks, weights of genes) use
    all conditions of the same context and split. On splits that were used for the fit, scores can be better than the
    ceiling. The unbiased energy distance and MMD are near 0, or negative, if two samples cannot be distinguished. For
    other metrics the ceiling is conservative, because halves have half the cells.

    Parameters
    ----------
    adata
        Observed cells with a fitted flow, whose fields are used, or without one with registered fields
        (:func:`perturbflow.pp.setup_perturbation`).
    predicted
        Further predictions to evaluate, by name: cells predicted by any tool, as an AnnData (or a MuData with this
        ``modality``) or the path of an h5ad or zarr file, with the registered columns in ``obs``; or a fitted sampler,
        an object with the method ``sample`` of :class:`perturbflow.baselines.Sampler`, with genes and perturbations in
        the order of the flow or, without a flow, of ``adata``. A single AnnData is named "predicted". Only conditions
        with real cells, in any split, can be evaluated.
    key
        Key of the flow in ``adata.uns``, which is also its name in the tables; None omits it. If there is no flow under
        the default key, only ``predicted`` is evaluated.
    metrics
        A suite of ``perturbflow.metrics.SUITES`` or names from ``perturbflow.metrics.METRICS``. The names "edistance",
        "mse" and "mean_absolute_error" of pertpy are accepted; for its other distances, the error names the nearest
        metric.
    baselines
        Names from ``perturbflow.baselines.BASELINES``; all by default. "control cells" is always included.
    scale
        Scale of the predicted cells: log1p-normalised like the observed cells, or linear (normalised without log). It is
        never guessed; values that cannot be log-transformed raise an error.
    split_key
        Column of ``adata.obs`` with the split. Without it every cell counts as "train", with a warning.
    splits
        One or several splits to evaluate, in the order of the table; splits without cells are skipped.
    n_cells
        Maximum number of controls per context and of real cells per condition, drawn at random; None for all. Run time
        is quadratic in this number.
    min_cells
        Conditions with fewer real cells, and contexts with fewer controls, are omitted, with a warning and an entry in
        ``left_out``. At least 4.
    guidance
        Weight of classifier-free guidance of the flow. By default the weight chosen by the fit.
    n_steps
        Number of solver steps of the flow. By default chosen by the flow.
    n_resamples
        Number of bootstrap samples for every interval, at least 1.
    n_permutations
        Number of permutations in the test whether a condition differs from its controls; 0 for no verdicts.
    n_jobs
        Number of conditions evaluated in parallel, as in joblib: -1 for all processors. Predictions are made one after
        another. Results do not depend on this number.
    device
        Torch device of the network of the flow and of distances between cells, such as "cuda"; "auto" uses a GPU if
        available. By default that of ``pf.settings``, otherwise the CPU.
    seed
        Random seed. The scores of a condition depend on other conditions only through metrics that compare conditions.
    progress_bar
        Whether to show a progress bar over conditions.

    Returns
    -------
    None, or the copy with the entries

    `adata.uns["evaluation" | key_added]` : DataFrame
        One row per condition, model and metric: ``split``, ``perturbation``, one column per covariate, ``dose`` (if
        doses are registered), ``model``, ``metric``, ``value`` and ``n_cells`` (real cells compared). NaN where the
        metric is undefined, such as the rank of a single condition.
    `adata.uns["evaluation_summary"]` : DataFrame
        ``split``, ``model``, ``metric``, ``mean`` and ``sd`` over the ``n_conditions`` whose value is defined,
        ``lower`` and ``upper`` (95 %, bootstrap over conditions; NaN over a single one), the ``best_baseline`` on
        average, and the ``difference`` to it over the conditions that both have, with ``difference_lower`` and
        ``difference_upper``. Further rows: "dynamic_range_fraction" is the main result, ``(sum(floor) - sum(model)) /
        (sum(floor) - sum(ceiling))`` of energy distances: 0 is as far from the real cells as the controls, 1 as close
        as the real cells are to themselves. With verdicts, "harm_against_controls" and "harm_against_prior" are the
        fractions of conditions in which a model is significantly worse than the control cells and than "shifted
        controls", with Wilson intervals. With ``metrics="vcc2026"`` and the baseline "mean effect" there is also
        "challenge_score", see :func:`perturbflow.metrics.challenge_score`.
    `adata.uns["evaluation_verdicts"]` : DataFrame
        One row per condition and model other than a baseline: ``best_baseline`` in this condition, ``difference`` of
        energy distances to it with ``lower`` and ``upper`` (95 %, bootstrap over real cells, the same for both),
        ``worse_than_controls`` and ``worse_than_prior`` (1 if significant, else 0), ``p_value`` of a difference between
        real cells and controls, ``n_cells``, ``n_cells_needed`` to detect it, and ``verdict``: "not measurable at this
        number of cells", "model better" (than every baseline), "a baseline is better", or "no difference could be
        shown" if the interval includes 0. ``finding`` is the same as a sentence.
    `adata.uns["evaluation_params"]` : dict
        The parameters, ``fitted_splits``, ``left_out`` (a table of omitted conditions with the reason), and ``report``
        (which predicted cells and genes were reordered, omitted or missing).

    Raises
    ------
    KeyError
        If fields, flow or columns of predicted cells are missing, with the function to run first.
    ValueError
        If a name is unknown or not unique, a context has no training controls, no condition is left, ``key_added``
        exists and is not an evaluation, predicted cells lack genes, are on another scale, fewer than four or from
        conditions without real cells, or a model returns cells of the wrong shape or with values that are not finite.
    FileNotFoundError
        If a file in ``predicted`` does not exist.
    TypeError
        If an entry of ``predicted`` is neither cells nor a path nor a sampler.

    Notes
    -----
    Conditions are streamed. Memory holds a few conditions with all their predictions, the mean profiles and principal
    components of one context, and, unless ``baselines=[]``, three numbers per gene and training condition. Training
    cells are read once, in chunks. Models that predict identical cells are evaluated once.

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
    stage("cells and models")
    check_result(adata, key_added, "evaluation", copy=copy)
    others = _others(predicted)
    key = None if key == "flow" and key not in adata.uns and others else key
    flow = None if key is None else moved(read_flow(adata, key), device)
    fields = read_fields(adata) if flow is None else flow.fields
    vocabulary = fields.vocabulary
    metric_names = metrics_of(metrics)
    splits = split_names(splits)
    names = list(BASELINES) if baselines is None else [FLOOR, *(name for name in baselines if name != FLOOR)]
    check_names(names, BASELINES, name="baselines")
    _check_own_names(({} if key is None else {key: flow}) | others, key=key, others=others)
    reserved = [key for key, _ in vocabulary.covariates if key in {"model", "metric", "value", "reason"}]
    expected = "covariates with other names than the columns of the table"
    check_none(sorted(reserved), expected, hint="Rename them in `adata.obs`.")
    check_one_of(scale, ("log1p", "linear"), name="scale")
    check_n_jobs(n_jobs)
    check_whole_number(min_cells, name="min_cells", least=MIN_CELLS)
    check_whole_number(n_resamples, name="n_resamples", least=1)
    check_whole_number(n_permutations, name="n_permutations")
    if n_cells is not None:
        check_whole_number(n_cells, name="n_cells", least=MIN_CELLS)

    genes = list(map(str, adata.var_names)) if flow is None else list(flow.genes)
    cells = read_screen(adata, genes=None if flow is None else flow.genes, fields=fields)
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
        warn(msg)
    if not conditions:
        msg = (
            f"Expected perturbed cells to judge in the splits {splits}, found {len(left_out)} conditions, "
            f"all with fewer than {min_cells} cells. Lower `min_cells`, or name other `splits`."
        )
        raise ValueError(msg)

    predictors: dict[str, Predictor] = {}
    if flow is not None:
        sample = partial(flow.sample, **without_none(guidance=guidance, n_steps=n_steps))
        predictors[str(key)] = asked(str(key), SimpleNamespace(sample=sample))
    report: list[dict[str, Any]] = []
    without: dict[str, list[str]] = {}
    real = named_conditions(cells, vocabulary, has_doses=fields.dose_key is not None) if others else {}
    totals = summary_of_totals(cells.x, fields.natural_per_unit) if others else []
    for name, model in others.items():
        if hasattr(model, "sample"):
            predictors[name] = asked(name, model)
            continue
        found, notes = aligned(
            predicted_cells(name, model), name=name, genes=genes, fields=fields, scale=scale, real=real
        )
        what = f"The cells of predicted[{name!r}]"
        warn_of_totals(found.x, totals, unit=fields.natural_per_unit, what=what, than="the observed ones")
        predictors[name] = given = GivenCells(found, n_cells=n_cells)
        missing = check_predicted(name, given, conditions, real)
        without |= {name: [real[one.identity] for one in missing if one.labels["split"] not in fitted_splits]}
        report += notes
    stage("baselines")
    features = read_feature_table(adata, vocabulary=vocabulary)
    training = sums_of(cells, fitted if len(names) > 1 else fitted[:0])  # of which the floor alone learns nothing
    samplers = fitted_baselines(names, training, features=features)
    predictors |= {name: asked(name, sampler) for name, sampler in samplers.items()}

    settings = Settings(
        metrics=tuple(metric_names),
        n_cells=n_cells,
        n_resamples=n_resamples,
        n_permutations=n_permutations,
        seed=seed,
        progress_bar=progress_bar,
        n_jobs=n_jobs,
        log_base=fields.log_base,
        device=device,
    )
    results = score_all(
        cells, conditions, predictors, baselines=names, settings=settings, targets=targets_of(vocabulary, genes)
    )
    stage("tables")
    report += results.missing
    if report:
        msg = (
            f"Predicted cells were changed, left out or missing in {len(report)} ways; "
            f"`adata.uns[{key_added + '_params'!r}]['report']` lists them."
            + "".join(
                f" Held-out conditions without a prediction of {m!r}: {listing(c)}." for m, c in without.items() if c
            )
        )
        warn(msg)
    params = without_none(
        **{"key": key, "n_cells": n_cells, "n_steps": n_steps, "scale": scale, "metrics": metric_names},
        **{"split_key": split_key, "min_cells": min_cells, "guidance": guidance, "seed": seed},
        **{"n_resamples": n_resamples, "n_permutations": n_permutations},
        **{"fitted_splits": list(fitted_splits), "models": [name for name in predictors if name not in names]},
        left_out=left_out,
        report=pd.DataFrame(report, columns=["model", "what", "n", "which"]).astype({"n": int}),
    )
    resampling: dict[str, Any] = {"baselines": names, "n_resamples": n_resamples}
    further = dataset_rows(results.strengths, settings.wanted, **resampling, rng=generator(seed, "screens"))
    further += harm_rows(results.verdicts)
    summary = summary_table(results.scores, **resampling, rng=np.random.default_rng(seed), further=further)
    tables = {"": results.scores, "_summary": with_challenge_scores(summary), "_verdicts": results.verdicts}
    entries = (tables | {"_params": params}).items()
    return written(adata, copy=copy, uns={f"{key_added}{suffix}": entry for suffix, entry in entries})


def _others(predicted: AnnData | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what else is judged, by name."""
    if predicted is None:
        return {}
    if isinstance(predicted, Mapping):
        return {str(name): model for name, model in predicted.items()}
    return {"predicted": predicted}


def _split(adata: AnnData, split_key: str) -> NDArray[np.str_]:
    if split_key in adata.obs:
        return read_split(adata, split_key)
    msg = (
        f"`adata.obs[{split_key!r}]` not found: every cell counts as 'train', so nothing is judged on held-out "
        "conditions. Run pf.pp.split_perturbations(adata, task=...) before fitting."
    )
    warn(msg)
    return np.full(adata.n_obs, "train")


def _check_own_names(own: Mapping[str, Any], *, key: str | None, others: Mapping[str, Any]) -> None:
    taken = {*BASELINES, CEILING, DUPLICATE} & {*own}
    if taken or key in others:
        msg = (
            f"Expected names of models that are neither baselines nor {CEILING!r} nor the key of the flow, found "
            f"{sorted(own)} with `key={key!r}`. Rename the entries of `predicted`."
        )
        raise ValueError(msg)

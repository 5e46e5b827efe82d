"""Scores of predictions that are arrays: cells, or models that predict from control cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from perturbflow._checks import check_none, check_type
from perturbflow._docs import shares
from perturbflow.evaluation._conditions import Condition
from perturbflow.evaluation._metrics import metrics_of
from perturbflow.evaluation._predictors import MIN_CELLS, GivenCells, Predictor, TheControls, asked
from perturbflow.evaluation._scores import Settings, score_all
from perturbflow.evaluation._tables import CEILING, DUPLICATE, FLOOR
from perturbflow.flow import CellData
from perturbflow.metrics._cells import Cells, check_cells, check_same_genes
from perturbflow.screen._named_arrays import aligned

of_scores = shares(
    {
        "metrics": (
            "A suite of ``perturbflow.metrics.SUITES`` or names from ``perturbflow.metrics.METRICS``. Dataset metrics, which\n"
            "have one value per split, are left out."
        ),
        "n_cells": "Maximum number of cells of a condition, and of the controls, drawn at random; None for all.",
        "device": (
            'Torch device for distances between cells, such as "cuda"; "auto" uses a GPU if there is one. By default that of\n'
            "``pf.settings``, or else the CPU."
        ),
        "seed": "Random seed.",
    }
)


@of_scores
def score_cells(
    predicted: Mapping[str, Mapping[str, Cells | pd.DataFrame]],
    real: Mapping[str, Cells | pd.DataFrame],
    control: Cells | pd.DataFrame,
    *,
    metrics: str | Sequence[str] = "default",
    n_cells: int | None = None,
    targets: Mapping[str, NDArray[np.bool_]] | None = None,
    device: str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Score predicted cells of one context against real cells, beside the control cells and the ceiling.

    Parameters
    ----------
    predicted
        Cells (n, G) by model and perturbation, log1p-normalised: an array, a sparse matrix or a table whose columns are
        genes. A model may lack perturbations.
    real
        Real cells (m, G) by perturbation.
    control
        Control cells (c, G).
    targets
        Genes that a perturbation acts on itself (G,) by perturbation, for metrics that leave them out.

    Returns
    -------
    One row per perturbation, model and metric: ``split`` ("all"), ``perturbation``, ``model``, ``metric``, ``value`` and ``n_cells``. Control
    cells as a prediction are the model "control cells", halves of the real cells the model "ceiling".

    Raises
    ------
    TypeError
        If cells are not given by model and perturbation.
    ValueError
        If genes disagree, targets are of something else, there are fewer than four cells of anything, a model has a name of a bound, or predicts what has
        no real cells.

    Examples
    --------
    >>> import perturbflow as pf
    >>> rng = np.random.default_rng(0)
    >>> control = rng.poisson(1.0, (60, 5))
    >>> real = {"A": rng.poisson(3.0, (50, 5))}
    >>> scores = pf.evaluation.score_cells({"mine": {"A": control + 2}}, real, control, metrics=["energy_distance"])
    >>> value = scores.set_index("model")["value"]
    >>> bool(value["ceiling"] < value["mine"] < value["control cells"])
    True
    """
    _check_names(predicted, real, targets or {})
    names = list(real)
    sources = {("control", ""): control, **{("real", name): real[name] for name in names}}
    for model, by_name in predicted.items():
        sources |= {(model, name): cells for name, cells in by_name.items()}
    words = {source: _in_words(*source) for source in sources}
    arrays = aligned("genes", **{words[source]: cells for source, cells in sources.items()})
    found = {
        source: check_cells(cells, name=words[source], minimum=MIN_CELLS)
        for source, cells in zip(sources, arrays, strict=True)
    }
    check_same_genes(**{words[source]: cells for source, cells in found.items()})
    places = {name: place for place, name in enumerate(names)}
    observed, rows = _stacked([("", found["control", ""]), *((name, found["real", name]) for name in names)], places)
    conditions = [
        Condition(
            {"split": "all", "perturbation": name}, _dose(places, name), np.zeros(0, np.int64), rows[name], rows[""]
        )
        for name in names
    ]
    predictors: dict[str, Predictor] = {FLOOR: TheControls()}
    for model, by_name in predicted.items():
        given, _ = _stacked([(name, found[model, name]) for name in by_name], places)
        predictors[model] = GivenCells(given, n_cells=n_cells)
    masks = np.zeros((len(names), observed.n_genes), dtype=bool)
    for name, mask in (targets or {}).items():
        if np.shape(mask) != (observed.n_genes,):
            msg = f"Expected {observed.n_genes} genes in targets[{name!r}], found shape {np.shape(mask)}. Pass one boolean per gene."
            raise ValueError(msg)
        masks[places[name]] = mask
    settings = Settings(tuple(metrics_of(metrics)), n_cells, seed, device=device)
    return score_all(observed, conditions, predictors, baselines=(), settings=settings, targets=masks).scores


def _check_names(
    predicted: Mapping[str, Mapping[str, Any]], real: Mapping[str, Any], targets: Mapping[str, Any]
) -> None:
    check_type(real, Mapping, name="real", expected="a dictionary of cells by perturbation")
    check_type(predicted, Mapping, name="predicted", expected="a dictionary of models, each of cells by perturbation")
    for model, by_name in predicted.items():
        check_type(by_name, Mapping, name=f"predicted[{model!r}]", expected="a dictionary of cells by perturbation")
    check_type(targets, Mapping, name="targets", expected="a dictionary of genes by perturbation")
    unknown = sorted({*targets} - {*real})
    expected, hint = "targets only for perturbations with real cells", "Leave these out."
    check_none(unknown, expected, found="also ", which=" in `targets`", hint=hint)
    if not real:
        msg = "Expected real cells of at least one perturbation in `real`, found none."
        raise ValueError(msg)
    taken = sorted({FLOOR, CEILING, DUPLICATE, "control", "real"} & {*predicted})
    check_none(taken, "other names for models than those of the bounds", which=" in `predicted`", hint="Rename them.")
    for model, by_name in predicted.items():
        expected = f"only perturbations with real cells in predicted[{model!r}]"
        check_none(sorted({*by_name} - {*real}), expected, found="also ", hint=hint)
        if not by_name:
            msg = (
                f"Expected cells of at least one perturbation in predicted[{model!r}], found none. Leave the model out."
            )
            raise ValueError(msg)


def _in_words(source: str, name: str) -> str:
    """Return what messages call some cells."""
    if source in {"control", "real"}:
        return f"real[{name!r}]" if name else "control"
    return f"predicted[{source!r}][{name!r}]"


def _dose(places: Mapping[str, int], name: str) -> NDArray[np.float32]:
    return (np.arange(len(places)) == places[name]).astype(np.float32)


def _stacked(
    parts: Sequence[tuple[str, Any]], places: Mapping[str, int]
) -> tuple[CellData, dict[str, NDArray[np.intp]]]:
    """Cells of several perturbations one after another, "" for controls, and the rows of each."""
    ends = np.cumsum([0, *(cells.shape[0] for _, cells in parts)])
    rows = {name: np.arange(*ends[k : k + 2]) for k, (name, _) in enumerate(parts)}
    doses = [
        np.tile(_dose(places, name) if name else np.zeros(len(places), np.float32), (cells.shape[0], 1))
        for name, cells in parts
    ]
    blocks = [cells for _, cells in parts]
    x = np.concatenate(blocks) if all(isinstance(one, np.ndarray) for one in blocks) else sparse.vstack(blocks, "csr")
    return CellData(x, sparse.csr_matrix(np.concatenate(doses)), np.zeros((ends[-1], 0), dtype=np.int64)), rows


@of_scores
def score_samplers(
    cells: CellData,
    conditions: Sequence[Condition],
    samplers: Mapping[str, Any],
    *,
    metrics: str | Sequence[str] = "default",
    n_cells: int | None = 500,
    targets: NDArray[np.bool_] | None = None,
    n_jobs: int = 1,
    device: str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Score samplers, and the ceiling, on every condition, as :func:`perturbflow.tl.evaluate` does.

    Parameters
    ----------
    cells
        Observed cells.
    conditions
        What to judge, such as :func:`judged_conditions` returns.
    samplers
        Fitted models by name, with the method ``sample`` of :class:`perturbflow.baselines.Sampler`.
    targets
        Genes that every perturbation component acts on itself (P, G), for metrics that leave them out; none by default.
    n_jobs
        Conditions side by side; -1 for all processors.

    Returns
    -------
    One row per condition, model and metric: the labels of the condition, ``model``, ``metric``, ``value`` and ``n_cells``.
    The real cells against themselves are the model "ceiling".

    Raises
    ------
    ValueError
        If a metric is unknown, there is no condition, or a model returns cells of another shape.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=20, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> pf.pp.split_perturbations(adata, task="combination", test_fraction=0.5)
    >>> cells, conditions = pf.evaluation.registered_cells(adata), pf.evaluation.judged_conditions(adata, splits="test")
    >>> training = cells.subset(adata.obs["split"] == "train")
    >>> samplers = pf.evaluation.fitted_baselines(["control cells", "additive effect"], training)
    >>> scores = pf.evaluation.score_samplers(cells, conditions, samplers, metrics=["energy_distance"])
    >>> mean = scores.groupby("model")["value"].mean()
    >>> bool(mean["additive effect"] < mean["control cells"])
    True
    """
    if not conditions:
        msg = "Expected at least one condition to evaluate, found none. Lower `min_cells`, or choose other splits."
        raise ValueError(msg)
    settings = Settings(tuple(metrics_of(metrics)), n_cells, seed, n_jobs=n_jobs, device=device)
    if targets is None:
        targets = np.zeros((cells.perturbations.shape[1], cells.n_genes), dtype=bool)
    predictors = {name: asked(name, sampler) for name, sampler in samplers.items()}
    return score_all(cells, conditions, predictors, baselines=(), settings=settings, targets=targets).scores

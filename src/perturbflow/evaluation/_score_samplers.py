"""Scores of models that predict from control cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from perturbflow.evaluation._metrics import metrics_of
from perturbflow.evaluation._predictors import asked
from perturbflow.evaluation._scores import Settings, score_all

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from perturbflow.evaluation._conditions import Condition
    from perturbflow.flow import CellData


def score_samplers(
    cells: CellData,
    conditions: Sequence[Condition],
    samplers: Mapping[str, Any],
    *,
    metrics: str | Sequence[str] = "default",
    n_cells: int | None = 500,
    targets: NDArray[np.bool_] | None = None,
    n_jobs: int = 1,
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
    metrics
        A suite of ``perturbflow.metrics.SUITES`` or names from ``perturbflow.metrics.METRICS``. Those with one value for a
        whole split are left out.
    n_cells
        Compare at most this many cells of a condition and of the controls; None for all.
    targets
        Genes that every perturbation component acts on itself (P, G), for metrics that leave them out; none by default.
    n_jobs
        Conditions side by side; -1 for all processors.
    seed
        Seed of all draws.

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
        msg = "Expected at least one condition to judge, found none. Lower `min_cells`, or name other splits."
        raise ValueError(msg)
    settings = Settings(
        metrics=tuple(metrics_of(metrics)),
        n_cells=n_cells,
        n_resamples=1,
        n_permutations=0,
        seed=seed,
        progress_bar=False,
        n_jobs=n_jobs,
    )
    if targets is None:
        targets = np.zeros((cells.perturbations.shape[1], cells.n_genes), dtype=bool)
    predictors = {name: asked(name, sampler) for name, sampler in samplers.items()}
    return score_all(cells, conditions, predictors, baselines=(), settings=settings, targets=targets).scores

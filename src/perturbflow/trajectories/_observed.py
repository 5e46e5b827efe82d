"""New trajectories of which a part was observed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from perturbflow._checks import check_genes_of_fit, check_key, check_type
from perturbflow.dynamics import Observed
from perturbflow.trajectories._fields import (
    clamped_genes,
    finite_expression,
    mean_of_groups,
    time_column,
    trajectory_groups,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perturbflow.trajectories._fields import DynamicsFields


def observed_of(observed: object, fields: DynamicsFields, genes: Sequence[str]) -> list[Observed]:
    """Collect the cells of every new trajectory along time.

    Parameters
    ----------
    observed
        New cells, an AnnData with the columns that were registered for the fit.
    fields
        Where to look.
    genes
        Genes of the fit.

    Returns
    -------
    One observation for every pair of a trajectory and a perturbation, of one time or more; cells of equal time are
    averaged.

    Raises
    ------
    KeyError
        If a column, the layer or a gene is missing.
    TypeError
        If it is no AnnData, or the expression no matrix of numbers.
    ValueError
        If there are no cells, or times or expression are not finite.
    """
    from anndata import AnnData

    check_type(observed, AnnData, name="observed", expected="an AnnData of new cells")
    assert isinstance(observed, AnnData)
    check_genes_of_fit(genes, observed.var_names, where="observed.var_names")
    if not observed.n_obs:
        msg = "Expected cells in `observed`, found none. Pass at least one cell of every new trajectory."
        raise ValueError(msg)
    cells = observed[:, list(genes)]
    fields = replace(fields, has_prior=False)
    for key in (fields.time_key, fields.trajectory_key):
        if key is not None:
            check_key(key, cells.obs.columns, where="observed.obs", hint="Name the columns as in the cells of the fit.")
    fields.check_present(cells, fields.time_key, fields.trajectory_key)
    x = finite_expression(cells, fields.layer)
    time = time_column(cells, fields.time_key)
    groups, codes = trajectory_groups(cells, fields)
    clamped = clamped_genes(cells, groups["perturbation"].tolist(), fields)
    rows = pd.DataFrame({"group": codes, "time": time}).groupby(["group", "time"], sort=True).ngroup().to_numpy()
    _, first = np.unique(rows, return_index=True)
    values = mean_of_groups(x, rows, n_groups=len(first))
    return [
        Observed(name=name, time=time[first[mine]], levels=values[mine], clamped=clamped[number])
        for number, name in enumerate(groups["name"])
        for mine in [codes[first] == number]
    ]

"""Solve fitted dynamics along and beyond the observed time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from perturbflow._checks import check_whole_number
from perturbflow.predict._dynamics_store import read_dynamics
from perturbflow.predict._solutions import check_until, new_starts, warn_beyond
from perturbflow.predict._torch_state import usual_torch
from perturbflow.screen._fields import writable
from perturbflow.screen._modality import takes_modality
from perturbflow.store._keys import check_key_added

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


@takes_modality
@usual_torch()
def forecast(
    adata: AnnData | MuData,
    *,
    until: float | None = None,
    n_times: int = 100,
    start: ArrayLike | None = None,
    start_names: list[str] | None = None,
    key: str = "dynamics",
    key_added: str = "forecast",
    modality: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Predict the levels of all genes along every trajectory and beyond, or from new initial cells.

    Parameters
    ----------
    adata
        Cells with fitted dynamics (:func:`perturbflow.tl.fit_dynamics`).
    until
        Time up to which to solve; a quarter beyond the observed time by default.
    n_times
        Number of times, evenly spaced from the first observed one.
    start
        Levels of new initial cells at the first time, shape (K, d) or (d,): a table of pandas, whose columns or index
        name the genes in any order, or an array in the order of ``adata.var_names``. By default the trajectories of the
        fit, from the starts that were learned with it.
    start_names
        Names of the new starts; "start 0", "start 1", ... by default. Not used without ``start``.
    key
        The dynamics in ``adata.uns``.
    key_added
        Where the forecast goes in ``adata.uns``.
    modality
        Modality of a MuData that is meant; results are written into it.
    copy
        Return a copy of ``adata`` instead of writing into it.

    Returns
    -------
    None, or the copy with the entry

    `adata.uns["forecast" | key_added]` : dict
        ``time`` (n,), ``trajectories`` (K,), ``values`` (K, n, d), ``genes`` (d,) and ``observed_until`` (K,), the time
        after which a trajectory is a forecast. Values before the first observed time of a trajectory are NaN.

    Raises
    ------
    KeyError
        If there are no fitted dynamics.
    ValueError
        If ``until`` is before the observed time begins, ``start`` has another number of genes or is not finite, or
        ``key_added`` names something else than an earlier forecast.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.hill_network(n_genes=5, n_trajectories=6, n_times=20)
    >>> pf.pp.setup_dynamics(adata, time_key="time", trajectory_key="trajectory")
    >>> pf.tl.fit_dynamics(adata, effort=0.02, progress_bar=False)
    >>> pf.tl.forecast(adata, until=4.0, n_times=41)
    >>> adata.uns["forecast"]["values"].shape
    (6, 41, 5)
    """
    check_key_added(adata, key_added, "forecast")
    check_whole_number(n_times, name="n_times", least=2)
    stored = read_dynamics(adata, key)
    model = stored.model
    first, last = float(model.span[:, 0].min()), float(model.span[:, 1].max())
    end = check_until(until, first=first, last=last)
    time = np.linspace(first, end, n_times)
    entry: dict[str, Any] = {"time": time, "genes": np.array(stored.genes, dtype=object)}
    if start is None:
        values = np.full((len(model.names), n_times, len(stored.genes)), np.nan, dtype=np.float32)
        for begin in np.unique(model.span[:, 0]):
            rows, late = model.span[:, 0] == begin, time >= begin
            grid = np.concatenate([[begin], time[late]])
            solved = model.solve(model.start[rows], grid, clamped=model.clamped[rows])
            values[np.ix_(rows, late)] = solved[:, 1:]
        names, observed = list(model.names), model.span[:, 1]
    else:
        levels, names = new_starts(adata, stored, start, start_names)
        values = model.solve(model.state(levels), time).astype(np.float32)
        observed = np.full(len(names), first)
    warn_beyond(stored, values)
    entry |= {"trajectories": np.array(names, dtype=object), "values": values, "observed_until": observed}
    adata = writable(adata, copy=copy)
    adata.uns[key_added] = entry
    return adata if copy else None

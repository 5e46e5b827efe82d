"""Solve fitted dynamics along and beyond the observed time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from perturbflow._checks import check_whole_number
from perturbflow.predict._dynamics_store import read_dynamics
from perturbflow.predict._solutions import fitted_solutions, new_solutions, observed_solutions
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
    observed: AnnData | None = None,
    key: str = "dynamics",
    key_added: str = "forecast",
    modality: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    r"""Predict the levels of all genes along every trajectory and beyond, from new initial cells, or on from observed ones.

    Of new trajectories a first part may have been observed, at many times or at one (``observed``). Each is then placed
    along the solutions of the fit: :math:`x(t) = z(s + \tau t) + g(t)`, with the place s and the tempo :math:`\tau` that
    its observed part tells, and deviations g of which that part tells how large they are: a static offset, a readout of the
    state z of its own, and what passes. The limits are the solution as it is, and a trajectory that repeats itself. How far
    trajectories are from solutions, and how much their tempos differ, is measured on the trajectories of the fit.

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
    observed
        Cells of new trajectories, with the columns that were registered for the fit and the same genes in any order. The
        cells of the fit have to be in ``adata`` then. Not with ``start``.
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
        after which a trajectory is a forecast. With ``observed`` the trajectories are the new ones. Values before the first observed time of a trajectory are NaN.

    Raises
    ------
    KeyError
        If there are no fitted dynamics, or ``observed`` lacks a gene or a registered column.
    TypeError
        If ``observed`` is no AnnData.
    ValueError
        If ``until`` is before the observed time begins, ``start`` has another number of genes or is not finite,
        ``observed`` has no cells, ``adata`` lacks trajectories of the fit, both ``start`` and ``observed`` are given, or
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

    A trajectory of which the first five times are known:

    >>> new = pf.datasets.hill_network(n_genes=5, n_trajectories=7, n_times=20)
    >>> new = new[(new.obs["trajectory"] == "6") & (new.obs["time"] < 0.5)].copy()
    >>> pf.tl.forecast(adata, observed=new, until=2.0, n_times=21)
    >>> adata.uns["forecast"]["values"].shape, adata.uns["forecast"]["observed_until"].round(1).tolist()
    ((1, 21, 5), [0.4])
    """
    check_key_added(adata, key_added, "forecast")
    check_whole_number(n_times, name="n_times", least=2)
    stored = read_dynamics(adata, key)
    if observed is not None:
        if start is not None:
            msg = "Expected `start` or `observed`, found both. Levels at the first time may be cells of `observed`."
            raise ValueError(msg)
        entry = observed_solutions(adata, stored, observed, until=until, n_times=n_times)
    elif start is not None:
        entry = new_solutions(adata, stored, start, start_names, until=until, n_times=n_times)
    else:
        entry = fitted_solutions(stored, until=until, n_times=n_times)
    adata = writable(adata, copy=copy)
    adata.uns[key_added] = entry
    return adata if copy else None

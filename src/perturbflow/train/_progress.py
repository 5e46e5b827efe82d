"""Progress bars, also in notebooks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from joblib import Parallel

if TYPE_CHECKING:
    from tqdm import tqdm


def progress_bar(what: str, *, unit: str, total: int, initial: int = 0, show: bool = True) -> tqdm:
    """Return a bar that counts steps; one that is not shown says nothing at all.

    Parameters
    ----------
    what
        What is going on.
    unit
        What is counted.
    total
        How many there are.
    initial
        How many are done.
    show
        Whether the bar is drawn.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that notebooks lack ipywidgets: the bar is drawn in text then
        from tqdm.auto import tqdm

    return tqdm(desc=what, unit=unit, total=total, initial=initial, disable=not show)


def side_by_side(
    jobs: Iterable[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]],
    what: str,
    *,
    unit: str,
    total: int,
    n_jobs: int,
    show: bool,
) -> list[Any]:
    """Return the results of jobs in their order, with a bar that counts those that are done.

    Parameters
    ----------
    jobs
        What ``joblib.delayed`` makes.
    what, unit, total, show
        As of :func:`progress_bar`.
    n_jobs
        Jobs side by side, as in joblib.
    """
    results = []
    with progress_bar(what, unit=unit, total=total, show=show) as bar:
        for result in Parallel(n_jobs=n_jobs, return_as="generator")(jobs):
            results.append(result)
            bar.update()
    return results

"""Progress of what can be counted, and of jobs side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from joblib import Parallel

from perturbflow._progress import progress

if TYPE_CHECKING:
    from perturbflow._progress import Progress


@contextmanager
def progress_bar(what: str, *, unit: str, total: int, initial: int = 0, show: bool = True) -> Iterator[Progress]:
    """Begin a stage that counts something, ``initial`` of it done, within what is going on or, if shown, by itself."""
    with progress(what, show=show) as bar:
        bar.stage(what, unit=unit, total=total, initial=initial)
        yield bar


def side_by_side(
    jobs: Iterable[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]],
    what: str,
    *,
    unit: str,
    total: int,
    n_jobs: int,
    show: bool,
) -> list[Any]:
    """Return the results of what ``joblib.delayed`` makes, in order, with a bar that counts those that are done."""
    results = []
    with progress_bar(what, unit=unit, total=total, show=show) as bar:
        for result in Parallel(n_jobs=n_jobs, return_as="generator")(jobs):
            results.append(result)
            bar.update()
    return results

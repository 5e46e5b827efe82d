"""Work side by side, with the results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from joblib import effective_n_jobs
from threadpoolctl import threadpool_limits

InOrder = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]
"""Maps a function over tasks; results come in the order of the tasks."""


@contextmanager
def jobs(n_jobs: int) -> Iterator[InOrder]:
    """Threads, each with one core for its products of matrices.

    Tasks are made one after another by the thread that asks for results, and only a few more than there are jobs are
    waiting: what is random or needs memory belongs there.
    """
    n_threads = effective_n_jobs(n_jobs)
    if n_threads == 1:
        yield map
        return

    def in_order(function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        waiting: deque[Future[Any]] = deque()
        for task in tasks:
            waiting.append(pool.submit(function, task))
            if len(waiting) > n_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(n_threads) as pool:
        yield in_order

"""Number of threads of a computation in torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def spare_core() -> Iterator[None]:
    """Leave one core to others; also a decorator.

    Torch takes all cores, and the threads of an operation wait for the last. Where another process has one of the cores, a step
    of a fit waits hundreds of times until it gets its share: on two cores, one of them busy, it took 524 ms instead of
    30 ms with one thread, which on idle cores costs 10 ms. A number of threads that was chosen in ``OMP_NUM_THREADS`` is
    left alone, and never is it raised.
    """
    if "OMP_NUM_THREADS" in os.environ:
        yield
        return
    import torch  # here, because it takes seconds to load
    from joblib import cpu_count

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, cpu_count() - 1)))  # joblib counts what a container may use
    try:
        yield
    finally:
        torch.set_num_threads(before)

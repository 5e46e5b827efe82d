"""The state of torch that computations rest on, whatever other code has set, and its number of threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


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


@contextmanager
def usual_torch() -> Iterator[None]:
    """Compute with torch as it is when it is loaded, and leave one core to others; also a decorator.

    A notebook may have set another default type or device, or be within ``no_grad``, ``inference_mode`` or ``autocast``:
    fits would then have no gradients, and the same seed other numbers. All of it is again as it was afterwards.
    """
    import torch  # here, because it takes seconds to load

    with ExitStack() as stack:
        stack.enter_context(spare_core())
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        stack.enter_context(torch.inference_mode(mode=False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":  # a default device costs time at every operation
            stack.enter_context(torch.device("cpu"))
        yield

"""Torch as computations need it: its state, whatever other code has set, its threads, and the device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from perturbflow._settings import settings

if TYPE_CHECKING:
    import torch

    from perturbflow.predict._fitted_flow import FittedFlow


@contextmanager
def spare_core() -> Iterator[None]:
    """Leave one core to others; also a decorator.

    The threads of an operation wait for the last: with one of two cores busy a step of a fit took 524 ms instead of 30 ms with
    one thread. A number of threads chosen in ``OMP_NUM_THREADS`` is left alone, and never is it raised.
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
    """Compute with torch as it is when it is loaded, whatever a notebook has set; also a decorator."""
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


def device_of(name: str, *, argument: str = "device") -> torch.device:
    """Find a device of torch, such as "cuda:1"; "gpu" stands for "cuda", and "auto" takes a GPU where there is one."""
    import torch

    found = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    try:
        return torch.empty(0, device="cuda" if found == "gpu" else found).device
    except (RuntimeError, AssertionError, TypeError) as error:  # torch asserts that it was built for the device
        msg = f"Expected `{argument}` to be 'auto' or an available torch device, found {name!r} ({error}). Use 'cpu'."
        raise ValueError(msg) from error


def gpu_of(name: str | None) -> torch.device | None:
    """Find the GPU that a device names, by default that of the settings, for work that NumPy does without one.

    None for the CPU, and for devices without numbers of 64 bits.
    """
    name = settings.device if name is None else name
    found = None if name in {None, "cpu"} else device_of(str(name))
    return found if found is not None and found.type == "cuda" else None


def is_first_process() -> bool:
    """Return whether this process is alone, or the first of those that share a fit: the one that writes files."""
    from torch import distributed

    is_shared = distributed.is_available() and distributed.is_initialized()
    return not is_shared or distributed.get_rank() == 0


def moved(fitted: FittedFlow, device: str | None) -> FittedFlow:
    """Move the network of a flow to a device, in place: by default that of the settings, or else the CPU."""
    fitted.flow.to(device_of((settings.device or "cpu") if device is None else device))
    return fitted

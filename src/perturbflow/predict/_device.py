"""On which device of torch the network of a flow computes, and which of several processes writes files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perturbflow._settings import settings

if TYPE_CHECKING:
    import torch

    from perturbflow.predict._fitted_flow import FittedFlow


def device_of(name: str, *, argument: str = "device") -> torch.device:
    """Find a device of torch, such as "cuda:1"; "gpu" stands for "cuda", and "auto" takes a GPU where there is one."""
    import torch

    found = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    try:
        return torch.empty(0, device="cuda" if found == "gpu" else found).device
    except (RuntimeError, AssertionError, TypeError) as error:  # torch asserts that it was built for the device
        msg = f"Expected `{argument}` to be 'auto' or a torch device that is present, found {name!r} ({error}). Use 'cpu'."
        raise ValueError(msg) from error


def is_first_process() -> bool:
    """Return whether this process is alone, or the first of those that share a fit: the one that writes files."""
    from torch import distributed

    is_shared = distributed.is_available() and distributed.is_initialized()
    return not is_shared or distributed.get_rank() == 0


def moved(fitted: FittedFlow, device: str | None) -> FittedFlow:
    """Move the network of a flow to a device, in place: by default that of the settings, or else the CPU."""
    fitted.flow.to(device_of((settings.device or "cpu") if device is None else device))
    return fitted

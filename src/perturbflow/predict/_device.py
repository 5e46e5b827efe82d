"""On which device of torch the network of a flow computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perturbflow.predict._fitted_flow import FittedFlow


def moved(fitted: FittedFlow, device: str) -> FittedFlow:
    """Move the network of a flow to a device, in place.

    Parameters
    ----------
    fitted
        The fitted flow.
    device
        A device of torch, such as "cuda" or "cuda:1"; "auto" takes a GPU where there is one.

    Returns
    -------
    The flow.

    Raises
    ------
    ValueError
        If there is no such device.
    """
    import torch

    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, TypeError) as error:  # torch asserts that it was built for the device
        msg = (
            f"Expected `device` to be 'auto' or a torch device that is present, found {device!r} ({error}). Use 'cpu'."
        )
        raise ValueError(msg) from error
    fitted.flow.to(name)
    return fitted

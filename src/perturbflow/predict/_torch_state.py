"""The state of torch that computations rest on, whatever other code has set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from perturbflow.predict._threads import spare_core


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

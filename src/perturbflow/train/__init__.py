"""Fitting both halves: training, validation, checkpoints and choices.

What benchmarks and extensions use of it is imported when it is first asked for.
"""

from importlib import import_module
from typing import Any

_MODULES = {
    "BUFFER": "_flow_plan",
    "PRESETS": "_flow_options",
    "AveragedWeights": "_callbacks",
    "Checkpoint": "_checkpoint",
    "FlowOptions": "_flow_options",
    "HeldOutConditions": "_validation",
    "Windows": "_flow_plan",
    "identity": "_fit_dynamics",
    "inherited_options": "_transfer",
    "train_flow": "_train_flow",
    "transfer_weights": "_transfer",
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)

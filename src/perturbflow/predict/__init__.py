"""Fitted models as plain values, and what is predicted with them.

What benchmarks and extensions use of it is imported when it is first asked for.
"""

from importlib import import_module
from typing import Any

_MODULES = {
    "HillPosterior": "_dose_curves",
    "Pair": "_interaction_fit",
    "hill": "_dose_curves",
    "interaction_fit": "_interaction_fit",
    "read_dynamics": "_dynamics_store",
    "read_flow": "_fitted_flow",
    "write_flow": "_fitted_flow",
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)

"""A screen in an AnnData: registered fields, labels, conditions, contexts, split and scale.

What benchmarks and extensions use of it is imported when it is first asked for.
"""

from importlib import import_module
from typing import Any

_MODULES = {
    "Expression": "_expression",
    "PerturbationFields": "_fields",
    "read_fields": "_fields",
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)

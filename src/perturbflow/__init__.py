"""Predict perturbed single cells with flow matching, and which gene drives which with sparse neural ODEs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    from perturbflow import baselines, datasets, dynamics, evaluation, flow, metrics, models, pl, pp, tl

__all__ = ["baselines", "datasets", "dynamics", "evaluation", "flow", "metrics", "models", "pl", "pp", "tl"]


def __getattr__(name: str) -> ModuleType:
    """Import a submodule when it is first used: torch and scvi-tools take seconds to load."""
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

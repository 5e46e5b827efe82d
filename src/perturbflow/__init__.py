"""Predict perturbed single cells with flow matching, and which gene drives which with sparse neural ODEs."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perturbflow import baselines, datasets, dynamics, evaluation, flow, metrics, models, pl, pp, tl
    from perturbflow._settings import settings

    __version__: str

__all__ = ["baselines", "datasets", "dynamics", "evaluation", "flow", "metrics", "models", "pl", "pp", "settings", "tl"]


def __getattr__(name: str) -> object:
    """Import a submodule when it is first used: torch and scvi-tools take seconds to load."""
    if name == "__version__":
        return version("perturbflow")
    if name == "settings":
        return import_module(f"{__name__}._settings").settings
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})

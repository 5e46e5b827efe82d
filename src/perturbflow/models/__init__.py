"""Models: fitting, and the scvi-tools classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perturbflow._fitted_flow import FittedFlow
from perturbflow.models._fit import fit

if TYPE_CHECKING:
    from perturbflow.models._primeflow import PRiMeFlow

__all__ = ["FittedFlow", "PRiMeFlow", "fit"]


def __getattr__(name: str) -> object:
    # scvi-tools takes seconds to import, and only the class needs it.
    if name == "PRiMeFlow":
        from perturbflow.models._primeflow import PRiMeFlow

        return PRiMeFlow
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)

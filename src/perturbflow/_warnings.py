"""Warnings that point at the line of the user."""

from __future__ import annotations

import inspect
import warnings

_NOT_OF_THE_USER = {__name__.partition(".")[0], "contextlib"}  # which calls what a context manager decorates


def warn(message: str) -> None:
    """Issue a UserWarning at the nearest line outside this package, however deep the call is."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _NOT_OF_THE_USER:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)

"""What tests and examples have in common, before any of them is collected."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np
import pytest

# Modules that need a package of an extra are left out where it is not installed.
collect_ignore = [] if find_spec("annbatch") else ["src/perturbflow/screen/_annbatch_rows.py"]

# What is imported stays until the end: looking through it again and again for garbage takes seconds in every process.
gc.disable()


def pytest_collection_finish() -> None:
    """Look for garbage from here on, among what the tests make."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _numpy_in_examples(doctest_namespace: dict[str, object]) -> None:
    doctest_namespace["np"] = np  # as numpydoc assumes


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")

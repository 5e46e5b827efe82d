"""Modules that need a package of an extra are left out where it is not installed."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore = [] if find_spec("annbatch") else ["src/perturbflow/screen/_annbatch_rows.py"]

"""Sparse neural ordinary differential equations, in pure torch."""

from __future__ import annotations

from perturbflow.dynamics._trajectory import Trajectory

__all__ = ["Trajectory"]

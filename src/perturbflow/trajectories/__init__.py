"""Cells along time in an AnnData: registered fields, and how they become trajectories."""

from perturbflow.trajectories._fields import DynamicsFields, read_dynamics_fields, trajectories_of

__all__ = ["DynamicsFields", "read_dynamics_fields", "trajectories_of"]

"""Cells along time in an AnnData: registered fields, and how they become trajectories."""

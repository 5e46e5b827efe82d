"""Fitting both halves: training, validation, checkpoints and choices."""

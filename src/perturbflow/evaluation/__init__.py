"""What `tl.evaluate` does: conditions, predictors, scores of a condition, of a context, tables, verdicts."""

"""A screen in an AnnData: registered fields, labels, conditions, contexts, split and scale."""

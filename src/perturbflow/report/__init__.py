"""Summaries of fits and evaluations, as text and as an HTML page."""

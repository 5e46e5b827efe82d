"""Sphinx configuration. The build treats warnings as errors (`make docs`)."""

from __future__ import annotations

from importlib.metadata import metadata

info = metadata("perturbflow")
project = info["Name"]
author = info["Author"]
release = version = info["Version"]
copyright = f"2026, {author}"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates"]
default_role = "literal"
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 2

html_theme = "sphinx_book_theme"
html_title = project

# `__all__` is what is public, wherever a name is defined.
autosummary_ignore_module_all = False
autosummary_imported_members = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = False
# Types stand in signatures: as its own kind of section, the text of `Returns` is not read as a type.
napoleon_custom_sections = ["Returns", "Yields"]

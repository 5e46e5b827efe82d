"""Sphinx configuration. The build treats warnings as errors (`make docs`) and needs no network."""

from __future__ import annotations

import os
import re
import shutil
import sys
from importlib import import_module
from importlib.metadata import metadata
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING

import nbformat
from docutils import nodes
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))  # what pages import, too

from _tutorial_cards import write_cards  # noqa: E402

logger = logging.getLogger(__name__)

info = metadata("perturbflow")
project = info["Name"]
author = info["Author"]
release = version = info["Version"]
copyright = f"2026, {author}"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates"]
default_role = "literal"
myst_enable_extensions = ["attrs_inline", "colon_fence", "dollarmath"]
myst_heading_anchors = 3

# Sphinx reads only below its own folder.
tutorials = DOCS / "tutorials"
tutorials.mkdir(exist_ok=True)
for old in set(tutorials.glob("*.ipynb")):
    old.unlink()
for notebook in sorted((DOCS.parent / "tutorials").glob("[0-9]_*.ipynb")):
    shutil.copy2(notebook, tutorials)
write_cards(tutorials)

# Tutorials are shown with the outputs that are in the repository; pages with code are run, and fail where it fails.
nb_execution_mode = "auto"
nb_execution_excludepatterns = ["tutorials/*"]
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_output_stderr = "remove"  # progress bars and warnings of libraries
nb_merge_streams = True
os.environ.pop("MPLBACKEND", None)  # figures belong into the pages
os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads that wait for each other make a busy machine slower
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(DOCS), os.environ.get("PYTHONPATH")]))

# The draft for the scverse list has the address of the project.
(repository,) = re.findall(r"^project_home: (\S+)$", (DOCS / "meta.yaml").read_text(encoding="utf-8"), re.MULTILINE)

html_theme = "sphinx_book_theme"
html_title = project
html_logo = html_favicon = "_static/logo.svg"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_copy_source = False
html_theme_options = {
    "home_page_in_toc": False,
    "icon_links": [{"name": "Repository", "url": repository, "icon": "fa-solid fa-code-branch"}],
    "logo": {"text": project, "alt_text": project},
    "navbar_persistent": [],
    "navigation_with_keys": False,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
}
copybutton_exclude = ".linenos, .gp, .go"

# `__all__` is what is public, wherever a name is defined.
autosummary_ignore_module_all = False
autosummary_imported_members = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
maximum_signature_line_length = 88
napoleon_google_docstring = False
# Types stand in signatures. In lists of fields "np.bool_" would be read as a link.
napoleon_attr_annotations = False
# As its own kind of section, the text of `Returns` is not read as a type.
napoleon_custom_sections = ["Returns", "Yields"]


def document_constant(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Take the text of a public constant from the private module that defines it, where autodoc does not look."""
    if what != "data":
        return
    package, _, constant = name.rpartition(".")
    names = [package, *(f"{package}.{module.name}" for module in iter_modules(import_module(package).__path__))]
    texts = [
        text for module in names if (text := ModuleAnalyzer.for_module(module).find_attr_docs().get(("", constant)))
    ]
    lines[:] = texts[0] if texts else []


def keep_values_together(app: Sphinx, doctree: nodes.document) -> None:
    """Put no-break spaces around ± and before % so that no line breaks within a value."""
    for text in list(doctree.findall(nodes.Text)):
        kept = text.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}").replace(" %", "\N{NO-BREAK SPACE}%")
        if kept != text:
            text.parent.replace(text, nodes.Text(kept))


def find_missing_figures(app: Sphinx, error: Exception | None) -> None:
    """Warn of cells of pages that call a plot, and show no figure."""
    for page in sorted((Path(app.outdir).parent / "jupyter_execute").glob("*.ipynb") if error is None else []):
        for cell in nbformat.read(page, as_version=4).cells:
            plots = cell.cell_type == "code" and re.search(r"^pf\.pl\.", cell.source, re.MULTILINE)
            if plots and not any("image/png" in output.get("data", {}) for output in cell.outputs):
                logger.warning("Expected a figure, found none, in %s.md after:\n%s", page.stem, cell.source)


def setup(app: Sphinx) -> None:
    """Register what this configuration adds to Sphinx."""
    app.connect("build-finished", find_missing_figures)
    app.connect("doctree-read", keep_values_together)
    app.connect("autodoc-process-docstring", document_constant)

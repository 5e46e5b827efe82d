"""A summary in plain language, and a report with tables and figures."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perturbflow._checks import check_text, check_type
from perturbflow._progress import count, shows_progress, stage
from perturbflow.report._dynamics_findings import dynamics_findings
from perturbflow.report._flow_findings import flow_findings
from perturbflow.report._summary import Figure, Findings, Summary, page
from perturbflow.screen._fields import FIELDS_KEY
from perturbflow.screen._modality import takes_modality
from perturbflow.store._keys import is_standing
from perturbflow.trajectories._fields import DYNAMICS_FIELDS_KEY

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

CELLS, DYNAMICS = "Perturbed cells", "Dynamics"
_DPI = 160
_SEEN_AT = 100  # pixels per inch on the page


@takes_modality
def summarise(
    adata: AnnData | MuData,
    *,
    key: str = "flow",
    evaluation_key: str = "evaluation",
    split_key: str = "split",
    dynamics_key: str = "dynamics",
    graph_key: str = "dynamics_graph",
    modality: str | None = None,
) -> Summary:
    """Summarise data, fits and evaluations in plain language, with suggested next steps.

    It can be called at any stage after registration, for perturbed cells, dynamics or both. Nothing is fitted, predicted
    or written.

    Parameters
    ----------
    adata
        Registered cells (:func:`perturbflow.pp.setup_perturbation`, :func:`perturbflow.pp.setup_dynamics`).
    key, evaluation_key, dynamics_key, graph_key
        Keys of the flow, the evaluation, the dynamics and the graph in ``adata.uns``.
    split_key
        Column of ``adata.obs`` with the split.

    Returns
    -------
    The summary, as text when printed and with a table in a notebook. ``parts`` has the findings about "Perturbed cells" and
    "Dynamics": ``asked``, ``found`` and ``not_measurable`` are sentences, ``next_steps`` pairs of a ``reason`` and a
    ``call``, and ``tables`` the underlying tables.

    Raises
    ------
    KeyError
        If nothing is registered.
    ValueError
        If a fit in ``adata.uns`` is damaged or not a fit.

    Notes
    -----
    The reported split is "test" or, failing that, "valid", if it was evaluated and not used in the fit. The arrow next to
    a metric points in the direction of better values. A model is called better or worse than the best baseline if the 95 %
    interval of the difference over conditions excludes 0. Baselines with identical scores share a column, and empty
    columns are left out.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> summary = pf.tl.summarise(adata)
    >>> print(summary)
    Perturbed cells
    ===============
    <BLANKLINE>
    Data and question
      - 6 perturbations (4 single, 2 combinations): 600 cells, of which 120 are controls, and 50 genes.
      - No condition is held out: all cells are training cells.
    <BLANKLINE>
    What remains unknown
      - The accuracy on unseen conditions: nothing is held out.
    <BLANKLINE>
    Next steps
      - Hold out conditions like those you want to predict:
          pf.pp.split_perturbations(adata, task='combination')
      - Fit a flow:
          pf.tl.fit_flow(adata)
    >>> summary.parts["Perturbed cells"].next_steps[1].call
    'pf.tl.fit_flow(adata)'
    """
    keys = {
        "key": key,
        "evaluation_key": evaluation_key,
        "split_key": split_key,
        "dynamics_key": dynamics_key,
        "graph_key": graph_key,
    }
    for name, value in keys.items():
        check_text(value, name=name)
    parts: dict[str, Findings] = {}
    if FIELDS_KEY in adata.uns:
        parts[CELLS] = flow_findings(adata, key=key, evaluation_key=evaluation_key, split_key=split_key)
    if DYNAMICS_FIELDS_KEY in adata.uns:
        parts[DYNAMICS] = dynamics_findings(adata, key=dynamics_key, graph_key=graph_key)
    if not parts:
        msg = (
            f"Expected registered cells, found neither {FIELDS_KEY!r} nor {DYNAMICS_FIELDS_KEY!r} in `adata.uns`. Run "
            "`pf.pp.setup_perturbation(adata, ...)` or `pf.pp.setup_dynamics(adata, ...)` first."
        )
        raise KeyError(msg)
    return Summary(parts)


@takes_modality
@shows_progress("report")
def report(
    adata: AnnData | MuData,
    path: str | Path,
    *,
    title: str = "perturbflow report",
    key: str = "flow",
    evaluation_key: str = "evaluation",
    split_key: str = "split",
    dynamics_key: str = "dynamics",
    graph_key: str = "dynamics_graph",
    progress_bar: bool = True,
    modality: str | None = None,
) -> Path:
    """Write the summary as a single HTML file, with tables and figures.

    The file is self-contained: it needs no other files and no internet connection.

    Parameters
    ----------
    adata
        Cells with a fit, an evaluation, dynamics or a graph.
    path
        File to write, ending in ".html"; an existing file is replaced.
    title
        Heading of the page.
    key, evaluation_key, split_key, dynamics_key, graph_key
        As for :func:`perturbflow.tl.summarise`.
    progress_bar
        Whether to show a progress bar.

    Returns
    -------
    The path of the file.

    Raises
    ------
    KeyError
        If nothing is registered.
    ValueError
        If nothing was fitted or evaluated, or ``path`` does not end in ".html".
    OSError
        If the file cannot be written; this is checked before figures are drawn.

    Examples
    --------
    >>> import perturbflow as pf
    >>> from tempfile import TemporaryDirectory
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> pf.tl.fit_flow(adata, preset="prior", progress_bar=False)
    >>> with TemporaryDirectory() as folder:
    ...     page = pf.tl.report(adata, f"{folder}/report.html", progress_bar=False).read_text()
    >>> "Findings" in page
    True
    """
    check_type(path, (str, Path), name="path", expected="the path of a file")
    path = Path(path)
    if path.suffix.lower() not in {".html", ".htm"}:
        msg = f"Expected `path` to end in '.html', found {str(path)!r}. Add the ending."
        raise ValueError(msg)
    stage("summary")
    summary = summarise(
        adata,
        key=key,
        evaluation_key=evaluation_key,
        split_key=split_key,
        dynamics_key=dynamics_key,
        graph_key=graph_key,
    )
    keys = {"key": key, "evaluation_key": f"{evaluation_key}_summary", "dynamics_key": dynamics_key}
    if not any(name in adata.uns for name in (*keys.values(), graph_key)):
        msg = (
            f"Expected a fit or an evaluation in `adata.uns`, found none of {[*keys.values(), graph_key]}. Run "
            "`pf.tl.fit_flow(adata)` or `pf.tl.fit_dynamics(adata)` first; `pf.tl.summarise` needs neither."
        )
        raise ValueError(msg)
    try:
        path.open("a").close()
    except OSError as error:
        msg = (
            f"Expected `path` to be a file that can be written, found {str(path)!r}: {error.strerror or error}. Choose "
            "another `path`, or create its directory first."
        )
        raise type(error)(msg) from error
    drawings = _drawings(adata, key=key, evaluation_key=evaluation_key, dynamics_key=dynamics_key, graph_key=graph_key)
    stage("figures", unit="figure", total=len(drawings))
    figures = []
    for (part, caption), draw in drawings.items():
        figures.append(_drawn(part, caption, draw))
        count()
    about = f"{adata.n_obs:,} cells and {adata.n_vars:,} genes. Arrows point in the direction of better values."
    path.write_text(page(title, about, summary, figures), encoding="utf-8")
    return path


def _drawings(
    adata: AnnData, *, key: str, evaluation_key: str, dynamics_key: str, graph_key: str
) -> dict[tuple[str, str], Callable[[], Axes]]:
    """Return the functions that draw the applicable figures, by part and caption."""
    from perturbflow import pl  # here, because it loads Matplotlib
    from perturbflow.predict._dynamics_store import read_edges
    from perturbflow.predict._fitted_flow import read_flow
    from perturbflow.report._evaluation_findings import EvaluationFindings

    found: dict[tuple[str, str], Callable[[], Any]] = {}
    if f"{evaluation_key}_summary" in adata.uns:
        judged = EvaluationFindings.of(adata, evaluation_key)
        where: Mapping[str, Any] = {"key": evaluation_key, "split": judged.split, "show": False}
        caption = f"All models and metrics, on the conditions of the split {judged.split!r}."
        found[CELLS, caption] = lambda: pl.leaderboard(adata, **where)
        if len(judged.verdicts) and (judged.verdicts["split"] == judged.split).any():
            caption = "Every condition: difference from the respective best baseline, with its interval."
            found[CELLS, caption] = lambda: pl.verdicts(adata, **where)
    if key in adata.uns and len(read_flow(adata, key).history.get("step", ())):
        found[CELLS, "Training: loss, and error on validation conditions."] = lambda: pl.training(
            adata, key=key, show=False
        )
    if dynamics_key in adata.uns and not is_standing(adata.uns[dynamics_key]):
        caption = "Error and number of edges by penalty strength."
        found[DYNAMICS, caption] = lambda: pl.sparsity_path(adata, key=dynamics_key, show=False)
    if graph_key in adata.uns and len(read_edges(adata, graph_key)):
        caption = "The graph: which gene drives which."
        found[DYNAMICS, caption] = lambda: pl.dynamics_graph(adata, key=graph_key, show=False)
    return found


def _drawn(part: str, caption: str, draw: Callable[[], Axes]) -> Figure:
    """Draw a figure and close it."""
    import matplotlib.pyplot as plt

    figure: Any = draw().figure
    try:
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=_DPI, bbox_inches="tight", facecolor="white")
    finally:
        plt.close(figure)
    png = file.getvalue()
    width = int.from_bytes(png[16:20], "big")  # as the header of the file says
    return Figure(part, caption, png, width=round(width * _SEEN_AT / _DPI))

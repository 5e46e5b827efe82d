"""The arguments `show` and `save` of every plot."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from perturbflow._docs import shares
from perturbflow._settings import settings
from perturbflow.screen._modality import takes_modality

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

Plot = TypeVar("Plot", bound=Callable[..., Any])

FORMAT = "pdf"
PARAMETERS = {
    "ax": "Axes to draw on; those of a new figure if None.",
    "show": "Show the figure.",
    "save": (
        "Save the figure in ``pf.settings.figdir``: True, or what to append to the name of the plot, such as\n"
        '``"_first.png"``.'
    ),
}


def shown_and_saved(plot: Plot) -> Plot:
    """Let a plot show and save its figure, by its keyword-only arguments ``show`` and ``save``.

    The plot itself sees neither of them. A file is ``<plot><save>.pdf`` in the figure directory, as in scanpy; a new
    figure that is saved is closed, so that loops do not fill the memory.
    """

    @wraps(plot)
    def wrapper(
        *arguments: Any, show: bool | None = None, save: bool | str | None = None, **options: Any
    ) -> Axes | Figure | NDArray[np.object_]:
        path = None if save is None or save is False else _path(plot.__name__, save)
        drawn = plot(*arguments, **options)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            _figure_of(drawn).savefig(path, bbox_inches="tight")
        if show:
            plt.show()
        if path is not None and options.get("ax") is None:
            plt.close(_figure_of(drawn))
        return drawn

    return shares(PARAMETERS, returns="The Axes.")(cast("Plot", wrapper))


def plot(function: Plot) -> Plot:
    """Decorator of every plot: it is shown and saved, and takes a MuData."""
    return takes_modality(shown_and_saved(function))


def _path(name: str, save: bool | str) -> Path:
    """Return the file of a plot; ValueError if ``save`` names a folder or is no text."""
    if save is True:
        save = ""
    if not isinstance(save, str) or "/" in save or "\\" in save:
        msg = (
            f"Expected `save` to be True or the end of a file name, such as '_first.png', found {save!r}. "
            "Files go to `pf.settings.figdir`; elsewhere with `ax.figure.savefig(path)`."
        )
        raise ValueError(msg)
    known = save.rpartition(".")[2].lower() in Figure().canvas.get_supported_filetypes()
    return Path(settings.figdir) / f"{name}{save}{'' if known and '.' in save else f'.{FORMAT}'}"


def _figure_of(drawn: Axes | Figure | NDArray[np.object_]) -> Figure:
    """Return the figure of what a plot returns: Axes, an array of them, or the figure itself."""
    if isinstance(drawn, Figure):
        return drawn
    ax = cast("Axes", np.atleast_1d(np.asarray(drawn, dtype=object))[0])
    return cast("Figure", ax.get_figure(root=True))

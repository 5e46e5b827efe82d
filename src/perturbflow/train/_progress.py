"""Progress bars, also in notebooks."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm


def progress_bar(what: str, *, unit: str, total: int, initial: int = 0, show: bool = True) -> tqdm:
    """Return a bar that counts steps; one that is not shown says nothing at all.

    Parameters
    ----------
    what
        What is going on.
    unit
        What is counted.
    total
        How many there are.
    initial
        How many are done.
    show
        Whether the bar is drawn.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that notebooks lack ipywidgets: the bar is drawn in text then
        from tqdm.auto import tqdm

    return tqdm(desc=what, unit=unit, total=total, initial=initial, disable=not show)

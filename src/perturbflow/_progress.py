"""One progress bar a call, with named stages; lines in a log where nobody sees a bar."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from inspect import signature
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from joblib import Parallel

from perturbflow._settings import settings

if TYPE_CHECKING:
    from tqdm import tqdm

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 1.0
_CLOCK = "{desc}[{elapsed}{postfix}]"  # of a stage of which nobody knows how long it is
_OPEN: ContextVar[Progress | None] = ContextVar("open progress", default=None)


@contextmanager
def progress(title: str, *, show: bool = True) -> Iterator[Progress]:
    """Open the progress of a call, with a bar if it may ``show`` one; what is opened within becomes stages of it."""
    outer = _OPEN.get()
    if outer is not None:
        yield outer
        return
    own = Progress(title, is_drawn=show and settings.progress_bars and is_watched())
    token = _OPEN.set(own)
    try:
        yield own
    finally:
        _OPEN.reset(token)
        own.close()


def shows_progress(title: str) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Return a decorator that opens the progress of every call of a function, as its argument ``progress_bar`` says."""

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        default = signature(function).parameters["progress_bar"].default

        @wraps(function)
        def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            with progress(title, show=bool(kwargs.get("progress_bar", default))):
                return function(*args, **kwargs)

        return call

    return decorate


def stage(name: str, *, unit: str = "step", total: int | None = None) -> None:
    """Begin a stage of what is going on; see :meth:`Progress.stage`. Nothing happens where no progress is open."""
    if (bar := _OPEN.get()) is not None:
        bar.stage(name, unit=unit, total=total)


def count(n: int = 1) -> None:
    """Count what is done in the stage that is going on, if any."""
    if (bar := _OPEN.get()) is not None:
        bar.update(n)


def note(**values: object) -> None:
    """Show values beside the bar, if there is one."""
    if (bar := _OPEN.get()) is not None:
        bar.note(**values)


class Progress:
    """Named stages, one after the other, as a bar where one is drawn."""

    def __init__(self, title: str, *, is_drawn: bool) -> None:
        self.title, self.is_drawn = title, is_drawn
        self.name = ""
        self._bar: tqdm | None = None
        self._ended = Event()

    def stage(self, name: str, *, unit: str = "step", total: int | None = None, initial: int = 0) -> None:
        """Begin a stage, ``initial`` of ``total`` units done; the one that is going on already just counts on."""
        if name == self.name:
            return
        self.name = name
        label = f"{self.title}: {f'{unit}s' if name == self.title else name}"
        if not self.is_drawn:
            logger.info("%s", label)
            return
        bar_format = _CLOCK if total is None else None
        if self._bar is None:
            self._bar = _new_bar(desc=f"{label}: ", unit=unit, total=total, bar_format=bar_format)
            Thread(target=self._tick, daemon=True).start()
        self._bar.total, self._bar.unit, self._bar.bar_format = total, unit, bar_format
        self._bar.set_description(label, refresh=False)
        self._bar.set_postfix_str("", refresh=False)
        self._bar.reset()  # the clock, too
        if initial:
            self._bar.n = self._bar.initial = initial
            self._bar.refresh()

    def update(self, n: int = 1) -> None:
        """Count what is done."""
        if self._bar is not None:
            self._bar.update(n)

    def note(self, **values: object) -> None:
        """Show values beside the bar."""
        if self._bar is not None:
            self._bar.set_postfix(values)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._ended.set()
        if self._bar is not None:
            self._bar.close()

    def _tick(self) -> None:
        """Keep the clock of the bar going while a stage has nothing to count."""
        while not self._ended.wait(_SECONDS_BETWEEN_LOOKS):
            if self._bar is not None:
                self._bar.refresh()


def is_watched() -> bool:
    """Return whether somebody sees a bar: in a terminal or a notebook, the first process alone."""
    if os.environ.get("LOCAL_RANK", "0") != "0" or os.environ.get("TQDM_DISABLE", "0") not in {"", "0"}:
        return False
    if sys.stderr is not None and sys.stderr.isatty():
        return True
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell is not None and "IPKernelApp" in shell.config


def _new_bar(**options: Any) -> tqdm:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that notebooks lack ipywidgets: the bar is drawn in text then
        from tqdm.auto import tqdm

        return tqdm(**options)


@contextmanager
def progress_bar(what: str, *, unit: str, total: int, initial: int = 0, show: bool = True) -> Iterator[Progress]:
    """Begin a stage that counts something, ``initial`` of it done, within what is going on or, if shown, by itself."""
    with progress(what, show=show) as bar:
        bar.stage(what, unit=unit, total=total, initial=initial)
        yield bar


def side_by_side(
    jobs: Iterable[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]],
    what: str,
    *,
    unit: str,
    total: int,
    n_jobs: int,
    show: bool = False,
) -> list[Any]:
    """Return the results of what ``joblib.delayed`` makes, in order, with a bar that counts those that are done."""
    results = []
    with progress_bar(what, unit=unit, total=total, show=show) as bar:
        for result in Parallel(n_jobs=n_jobs, return_as="generator")(jobs):
            results.append(result)
            bar.update()
    return results

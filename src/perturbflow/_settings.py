"""Settings of the whole package: what it says, where it computes, where figures go."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from perturbflow._checks import check_one_of, check_text, check_type

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


_DEVICES = ("auto", "cpu", "cuda", "gpu", "mps", "xpu")


class Settings:
    """Settings of the whole package, ``pf.settings``.

    They are read when a function is called, and hold until Python ends. An argument of a function comes before them.

    Examples
    --------
    >>> import perturbflow as pf
    >>> pf.settings
    Settings(verbosity='warning', device=None, figdir='figures', progress_bars=True)
    >>> pf.settings.figdir = "output"
    >>> pf.settings.figdir.name
    'output'
    >>> pf.settings.figdir = "figures"
    """

    def __init__(self) -> None:
        self._device: str | None = None
        self._figdir = Path("figures")
        self._progress_bars = True

    @property
    def verbosity(self) -> str:
        """Return what is said: "error", "warning" (the default), "info" or "debug", each with all before it.

        With "info", fits say which stages they go through and which settings they chose. It is the level of the logger
        "perturbflow" of :mod:`logging`, whose handlers get everything; without any, messages go to the standard error.
        """
        level = _logger().getEffectiveLevel()
        return next((name for name, value in _LEVELS.items() if value >= level), "error")

    @verbosity.setter
    def verbosity(self, name: str) -> None:
        check_one_of(name, _LEVELS, name="settings.verbosity")
        logger = _logger()
        logger.setLevel(_LEVELS[name])
        if not any(isinstance(handler, _Console) for handler in logger.handlers):
            logger.addHandler(_Console())

    @property
    def device(self) -> str | None:
        """Device of torch for everything that has a network: "cpu", "cuda" (or "gpu"), "cuda:1", "mps" or "auto".

        With None, the default, fits take a GPU where there is one, and predictions and evaluations the CPU. Whether the
        device is there is checked when it is used.
        """
        return self._device

    @device.setter
    def device(self, name: str | None) -> None:
        if name is not None:
            check_text(name, name="settings.device")
            check_one_of(name.partition(":")[0], _DEVICES, name="settings.device")
        self._device = name

    @property
    def figdir(self) -> Path:
        """Directory where figures are saved whose file is named without one."""
        return self._figdir

    @figdir.setter
    def figdir(self, folder: str | Path) -> None:
        check_type(folder, (str, Path), name="settings.figdir", expected="a directory")
        if folder == "":
            msg = "Expected `settings.figdir` to be a directory, found ''. Use '.' for the current directory."
            raise ValueError(msg)
        self._figdir = Path(folder)

    @property
    def progress_bars(self) -> bool:
        """Return whether functions show progress bars where somebody can see them: in a terminal or a notebook."""
        return self._progress_bars

    @progress_bars.setter
    def progress_bars(self, show: bool) -> None:
        check_type(show, bool, name="settings.progress_bars", expected="True or False")
        self._progress_bars = show

    def __repr__(self) -> str:
        return (
            f"Settings(verbosity={self.verbosity!r}, device={self.device!r}, figdir={str(self.figdir)!r}, "
            f"progress_bars={self.progress_bars!r})"
        )


class _Console(logging.Handler):
    """Writes to the standard error, unless logging was set up by somebody else."""

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers:
            sys.stderr.write(f"{self.format(record)}\n")


def _logger() -> logging.Logger:
    return logging.getLogger(__name__.partition(".")[0])


settings = Settings()
"""The settings that functions read."""

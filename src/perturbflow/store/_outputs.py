"""Places to write to, tried before the work whose result they are for."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_PROBE = ".perturbflow-probe"
_N_BYTES = 4096  # a full disk takes an empty file


def check_folder(folder: str | Path, *, name: str) -> None:
    """Raise unless files can be written into a directory; it is not made if there is none.

    An empty name, which would be the current directory, is a ValueError.
    """
    if folder == "":
        msg = f"Expected `{name}` to be a directory, found ''. Use '.' for the current directory."
        raise ValueError(msg)
    folder = Path(folder)
    inside = next(part for part in (folder, *folder.absolute().parents) if os.path.lexists(part))
    if not inside.is_dir():
        msg = (
            f"Expected `{name}` to be an existing or new directory, found the file {str(inside)!r}"
            f"{'' if inside == folder else f' in the path {str(folder)!r}'}. Choose another `{name}`."
        )
        raise NotADirectoryError(msg)
    new = [part for part in (folder, *folder.parents) if not part.exists()]
    probe = folder / _PROBE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with probe.open("wb") as file:
            file.write(bytes(_N_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        msg = (
            f"Expected `{name}` to be a directory that can be written to, found {str(folder)!r}: "
            f"{error.strerror or error}. Choose another `{name}`, or free the location."
        )
        raise type(error)(msg) from error
    finally:
        with suppress(OSError):  # what is not there, or has got other content meanwhile
            probe.unlink()
        with suppress(OSError):
            for part in new:
                part.rmdir()

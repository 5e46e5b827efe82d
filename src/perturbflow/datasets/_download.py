"""Published files: downloaded once with pooch, checked by their hash, and kept in a folder of the user."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from perturbflow._docs import shares

CACHE_VARIABLE = "PERTURBFLOW_CACHE"

of_download = shares(
    {"path": "A copy of the (unpacked) file to read instead."},
    raises="""ConnectionError
    If the file cannot be downloaded; the message says where to save a copy.
FileNotFoundError
    If there is nothing at ``path``.
ImportError
    If pooch is not installed: ``pip install 'perturbflow[data]'``.
ValueError
    If what was downloaded is not the published file, labels are not as published, or an option is unknown.""",
)


@dataclass(frozen=True)
class RemoteFile:
    """A file that others publish.

    ``known_hash`` is as published, such as "md5:..."; None where none is published: pooch then logs that of the download.
    """

    name: str
    url: str
    size: str
    known_hash: str | None


def local_copy(file: RemoteFile, path: str | Path | None = None) -> Path:
    """Return the path of a published file on this machine, and download it first if it was never asked for.

    Files are kept in the folder that the environment variable ``PERTURBFLOW_CACHE`` names, else in the cache of the
    operating system. One whose name ends with ".gz" is unpacked. With the ``path`` of a copy nothing is downloaded, and its
    hash is not checked.
    """
    if path is not None:
        if not Path(path).is_file():
            msg = f"Expected {file.name} at {path}, found no file. Leave `path` out to download it ({file.size})."
            raise FileNotFoundError(msg)
        return Path(path)
    try:
        import pooch
    except ImportError:
        msg = (
            f"Expected pooch, which downloads {file.name} ({file.size}), found it not installed. Run "
            f"`pip install 'perturbflow[data]'`, or download {file.url} and name the file in `path`."
        )
        raise ImportError(msg) from None
    folder = Path(os.environ.get(CACHE_VARIABLE) or pooch.os_cache("perturbflow"))
    unpacks = file.name.endswith(".gz")
    try:
        found = pooch.retrieve(
            file.url,
            known_hash=file.known_hash,
            fname=file.name,
            path=folder,
            processor=pooch.Decompress(name=file.name.removesuffix(".gz")) if unpacks else None,
            progressbar=sys.stderr.isatty(),
        )
    except OSError as error:  # that of requests for everything that a network does
        msg = (
            f"Expected to download {file.url} ({file.size}), found {type(error).__name__}. Connect to the internet and try "
            f"again; or download it elsewhere, save it as {folder / file.name}, or name it in `path`."
        )
        raise ConnectionError(msg) from error
    return Path(found)

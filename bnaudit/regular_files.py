"""Opening files that anybody may have put there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


class NotRegularError(OSError):
    """A pipe or a device where a file should be."""


@contextmanager
def regular_file(path: Path) -> Iterator[BinaryIO]:
    """The file at `path`, for reading.

    A pipe or a device is refused at once, without waiting for what it would deliver. Raises
    `OSError`, and `ValueError` for a name with a null character.
    """
    # Without O_NONBLOCK, opening a pipe waits for somebody who writes into it.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        file = os.fdopen(handle, "rb")  # of a folder, this raises
    except OSError:
        os.close(handle)
        raise
    with file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise NotRegularError("not a regular file; copy what it delivers into a file first")
        yield file


def is_folder(path: Path) -> bool:
    """`Path.is_dir`, and False too for what cannot be looked at: reading it tells why."""
    try:
        return path.is_dir()
    except OSError:  # no permission on the way, or too long a name
        return False


def is_there(path: Path) -> bool:
    """`Path.exists`, and False too for what cannot be looked at: using it tells why."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises then


def real_place(path: Path) -> Path:
    """Where a path leads, links followed; of links in a circle as far as that goes.

    `Path.resolve` raises for those, which nobody expects of a comparison of two paths.
    """
    return Path(os.path.realpath(path))


def with_home(text: str) -> Path:
    """The path with the home folder for `~`; a name that has none stays as it is."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)

"""Files that appear under their name whole, or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`: on success its file is flushed and takes the name `path`.

    On any exception, an interrupt included, the temporary file is removed and what stood under
    `path` stays as it was. The mode is what the umask gives a new file. Where a symbolic link
    stands under `path`, the link is replaced and what it leads to is not touched: somebody else's
    link in a shared folder cannot turn a report on another file. Raises `OSError`.
    """
    with temporary_beside(path) as temporary:
        yield temporary
        flush_file(temporary)
        temporary.replace(path)
    flush_folder(path.parent)


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """An empty new file in the folder of `path`, removed at the end if it still has its name."""
    # A name may be as long as the file system allows, and ours is longer.
    temporary = path.with_name(f".{path.name[:80]}.{secrets.token_hex(6)}.tmp")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def flush_file(path: Path) -> None:
    """Return once the file's content is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Return once the names in `folder` are on the disk, where the system can promise that."""
    if os.name == "nt":  # a folder cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems know no such thing; the rename itself has been made.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)

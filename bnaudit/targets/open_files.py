"""Reading pieces of many files, in any order and from several processes."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

from bnaudit.regular_files import regular_file

_MOST = 32
"""Files that one process keeps open: systems allow a process about a thousand, of all kinds."""


class OpenFiles:
    """Files that stay open between reads, the least recently used ones closed first.

    Reads do not move a file's position, so a process may share its files with those forked from
    it. Pickled without them: the other process opens its own.
    """

    def __init__(self) -> None:
        self._handles: OrderedDict[Path, int] = OrderedDict()

    def read(self, path: Path, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on. OSError: the file is gone, or has become shorter."""
        data = os.pread(self._handle(path), size, offset)
        while len(data) < size:  # a system may give less than it is asked for
            more = os.pread(self._handle(path), size - len(data), offset + len(data))
            if not more:
                raise OSError(f"{path} has become shorter since it was opened")
            data += more
        return data

    def _handle(self, path: Path) -> int:
        if path in self._handles:
            self._handles.move_to_end(path)
            return self._handles[path]
        with regular_file(path) as file:
            handle = os.dup(file.fileno())
        self._handles[path] = handle
        if len(self._handles) > _MOST:
            _, oldest = self._handles.popitem(last=False)
            os.close(oldest)
        return handle

    def __getstate__(self) -> dict[str, Any]:
        return {"_handles": OrderedDict()}

    def __del__(self) -> None:
        while self._handles:
            os.close(self._handles.popitem()[1])

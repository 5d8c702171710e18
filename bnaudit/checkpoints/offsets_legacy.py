"""Where tensors lie in the files that torch.save wrote before 1.6."""

from __future__ import annotations

import os
from typing import BinaryIO

from bnaudit.checkpoints.offsets_pickle import PickledFile
from bnaudit.checkpoints.places import CannotPatch
from bnaudit.checkpoints.stub_pickle import read_stubs

# What torch.save writes ahead of the object: magic number, protocol, system.
_HEADERS = 3


def read_legacy(file: BinaryIO) -> PickledFile:
    """The pickle of the file, and where its records lie.

    The pickle is followed by the list of storage keys, then by each storage in that order: the
    number of its elements (8 bytes), its data. All of it is little-endian, on any machine.
    """
    file.seek(0)
    for _ in range(_HEADERS):
        read_stubs(file)
    pickled = read_stubs(file)
    keys = read_stubs(file).root
    if not isinstance(keys, list):
        raise CannotPatch("the list of storages is missing")
    itemsize: dict[str, int] = {}
    for storage in pickled.storages:  # the first mention decides, as in torch
        itemsize.setdefault(storage.key, storage.dtype.itemsize)
    at, end = file.tell(), os.fstat(file.fileno()).st_size
    starts: dict[str, int | None] = {}
    sizes: dict[str, int] = {}
    for key_ in keys:
        name = key_.decode("ascii") if isinstance(key_, bytes) else str(key_)
        file.seek(at)
        count = int.from_bytes(file.read(8), "little", signed=True)
        if name not in itemsize or count < 0:
            raise CannotPatch("the storages do not follow the pickle as they should")
        starts[name], sizes[name] = at + 8, count * itemsize[name]
        at += 8 + sizes[name]
    if at > end:
        raise CannotPatch("the file ends too early")
    return PickledFile(pickled, starts, sizes)

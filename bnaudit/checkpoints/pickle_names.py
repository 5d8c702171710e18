"""Which names a checkpoint's pickle asks for, read from its opcodes; nothing is unpickled."""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from typing import BinaryIO

import torch

# What torch.save writes ahead of a legacy file's object: magic number, protocol, system.
_LEGACY_HEADERS = 3


def foreign_names(file: BinaryIO, *, legacy: bool) -> tuple[str, ...]:
    """The dotted names in a checkpoint that `torch.load(weights_only=True)` would refuse now.

    `file`: an open checkpoint that `torch.save` wrote, in the zip or the legacy format. Names that
    are allowed where this is called (`plain_data_allowed`) are left out. In order of appearance;
    what can be read of a damaged file.
    """
    file.seek(0)
    names: dict[str, None] = {}
    if legacy:
        for _ in range(_LEGACY_HEADERS + 1):
            _collect(file, names)
    else:
        with zipfile.ZipFile(file) as archive:
            member = next(n for n in archive.namelist() if n.partition("/")[2] == "data.pkl")
            _collect(io.BytesIO(archive.read(member)), names)
    refused = _refused(list(names))
    return tuple(name for name in names if name in refused)


def _collect(file: BinaryIO, names: dict[str, None]) -> None:
    """Add the names of the pickle at the file's position, in their Python 3 spelling."""
    # STACK_GLOBAL takes its two strings from the stack: the last two pushed, or fetched by memo.
    recent: list[str] = []
    memo: dict[int, str] = {}
    last: str | None = None
    stored = 0
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == "MEMOIZE":
            memo[stored] = last or ""
            stored += 1
        elif opcode.name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[_index(argument)] = last or ""
        elif opcode.name == "GLOBAL":
            _add(names, *str(argument).split(" ", 1))
            last = None
        elif opcode.name == "STACK_GLOBAL":
            _add(names, *recent[-2:])
            last = None
        elif opcode.name in ("GET", "BINGET", "LONG_BINGET"):
            last = memo.get(_index(argument), "")
            recent.append(last)
        elif isinstance(argument, str) and "UNICODE" in opcode.name:
            last = argument
            recent.append(last)
        else:
            last = None
        del recent[:-2]


def _index(argument: object) -> int:
    return argument if isinstance(argument, int) else -1


def _add(names: dict[str, None], module: str = "?", name: str = "?") -> None:
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    names[f"{module}.{name}"] = None


def _refused(names: list[str]) -> set[str]:
    """Which of the names torch refuses: it says so only about a file, so it is given one."""
    mentions = "".join(f"c{n.rpartition('.')[0]}\n{n.rpartition('.')[2]}\n" for n in names)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        pickled = pickle.PROTO + b"\x02" + mentions.encode("utf-8", "replace") + pickle.STOP
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
    buffer.seek(0)
    try:
        return set(torch.serialization.get_unsafe_globals_in_checkpoint(buffer))
    except Exception:  # whatever torch makes of our file, the names themselves are worth telling
        return set(names)

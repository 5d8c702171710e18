"""Ways to damage a file, shared by the tests of hostile input."""

from __future__ import annotations

import gzip
import json
import os
import pickle
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

Refused = Callable[..., str]
Damage = Callable[[str], str | bytes]
"""From the text of a good document to a bad one."""


def in_turn(cases: Iterable[tuple[Any, ...]], verbs: Collection[str]) -> list[Any]:
    """Every case, its name first, with every verb last: each pair a test.

    One verb a case in turn runs by default. The verbs read a file by the same code, so that the
    other pairs are slow.
    """
    return [
        pytest.param(
            *case[1:],
            verb,
            id=f"{case[0]}-{verb}",
            marks=[] if number % len(verbs) == place else pytest.mark.slow,
        )
        for number, case in enumerate(cases)
        for place, verb in enumerate(verbs)
    ]


def kinds(names: Iterable[str]) -> list[tuple[str, str]]:
    """Cases that are nothing but their name."""
    return [(name, name) for name in names]


class RunsCode:
    """Unpickling this creates the file `marker`."""

    def __reduce__(self) -> tuple[object, ...]:
        return open, ("marker", "w")


def sparse(path: Path, size: int) -> None:
    """A file of zeros that takes no room on the disk."""
    with path.open("wb") as file:
        file.truncate(size)


NOT_FILES: dict[str, Callable[[Path], object]] = {
    "a pipe": lambda path: os.mkfifo(path),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "links in a circle": lambda path: (
        path.symlink_to("other"),
        path.with_name("other").symlink_to(path.name),
    ),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a link to a device without an end": lambda path: path.symlink_to("/dev/zero"),
    "a link to an empty device": lambda path: path.symlink_to("/dev/null"),
    "a link to a pipe": lambda path: (
        os.mkfifo(path.with_name("pipe")),
        path.symlink_to("pipe"),
    ),
    "a file below a file": lambda path: None,
}
"""What may stand under a name, other than a file."""

OTHER_FILES: dict[str, Callable[[Path], object]] = {
    "a pickle that runs code": lambda path: path.write_bytes(pickle.dumps(RunsCode())),
    "a checkpoint": lambda path: torch.save({"x": torch.zeros(3)}, path),
    "gzip": lambda path: path.write_bytes(gzip.compress(b"{}")),
    "bytes of no encoding": lambda path: path.write_bytes(bytes(range(255, 0, -1)) * 9),
    "zeros": lambda path: path.write_bytes(bytes(4096)),
    "far too large": lambda path: sparse(path, 2**33),
}


def changed(*way: str | int, to: Any) -> Damage:
    """The document with another value in one place."""

    def damage(text: str) -> str:
        document = json.loads(text)
        inner = document
        for part in way[:-1]:
            inner = inner[part]
        inner[way[-1]] = to
        return json.dumps(document)

    return damage


def raw(*way: str | int, to: str) -> Damage:
    """The same with a piece of text in place of the value, which no JSON writer would give."""

    def damage(text: str) -> str:
        return str(changed(*way, to="@@@")(text)).replace('"@@@"', to)

    return damage


def without(*way: str | int) -> Damage:
    """The document without one key."""

    def damage(text: str) -> str:
        document = json.loads(text)
        inner = document
        for part in way[:-1]:
            inner = inner[part]
        del inner[way[-1]]
        return json.dumps(document)

    return damage


def put(path: Path, content: str | bytes) -> None:
    """Write it as it is."""
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)

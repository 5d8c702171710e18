"""The files that a pattern such as `shard-{0000..0099}.tar` names."""

from __future__ import annotations

import glob
import math
import re
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path

from bnaudit.errors import InputError
from bnaudit.regular_files import with_home
from bnaudit.targets.messages import did_you_mean

_RANGE = re.compile(r"(\d+)\.\.(\d+)\Z")
_BRACES = re.compile(r"\{([^{}]*)\}")
_MOST = 100_000
"""Files that a pattern may name: a slip of the finger is told before it fills the memory."""


def shard_files(pattern: str, *, said: str) -> list[Path]:
    """The files of a pattern, in its order, each once.

    Braces name ranges, `{0000..0099}` (the digits of the first number count), and choices,
    `{train,val}`; `*`, `?` and `[…]` match as in a shell, in sorted order; `::` stands between
    several patterns, as in WebDataset. A file that is called exactly so is that file.

    InputError, which begins with `said`: a range that runs backwards, a name without a file, or a
    pattern without any.
    """
    found: dict[Path, None] = {}
    for part in pattern.split("::"):
        if not part:
            raise InputError(f"{said}: a pattern is empty: say which files, as shard-{{0..9}}.tar")
        path = with_home(part)
        found |= dict.fromkeys([path] if path.is_file() else _matching(str(path), said))
    return list(found)


def _matching(pattern: str, said: str) -> list[Path]:
    names = _expanded(pattern, said)
    found: list[Path] = []
    missing: list[str] = []
    for name in names:
        matches = sorted(glob.glob(name)) if glob.has_magic(name) else [name]  # noqa: PTH207
        files = [Path(match) for match in matches if Path(match).is_file()]
        found += files
        missing += [] if files else [name]
    if missing:
        raise InputError(f"{said}: {_why(missing, len(names))}")
    return found


def _why(missing: list[str], names: int) -> str:
    """What is the matter with names that have no file."""
    first = Path(missing[0])
    if glob.has_magic(str(first)):
        return f"no file matches {first}"
    if first.is_dir():
        return f"{first} is a folder: name the files in it, such as {first}/*"
    there = f"{len(missing)} of its {names} files are missing; the first is" if names > 1 else ""
    siblings = [path.name for path in first.parent.glob(f"*{first.suffix}")]
    hint = did_you_mean(first.name, islice(siblings, 1000)) if not there else ""
    return f"{there or 'there is no file'} {first}{hint}"


def _expanded(pattern: str, said: str) -> list[str]:
    """The names of a pattern with its braces replaced; the rightmost braces count fastest."""
    parts = _BRACES.split(pattern)  # text, inside of braces, text, …, text
    choices = [_choices(inside, said) for inside in parts[1::2]]
    names = math.prod(map(len, choices))
    if names > _MOST:
        raise InputError(f"{said}: its braces name {names:,} files, more than {_MOST:,}")
    return ["".join(_woven(parts[::2], chosen)) for chosen in product(*choices)]


def _choices(inside: str, said: str) -> list[str]:
    span = _RANGE.match(inside)
    if span is None:
        return inside.split(",") if "," in inside else [f"{{{inside}}}"]
    first, last = map(int, span.groups())
    if first > last:
        raise InputError(f"{said}: the range {{{inside}}} runs backwards")
    if last - first >= _MOST:
        raise InputError(f"{said}: the range {{{inside}}} has more than {_MOST:,} numbers")
    return [f"{number:0{len(span[1])}d}" for number in range(first, last + 1)]


def _woven(texts: list[str], chosen: tuple[str, ...]) -> Iterator[str]:
    for text, choice in zip(texts, chosen, strict=False):
        yield text
        yield choice
    yield texts[-1]

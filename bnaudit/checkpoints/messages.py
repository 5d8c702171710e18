"""How this folder words an error: one line, safe to print, long lists cut short."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

from bnaudit.errors import InputError

# A file can hold any name; line breaks and terminal escapes in it must not reach the screen.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def one_line(text: str) -> str:
    """`text` with every run of control characters and line breaks made one space."""
    return _UNPRINTABLE.sub(" ", text)


def input_error(path: Path | str, text: str) -> InputError:
    """The error that says `text` about the file `path`, in one line."""
    return InputError(one_line(f"{path}: {text}"))


def shortened(text: str, limit: int = 80) -> str:
    """`text` in one line of at most `limit` characters, its middle left out where it is longer."""
    text = one_line(text)
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"


def listed(items: Iterable[str], limit: int = 5, width: int = 80) -> str:
    """The first `limit` items, each shortened to `width`, then how many more there are."""
    every = list(items)
    text = ", ".join(shortened(item, width) for item in every[:limit])
    return text if len(every) <= limit else f"{text} and {len(every) - limit} more"


def first_line(error: BaseException) -> str:
    """What an exception says, in short: its type and the first line of its message."""
    lines = str(error).strip().splitlines()
    name = type(error).__name__
    return f"{name}: {shortened(lines[0], 160)}" if lines else name


def near_names(path: Path, limit: int = 3) -> list[str]:
    """Names in the folder of `path` that look like the name of `path`, the nearest first.

    Empty where the folder does not exist or cannot be read.
    """
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return []
    # Case is what a user mistypes most often, and the default cut-off is blind to it.
    folded = {name.casefold(): name for name in sorted(names, reverse=True)}
    nearest = difflib.get_close_matches(path.name.casefold(), folded, n=limit, cutoff=0.6)
    return [folded[name] for name in nearest]

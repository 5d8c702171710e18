"""How a wrong name, or an exception out of somebody else's code, is told in one line."""

from __future__ import annotations

import difflib
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path

_LONGEST = 400
_OWN_FOLDER = Path(__file__).resolve().parents[1]


def one_line(error: BaseException) -> str:
    """`TypeError: what it says`, on one line, cut after 400 characters."""
    text = " ".join(str(error).split())
    if len(text) > _LONGEST:
        text = text[:_LONGEST] + " …"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def where(error: BaseException) -> str:
    """`file:line` of the innermost frame that is the user's own code; "" where there is no frame.

    Code of installed packages, of the standard library and of bnaudit is passed over as long as
    another frame is left: the user can mend only what is theirs.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<")
    ]
    if not frames:
        return ""
    own = [frame for frame in frames if not _is_library(frame.filename)]
    frame = (own or frames)[-1]
    return f"{frame.filename}:{frame.lineno}"


def told(error: BaseException) -> str:
    """`TypeError: what it says (file.py:12)`."""
    place = where(error)
    return f"{one_line(error)} ({place})" if place else one_line(error)


def near(word: str, candidates: Iterable[str], count: int = 3) -> list[str]:
    """The candidates most like the word, best first, whatever their case; often none."""
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(word.lower(), by_lower, n=count, cutoff=0.6)
    return [by_lower[match] for match in close]


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """`; did you mean a, b?`, to end a message with; "" where nothing is near."""
    names = near(word, candidates)
    return f"; did you mean {', '.join(names)}?" if names else ""


def listed(names: Iterable[str], most: int = 8) -> str:
    """`a, b, c`, and how many more; `nothing` for none."""
    names = list(names)
    shown = ", ".join(names[:most]) or "nothing"
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def kind_of(value: object) -> str:
    """`an int`, `a Tensor`, `the class Net`; `nothing` for None."""
    if value is None:
        return "nothing"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _is_library(filename: str) -> bool:
    path = Path(filename)
    if {"site-packages", "dist-packages"} & set(path.parts):
        return True
    return path.is_relative_to(sysconfig.get_path("stdlib")) or path.is_relative_to(_OWN_FOLDER)

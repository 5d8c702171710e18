"""JSON from anybody: what a measurement can have written, or a reason in a few words."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, NoReturn

LONGEST_LIST = 100_000
"""Entries of one list; networks have a thousand layers, and images in their hundreds of thousands
are marked in one text."""

LARGEST_NUMBER = 1e100
"""Squares of what float32 can hold are 10 to the 77th; the square of this is a number yet."""

LARGEST_INTEGER = 2**63 - 1

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parsed(text: str) -> Any:
    """The document. Raises `ValueError` with the reason.

    Refused are duplicate keys, NaN, infinity, numbers and lists that no measurement has, and what
    is nested deeper than Python reads. Halves of surrogate pairs, which no file can hold, become
    replacement characters.
    """
    try:
        document = json.loads(
            text,
            object_pairs_hook=_object,
            parse_float=_number,
            parse_int=_integer,
            parse_constant=_constant,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _refuse_long_lists(document)
    return _repaired(document) if _ESCAPED_SURROGATE.search(text) else document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {_short(twice)!r} stands twice in one object")
    return values


def _number(text: str) -> float:
    number = float(text)
    if abs(number) > LARGEST_NUMBER:
        raise ValueError(f"the number {_short(text)} is too large for any figure")
    return number


def _integer(text: str) -> int:
    # By length first: Python refuses to read thousands of digits, in other words.
    if len(text) > 20 or abs(int(text)) > LARGEST_INTEGER:
        raise ValueError(f"the number {_short(text)} is too large for any figure")
    return int(text)


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number in JSON")


def _refuse_long_lists(document: Any) -> None:
    """Before each of a million entries is found to be at fault."""
    level = [document] if isinstance(document, (dict, list)) else []
    while level:
        below: list[Any] = []
        for value in level:
            if isinstance(value, list) and len(value) > LONGEST_LIST:
                raise ValueError(f"a list of {len(value):,} entries, too long for any document")
            inner = value.values() if isinstance(value, dict) else value
            below += [item for item in inner if isinstance(item, (dict, list))]
        level = below


def _repaired(value: Any) -> Any:
    if isinstance(value, str):
        return _LONE_SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_repaired(item) for item in value]
    if isinstance(value, dict):
        return {_repaired(key): _repaired(item) for key, item in value.items()}
    return value


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."

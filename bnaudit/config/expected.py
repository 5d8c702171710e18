"""What a setting takes, in plain words, from what pydantic says against its value."""

from __future__ import annotations

import datetime
from typing import Any

from pydantic_core import ErrorDetails

_LONGEST = 60

_WORDS = {
    "int": "give an integer",
    "float": "give a number",
    "bool": "give true or false",
    "string": "give text",
    "path": "give a path, as text",
    "dict": "give a table, { name = value }",
    "model": "give a table, { name = value }",
    "list": "give a list",
    "tuple": "give a list",
    "finite": "give a finite number",
}
"""By the beginning of pydantic's type of error."""


def expected(error: ErrorDetails) -> str:
    """Such as "give a number, greater than or equal to 0"."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "value_error":
        return error["msg"].removeprefix("Value error, ")
    if kind == "literal_error":
        return f"give {context['expected']}"
    if kind.startswith(("greater_than", "less_than")):
        given = next(iter(context.values()))
        limit = f"{given:g}" if isinstance(given, float) else given
        return f"give a number {kind.replace('_equal', '_or_equal_to').replace('_', ' ')} {limit}"
    words = _WORDS.get(kind.partition("_")[0])
    return words or error["msg"].removeprefix("Input should be ")


def shown(value: Any) -> str:
    """The value as it was given, and what it is where one cannot see that."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, (datetime.date, datetime.time)):
        return f"{value} (a date or time)"
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of more digits than Python writes
        return "a number of thousands of digits"
    if isinstance(value, bool):
        text = text.lower()
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."

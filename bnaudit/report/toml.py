"""Values and comments as TOML, so that whatever a file or a folder is called can stand there."""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Mapping

from bnaudit.errors import InputError

WIDTH = 100

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def toml_value(value: object) -> str:
    """A value as TOML: text, numbers, true and false, lists, and tables in one line.

    Raises `InputError` for what TOML has no form of: None, and names that are not Unicode.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # inf, -inf, nan
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{_key(str(key))} = {toml_value(x)}" for key, x in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    raise InputError(f"{value!r} cannot be written in a TOML file; give it on the command line")


def setting(name: str, value: object) -> str:
    """`name = value`."""
    return f"{name} = {toml_value(value)}"


def comment(text: str) -> list[str]:
    """The text as lines of a comment, at most 100 columns wide where words allow it."""
    plain = _UNPRINTABLE.sub(" ", text)
    lines = textwrap.wrap(plain, WIDTH - 2, break_long_words=False, break_on_hyphens=False)
    return [f"# {line}" for line in lines]


def _text(value: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(
            f"{value!r} is not Unicode, and a TOML file is: rename it to write a file with it"
        ) from None
    # JSON escapes what TOML does, and leaves the one control character beyond ASCII's first 32.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _text(name)

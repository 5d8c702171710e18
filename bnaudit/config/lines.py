"""On which line of a TOML text each key stands. tomllib reads the values, and tells no lines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

Place = tuple[str | int, ...]
"""The way to a value from the top: keys of tables, indices of lists."""

MOST_PARTS = 16
"""Of a key with dots. tomllib takes minutes over one of a hundred thousand."""

_SPACE = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_BLANK = re.compile(r"[ \t]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BASIC = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
_LITERAL = re.compile(r"'([^'\n]*)'")
_LONG = re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}', re.DOTALL)
_SCALAR = re.compile(r"[^,\]}#\n]+")
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|x([0-9A-Fa-f]{2})|(.))")
_SHORT = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b"}


def dotted(place: Place) -> str:
    """The place as TOML writes it: `gate.per_layer_ignores."layer1.*"`, items as `[0]`."""
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            quoted = part if _BARE.fullmatch(part) else '"' + part.replace('"', '\\"') + '"'
            text += f".{quoted}" if text else quoted
    return text


def lines_of(text: str) -> Mapping[Place, int]:
    """The line of each key, table and list item, from 1.

    Where something in it is not understood, what follows has no line: none rather than a wrong one.
    Raises `ValueError` for a key of more than `MOST_PARTS` parts, whether tomllib would take it or
    not.
    """
    lines: dict[Place, int] = {}
    scanner = _Scanner(text.replace("\r\n", "\n"))
    try:
        for place, line in scanner.document():
            lines.setdefault(place, line)
    except (_NotUnderstoodError, RecursionError):
        pass
    return lines


class _NotUnderstoodError(Exception):
    """The text is not what this scanner knows."""


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0
        self._line, self._counted = 1, 0
        self._items: dict[Place, int] = {}  # of each array of tables, how many there are

    def document(self) -> Iterator[tuple[Place, int]]:
        table: Place = ()
        while self._skip(_SPACE) < len(self._text):
            line = self._line_here()
            if self._next("[["):
                table = self._inside(self._key("]"))
                self._expect("]]")
                index = self._items[table] = self._items.get(table, -1) + 1
                yield table, line
                table = (*table, index)
                yield table, line
            elif self._next("["):
                table = self._inside(self._key("]"))
                self._expect("]")
                yield from _with_parents(table, line)
            else:
                yield from self._pair(table)

    def _inside(self, key: Place) -> Place:
        """The place of a header, which means the last item of the arrays of tables on its way."""
        place: Place = ()
        for part in key[:-1]:
            place = (*place, part)
            if place in self._items:
                place = (*place, self._items[place])
        return (*place, key[-1])

    def _pair(self, table: Place) -> Iterator[tuple[Place, int]]:
        line = self._line_here()
        key = self._key("=")
        self._expect("=")
        place = (*table, *key)
        yield from _with_parents(place, line, below=len(table))
        yield from self._value(place)

    def _value(self, place: Place) -> Iterator[tuple[Place, int]]:
        self._skip(_BLANK)
        if self._next("["):
            index = 0
            while self._skip(_SPACE) < len(self._text) and not self._next("]"):
                yield (*place, index), self._line_here()
                yield from self._value((*place, index))
                index += 1
                self._skip(_SPACE)
                self._next(",")
        elif self._next("{"):
            while self._skip(_SPACE) < len(self._text) and not self._next("}"):
                yield from self._pair(place)
                self._skip(_SPACE)
                self._next(",")
        else:
            for kind in (_LONG, _BASIC, _LITERAL, _SCALAR):
                if self._match(kind) is not None:
                    return
            raise _NotUnderstoodError

    def _key(self, end: str) -> Place:
        parts: list[str] = []
        while True:
            self._skip(_BLANK)
            if bare := self._match(_BARE):
                parts.append(bare[0])
            elif basic := self._match(_BASIC):
                parts.append(_ESCAPE.sub(_unescaped, basic[1]))
            elif literal := self._match(_LITERAL):
                parts.append(literal[1])
            else:
                raise _NotUnderstoodError
            if len(parts) > MOST_PARTS:
                raise ValueError(f"a key of more than {MOST_PARTS} parts (at line {self._line})")
            self._skip(_BLANK)
            if self._text.startswith(end, self._at):
                return tuple(parts)
            self._expect(".")

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self._text, self._at)
        if found:
            self._at = found.end()
        return found

    def _skip(self, pattern: re.Pattern[str]) -> int:
        self._match(pattern)
        return self._at

    def _next(self, text: str) -> bool:
        there = self._text.startswith(text, self._at)
        self._at += len(text) if there else 0
        return there

    def _expect(self, text: str) -> None:
        if not self._next(text):
            raise _NotUnderstoodError

    def _line_here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line


def _with_parents(place: Place, line: int, below: int = 0) -> Iterator[tuple[Place, int]]:
    """The place, and those on the way that only it has named."""
    for length in range(below + 1, len(place) + 1):
        yield place[:length], line


def _unescaped(match: re.Match[str]) -> str:
    code = match[1] or match[2] or match[3]
    return chr(int(code, 16)) if code else _SHORT.get(match[4], match[4])

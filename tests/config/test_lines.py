"""The lines of keys: every place that tomllib reads has one, and the key stands there."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bnaudit.config.lines import Place, dotted, lines_of

NASTY = """\
# [not.a.table]
title = "a = b # no comment"   # a comment = 3
'lit.eral' = 'c:\\temp'
"quo\\"ted".inner = 1
a.b . c = [1, [2, 3], # of a list
  { x = 1, "y z" = [4,
    5] },
]
long = \"\"\"
[table]
key = 1\\
\"\"\"\"
also = '''
[x]
y = ''z'''''
when = 1979-05-27 07:32:00Z

[ table . "sub.table" ]
k={n={m=1},o.p=2}
"\\u00e9"=1
[[list]]
one = 1
[list.below]
two = 2
[[list]]
one = 3
[[list.inner]]
[[list.inner]]
deep = true
[list.inner.more]
x = 1"""


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    if place:
        yield place
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*place, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*place, index))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_key_and_item_has_a_line(end: str) -> None:
    text = NASTY.replace("\n", end)
    assert set(lines_of(text)) == set(places(tomllib.loads(text)))


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("title",), 2),
        (("lit.eral",), 3),
        (('quo"ted', "inner"), 4),
        (("a",), 5),
        (("a", "b", "c", 1, 0), 5),
        (("a", "b", "c", 2, "y z", 1), 7),
        (("long",), 9),
        (("also",), 13),
        (("when",), 16),
        (("table", "sub.table"), 18),
        (("table", "sub.table", "k", "o", "p"), 19),
        (("table", "sub.table", "é"), 20),
        (("list", 0), 21),
        (("list", 0, "below", "two"), 24),
        (("list", 1, "one"), 26),
        (("list", 1, "inner", 1, "deep"), 29),
        (("list", 1, "inner", 1, "more", "x"), 31),
    ],
    ids=str,
)
def test_the_line_is_the_one_where_the_key_stands(place: Place, line: int) -> None:
    assert lines_of(NASTY)[place] == line


def test_this_projects_own_files_have_a_line_for_every_place() -> None:
    root = Path(__file__).parents[2]
    for path in (root / "pyproject.toml", root / "sample_models" / "bnaudit.toml"):
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines()
        found = lines_of(text)
        assert set(found) == set(places(tomllib.loads(text)))
        for place, line in found.items():
            assert isinstance(place[-1], int) or place[-1] in lines[line - 1]


@pytest.mark.parametrize("text", ["seed 1\nx = 1", "x = \ny = 2", "[open\nx = 1", "]"])
def test_what_is_not_understood_has_no_line_rather_than_a_wrong_one(text: str) -> None:
    assert ("y",) not in lines_of(text)
    assert lines_of("a = 1\n" + text)[("a",)] == 1


def test_deep_nesting_has_no_line_and_does_no_harm() -> None:
    assert lines_of("a = 1\nb = " + "[" * 100_000)[("a",)] == 1


def test_a_place_is_written_as_in_toml() -> None:
    assert dotted(("gate", "per_layer_ignores", "layer1.*", 0)) == (
        'gate.per_layer_ignores."layer1.*"[0]'
    )

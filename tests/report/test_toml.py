from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnaudit.errors import InputError
from bnaudit.report.toml import WIDTH, comment, setting

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False)
VALUES = st.recursive(
    TEXT | NUMBERS | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_a_value_is_read_back_as_it_was(value: object) -> None:
    assert tomllib.loads(setting("key", value)) == {"key": value}


@given(st.text())
def test_a_comment_changes_nothing_whatever_stands_in_it(text: str) -> None:
    lines = comment(text)
    assert tomllib.loads("\n".join([*lines, "key = 1"])) == {"key": 1}


def test_long_comments_are_broken_at_words() -> None:
    lines = comment("word " * 60)
    assert len(lines) > 2
    assert all(len(line) <= WIDTH and line.startswith("# word") for line in lines)


@pytest.mark.parametrize("value", [None, {"a": None}, 1j, "lone \udcff byte"])
def test_what_toml_has_no_form_of_is_refused(value: object) -> None:
    with pytest.raises(InputError):
        setting("key", value)

"""A gate on GitHub: annotations as its runner reads them, and a summary that is never too long."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import gates
import pytest

from bnaudit.errors import InputError
from bnaudit.report.github import (
    LEAST,
    LIMIT,
    LONGEST,
    MOST_ANNOTATIONS,
    STEP_LIMIT,
    append_summary,
    summary,
    workflow_commands,
)
from bnaudit.report.markdown import markdown
from bnaudit.results import Gate


@dataclass(frozen=True)
class Annotation:
    level: str
    title: str
    message: str


def read(gate: Gate) -> list[Annotation]:
    """As the runner reads a log: a line that begins with :: is a command, its values unescaped."""
    found = []
    for line in workflow_commands(gate).splitlines():
        match = re.fullmatch(r"::(\w+) title=([^:,\r\n]*)::([^\r\n]*)", line)
        assert match, line
        level, title, message = match.groups()
        for code, char in (("%3A", ":"), ("%2C", ","), *_DATA):
            title = title.replace(code, char)
        for code, char in _DATA:
            message = message.replace(code, char)
        found.append(Annotation(level, title, message))
    return found


_DATA = (("%0D", "\r"), ("%0A", "\n"), ("%25", "%"))


def test_what_fails_is_an_error_and_what_could_not_be_told_beside_it_a_warning() -> None:
    found = read(gates.failing())
    assert [each.level for each in found] == ["error", "error", "warning", "notice"]
    first = found[0]
    assert first.title == "bnaudit: BN101 estimation-shift"
    assert first.message.splitlines() == [
        gates.FAILING.sentence,
        "layer1.2.bn1",
        gates.FAILING.remedy,
        gates.FAILING.command,
    ]
    assert found[2].title.endswith("(inconclusive)")
    assert "nothing to ignore any more" in found[3].message


def test_too_little_data_are_an_error_where_they_make_the_gate_fail() -> None:
    assert [each.level for each in read(gates.inconclusive(exit_code=1))] == ["error"]
    found = read(gates.inconclusive(exit_code=0))
    assert "error" not in {each.level for each in found}
    assert [each.level for each in found] == ["warning", "notice"]


def test_a_pass_is_one_notice() -> None:
    assert read(gates.passing()) == [Annotation("notice", "bnaudit: PASS", "Nothing fails.")]


def test_a_gate_that_fails_has_an_error_whatever_it_rests_on() -> None:
    gate = Gate("fail", "No checks.", gates.AFTER, (), exit_code=1)
    assert [each.level for each in read(gate)] == ["error"]


def test_nothing_that_a_file_says_becomes_a_command() -> None:
    said = workflow_commands(gates.nasty())
    assert {line.split(" ")[0] for line in said.splitlines()} == {
        "::error",
        "::warning",
        "::notice",
    }
    assert all(char == "\n" or char.isprintable() for char in said)
    first = read(gates.nasty())[0]
    assert "a|b`c*d_e<f>&g,h:i%j ::error::x" in first.title
    assert "a|b`c*d_e<f>&g,h:i%j ::error::x" in first.message


def test_percent_signs_survive() -> None:
    check = replace(gates.FAILING, sentence="95% of it, %0A and %25 too", title="a:b,c%d")
    first = read(replace(gates.failing(), checks=(check,)))[0]
    assert first.message.startswith("95% of it, %0A and %25 too\n")
    assert first.title == "bnaudit: BN101 a:b,c%d"


def test_no_more_than_github_shows_and_the_last_one_names_the_rest() -> None:
    found = read(gates.many(25))
    assert len(found) == MOST_ANNOTATIONS
    assert {each.level for each in found} == {"error"}
    assert found[-1].title == "bnaudit: and 16 more"
    named = found[-1].message.splitlines()
    assert len(named) == 16
    assert named[0] == "BN101 estimation-shift: layer9 is off."
    assert named[-1] == "BN101 estimation-shift: layer24 is off."
    assert len(read(gates.many(10))) == 10
    assert read(gates.many(10))[-1].message.startswith("layer9 is off.")


def test_a_check_without_a_sentence_is_told_by_its_name() -> None:
    empty = replace(gates.FAILING, sentence="", layers=(), remedy=None, command=None)
    found = read(replace(gates.failing(), checks=(empty,) * 12, unused_ignores=()))
    assert found[0] == Annotation("error", "bnaudit: BN101 estimation-shift", "")
    assert found[-1].message.splitlines()[0] == "BN101 estimation-shift: "


def test_a_message_has_an_end() -> None:
    assert max(len(each.message) for each in read(gates.many(2000))) <= LONGEST


def size(text: str) -> int:
    return len(text.encode("utf-8"))


def test_a_summary_that_fits_is_the_whole_report() -> None:
    assert summary(gates.failing()) == markdown(gates.failing())


@pytest.mark.parametrize("checks", [200, 1000, 5000])
def test_a_long_summary_is_cut_below_the_limit_what_fails_first(checks: int) -> None:
    said = summary(gates.many(checks))
    assert size(markdown(gates.many(checks))) > LIMIT or checks == 200
    assert size(said) < LIMIT
    assert len(said) < LIMIT
    assert said.splitlines()[0].endswith("bnaudit gate: FAIL")
    assert "layer0 is off." in said
    if checks > 200:
        assert "Cut to GitHub's limit of 65,535 characters" in said
        assert "--report markdown=FILE" in said
        assert size(said) > LIMIT - 1000  # no more is left out than has to be


@pytest.mark.parametrize("limit", [LEAST, 1500, 3000, 6000, 10_000])
def test_however_short_it_is_it_is_whole_markdown(limit: int) -> None:
    for gate in (gates.failing(), gates.nasty(), gates.many(30)):
        said = summary(gate, limit)
        assert size(said) < limit
        assert "bnaudit gate: FAIL" in said.splitlines()[0]
        assert said.count("<details>") == said.count("</details>")
        tables = [line for line in said.splitlines() if line.startswith("|")]
        assert {line.endswith("|") for line in tables} <= {True}


def test_letters_of_many_bytes_count_as_what_they_are() -> None:
    check = replace(gates.FAILING, sentence="層" * 900)
    gate = replace(gates.failing(), checks=(check,) * 60)
    assert size(summary(gate)) < LIMIT


def test_the_summary_is_appended_to_what_stands_there(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    assert append_summary(gates.passing(), path)
    assert path.read_text(encoding="utf-8") == markdown(gates.passing())
    assert append_summary(gates.failing(), path)
    both = f"{markdown(gates.passing())}\n{markdown(gates.failing())}"
    assert path.read_text(encoding="utf-8") == both
    path.write_text("no end of line")
    append_summary(gates.passing(), path)
    assert path.read_text(encoding="utf-8").startswith("no end of line\n\n### ")


@pytest.mark.parametrize("there", [10_000, 60_000, LIMIT - LEAST - 2])
def test_what_stands_there_counts(there: int, tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    path.write_text("x" * there)
    assert append_summary(gates.many(2000), path)
    assert path.stat().st_size < LIMIT
    said = path.read_text(encoding="utf-8")
    assert said.startswith("x" * there)
    assert "bnaudit gate: FAIL" in said
    assert "Cut to GitHub's limit" in said


def test_the_verdict_is_added_as_long_as_github_shows_anything(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    path.write_text("x" * 500_000)
    assert append_summary(gates.many(100), path)
    assert path.stat().st_size <= 500_000 + LEAST + 2
    assert "bnaudit gate: FAIL" in path.read_text(encoding="utf-8")
    path.write_text("x" * (STEP_LIMIT - 100))
    assert not append_summary(gates.many(100), path)
    assert path.stat().st_size == STEP_LIMIT - 100


def test_a_summary_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"GITHUB_STEP_SUMMARY names .*cannot be written"):
        append_summary(gates.passing(), tmp_path)
